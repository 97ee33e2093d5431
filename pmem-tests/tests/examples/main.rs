//! The programs in `examples/` that answer a question, each run for real.
//!
//! Each has a mistake to show for comparison, and the tests run that too: a program that finds
//! nothing wrong with the mistake would prove nothing about the rest.

mod acknowledge_when_durable;
mod checkpoint_on_demand;
mod counter;
#[cfg(feature = "sim")]
mod explore_log;
mod game_of_life;
mod kv;
mod program;
mod publish_mapped;
mod readme;
mod survive_kill;
mod sync_errors;
