//! Bugs that were made before, each in a program of its own, each with its fix: what a crash test
//! must find, and what it must leave alone.

pub mod filesystem;
pub mod region;
