//! What ranges of bad memory are counted in.

/// What [`BadMemory::ranges`](super::BadMemory::ranges) are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BadIn {
    /// A regular file.
    File,
    /// A block device: a namespace of mode fsdax, raw or sector, or what is made of some.
    BlockDevice,
    /// A device-DAX node.
    DaxDevice,
    /// A whole region, whatever its namespaces.
    Region,
}

impl BadIn {
    /// The stable name: `file`, `block_device`, `dax_device`, `region`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::BlockDevice => "block_device",
            Self::DaxDevice => "dax_device",
            Self::Region => "region",
        }
    }
}
