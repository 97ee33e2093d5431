//! What the explorer promises: which crashes, which images, in which order, and how it tells.

mod growth;
mod histories;
mod images;
mod recovery;
mod shrinking;
mod threads;

use daxmap::{Region, Result};
use daxmap_sim::SimRegion;

type Verdict = std::result::Result<(), String>;

/// A word in a line of its own.
fn at(line: u64) -> u64 {
    line * 64
}

fn store_lines(region: &SimRegion, lines: u64) -> Result<()> {
    (0..lines).try_for_each(|line| region.store_u64(at(line), line + 1))
}

/// The lines that an image kept, as bits.
fn kept(region: &SimRegion, lines: u64) -> u64 {
    (0..lines).map(|line| u64::from(region.load_u64(at(line)).unwrap() != 0) << line).sum()
}
