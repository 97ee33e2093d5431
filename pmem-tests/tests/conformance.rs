//! Every backend of this machine keeps the contract of the trait. Needs root for the mounts.

mod common;

common::on_every_backend!(guard: true);
