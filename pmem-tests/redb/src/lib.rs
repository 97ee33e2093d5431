//! redb's `StorageBackend` over a daxmap region: a scratch package, to show that the calls of
//! [`daxmap::Region`] suffice for an engine that commits what all its threads wrote.

mod backend;

/// What the backend needs of redb, by one name in this package and in redb's own.
mod engine {
    pub(crate) use redb::{BackendError, StorageBackend};
}

pub use backend::RegionBackend;
