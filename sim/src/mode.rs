//! What a crash may take, by kind of memory.

/// What a crash may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// Persistent memory whose caches are lost (ADR). Of each 64-byte line a prefix of its stores
    /// survives, in 8-byte pieces; lines survive independently, flushed or not.
    Adr,
    /// Persistent memory whose caches survive (eADR): every store survives as soon as another
    /// thread could see it. What bypasses the cache still needs its thread's drain.
    Eadr,
    /// As `Adr`, for memory that keeps no order within a line either: any subset of the 8-byte
    /// pieces survives. Nothing weaker keeps the contract of [`Region`](daxmap::Region).
    TornWords,
    /// A file behind the page cache. Of each 512-byte sector any version since the last drain
    /// survives, sectors independently.
    PageCache,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Adr, Self::Eadr, Self::TornWords, Self::PageCache];

    /// log2 of the unit that reaches the medium as one, in bytes.
    pub(super) const fn line_shift(self) -> u32 {
        match self {
            Self::Adr | Self::Eadr | Self::TornWords => 6,
            Self::PageCache => 9,
        }
    }

    pub(super) const fn line(self) -> u64 {
        1 << self.line_shift()
    }
}
