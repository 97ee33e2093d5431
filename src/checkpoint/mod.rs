//! A large working set in memory, saved on demand, all or nothing.
//!
//! A [`WorkingSet`] is private memory: no store to it reaches the file by itself, whatever the
//! kernel writes back. [`checkpoint`](WorkingSet::checkpoint) saves it as it is at that moment, and
//! writes what changed since the last time, not the whole. Opening restores the last complete
//! checkpoint. Earlier ones can be kept, listed and restored.
//!
//! ```
//! use daxmap::checkpoint::Options;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("world");
//! let mut set = Options::new(1 << 20).keep(1).create(&path)?;
//! set.write(4096, b"first")?;
//! set.checkpoint()?;
//! set.write(4096, b"second")?;
//! set.checkpoint_labelled("before the fight")?;
//! set.write(4096, b"never saved")?;
//! drop(set);
//!
//! let mut set = Options::new(1 << 20).open(&path)?;
//! assert_eq!(&set.bytes()[4096..4102], b"second");
//! set.restore(1)?;
//! assert_eq!(&set.bytes()[4096..4101], b"first");
//! # Ok::<(), daxmap::Error>(())
//! ```
//!
//! # What survives which crash
//!
//! | moment | process killed, OS crash or power cut |
//! |---|---|
//! | between two checkpoints | the last checkpoint, whole; what was stored since is gone |
//! | during [`checkpoint`](WorkingSet::checkpoint) | the one before or the new one, whole |
//! | after it returned `Ok` | the new one, as far as [`WorkingSet::durability`] goes |
//! | while opening | as before it |
//!
//! Every byte restored was compared with a check value (XXH3-64, keyed by a random number of the
//! file and by the place). What does not fit is `Damaged`, with its range; it is never returned.
//! Header and root have two copies each.
//!
//! | file | question |
//! |---|---|
//! | `options`, `settings`, `complete` | how is a file made and opened, and what was it made for? |
//! | `working_set` | what can be done with it? |
//! | `memory`, `changes`, `bits` | where is the set, and what changed in it? |
//! | `pointers`, `kernel_marks`, `comparison` | what did stores through a pointer change? |
//! | `file` | by which strategy does a checkpoint reach the file? |
//! | `shadow` | with pages: without touching what the one before needs |
//! | `redo` | with lines: by way of a record of what changes |
//! | `writer`, `record` | how are pages written, and what is noted of a checkpoint? |
//! | `contents` | what is in a file, sound or not? |
//! | `choice`, `recovery` | what was chosen, and what was found? |

mod bits;
mod changes;
mod choice;
mod comparison;
mod complete;
mod contents;
mod file;
mod kernel_marks;
mod memory;
mod options;
mod pointers;
mod record;
mod recovery;
mod redo;
mod settings;
mod shadow;
#[cfg(test)]
mod tests;
mod working_set;

pub use choice::{Strategy, Tracking};
pub use contents::{Contents, contents, contents_of};
pub use options::Options;
pub use record::{Checkpoint, LABEL_MAX};
pub use recovery::Recovery;
pub use settings::KEEP_MAX;
pub use working_set::WorkingSet;
