//! Reading the root and the headers of segments while another process may be writing them.
//!
//! A root and a header have two copies, and a writer writes one at a time: at every moment the other
//! one is valid. A reader that sees neither was between two writes and looks again. If it then sees
//! the same bytes, nobody was writing: a copy that a stopped writer has not finished leaves the other
//! one valid. Sequence numbers and lives only rise, so bytes do not come back.

use std::sync::atomic::{Ordering, fence};

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::cell::Cell;
use crate::format::header::HEADER_AREA;
use crate::region::Region;

use super::layout::{BLOCKS, SEGMENTS};
use super::root::{Root, RootCell};
use super::segment::{FoundHeader, Headers};

/// How often a reader looks again before it says that the log is busy. More than one look in a row is
/// needed only when a whole write of the writer's comes between two reads.
pub(super) const TRIES: u32 = 64;

/// The root as it stands in the region now.
///
/// What was read of the region before was read before the root, and what is read after it, after it.
pub(super) fn root(region: &impl Region, cell: Cell) -> Result<RootCell> {
    fence(Ordering::Acquire);
    let root =
        undisturbed(region, HEADER_AREA, SEGMENTS - HEADER_AREA, || RootCell::open(cell, region));
    fence(Ordering::Acquire);
    root
}

/// Only what the root says.
pub(super) fn root_value(region: &impl Region, cell: Cell) -> Result<Root> {
    root(region, cell).map(|cell| cell.get())
}

/// The header of a segment as it stands in the region now.
pub(super) fn header(
    region: &impl Region,
    headers: &Headers,
    segment: usize,
) -> Result<FoundHeader> {
    let at = headers.layout.at(segment);
    let header = undisturbed(region, at, BLOCKS, || headers.read(region, segment));
    fence(Ordering::Acquire);
    header
}

/// Reads two copies until one is valid, or until both are damaged for certain.
fn undisturbed<T>(
    region: &impl Region,
    at: u64,
    len: u64,
    read: impl Fn() -> Result<T>,
) -> Result<T> {
    let mut before = None;
    for _ in 0..TRIES {
        let error = match read() {
            Err(error) if matches!(error.kind(), ErrorKind::Damaged(_)) => error,
            result => return result,
        };
        let mut now = vec![0; len as usize];
        region.read(at, &mut now)?;
        if before.as_ref() == Some(&now) {
            return Err(error);
        }
        before = Some(now);
        std::thread::yield_now();
    }
    Err(busy().over(at, len))
}

/// The writer was faster than this reader, every time.
#[cold]
pub(super) fn busy() -> Error {
    Error::new(Operation::Read, ErrorKind::Busy)
}
