//! Every backend keeps the contract also where the program declined the SIGBUS handler. A
//! program of its own: the handler, once installed, would hide what is missing here.

mod common;

common::on_every_backend!(guard: false);
