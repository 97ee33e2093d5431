//! Checkpoints: every crash, every bit, every misuse, and a model beside them.

#[cfg(feature = "sim")]
mod crashes;
mod damage;
mod files;
#[cfg(feature = "sim")]
mod killed;
#[cfg(feature = "sim")]
mod model;
mod overtaken;
mod pinned;
#[cfg(feature = "sim")]
mod pointers;
