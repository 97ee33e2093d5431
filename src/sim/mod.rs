//! A region that loses in a simulated crash what a real one may lose, and an explorer that tries
//! the crashes: for the tests of logs, tables and files built on [`Region`](crate::Region).
//!
//! | file | question |
//! |---|---|
//! | `model` | what is in the caches, and what is surely durable? |
//! | `image` | what may a crash leave, and which of it has recovery looked at? |
//! | `region`, `trace` | how does it answer the calls of the trait, and what was called? |
//! | `explorer`, `driver`, `schedule` | which runs, which crashes, which interleavings? |
//! | `history`, `report`, `explain` | what was promised, what was found, and in which words? |
//! | `random` | where do seeded choices come from? |

mod driver;
mod explain;
mod explorer;
mod history;
mod image;
mod model;
mod random;
mod region;
mod report;
mod schedule;
mod trace;

pub use explorer::{Body, Explorer};
pub use history::{History, Notes};
pub use random::SplitMix64;
pub use region::{Faults, SimRegion};
pub use report::{Crash, Failure, Report};

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
    /// pieces survives. Nothing weaker keeps the contract of [`Region`](crate::Region).
    TornWords,
    /// A file behind the page cache. Of each 512-byte sector any version since the last drain
    /// survives, sectors independently.
    PageCache,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Adr, Self::Eadr, Self::TornWords, Self::PageCache];

    /// log2 of the unit that reaches the medium as one, in bytes.
    const fn line_shift(self) -> u32 {
        match self {
            Self::Adr | Self::Eadr | Self::TornWords => 6,
            Self::PageCache => 9,
        }
    }

    const fn line(self) -> u64 {
        1 << self.line_shift()
    }
}
