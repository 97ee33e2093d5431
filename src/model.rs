//! The seam for models, behind the feature `model`: what `daxmap-sim` stands on.
//!
//! Every system call that the protocols of files are made of goes through one list, [`Calls`]. A thread
//! can [`enter`] a model, which then answers for its own paths and descriptors, and passes everything
//! else on to the [`kernel`]: the code that runs is the library's, not a copy of it.
//!
//! Changes here are no breaking changes: whoever uses it depends on one version (`=0.1.0`).

/// Range checks, as every backend makes them.
pub mod bounds {
    pub use crate::region::bounds::{check, check_word, not_whole};
}

pub use crate::region::calls::{Calls, Entered, enter, kernel};
pub use crate::region::ground::Seen;
pub use crate::region::quirks::Quirks;
