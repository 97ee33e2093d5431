//! Simulators: what a crash can leave, modelled, so that tests can look at all of it.

pub mod filesystem;
