//! The two records of a file: how is a page written by one, and what does a crash leave of them?
//!
//! Record *n* goes to area *n* mod 2. When it is durable, the write has happened. Then the page goes
//! to its place, and the record before it is cleared, which makes nothing wait: both become durable
//! with the next record, at the latest. So whoever writes record *n* + 1 over record *n* - 1 has the
//! place of that one durable, since record *n*'s sync.
//!
//! | what is valid | what it means |
//! |---|---|
//! | *n* and *n* - 1 | both places may be torn: lay *n* - 1, then *n* |
//! | *n* alone | its place may be torn; *n* - 1 is durable, *n* + 1 did not happen |
//! | neither | every place is whole |
//!
//! Why a record is cleared: a later page of the same place, whose own record is damaged, would be
//! overwritten by it.

use std::ops::Range;
use std::sync::Arc;

use super::FIRST;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::format::header::HEADER_AREA;
use crate::format::redo::{Record, RecordWriter, read_record};
use crate::format::{LINE, PAGE};
use crate::region::Region;

/// The largest page, in bytes.
const PAGE_MAX: u64 = 64 << 10;
/// Bytes of the area of a record: its list, and a page.
const AREA: u64 = PAGE + PAGE_MAX;

const _: () = assert!(HEADER_AREA + 2 * AREA <= FIRST && FIRST % PAGE_MAX == 0);

/// Where the record of this number is.
fn area(sequence: u64) -> Range<u64> {
    let start = HEADER_AREA + sequence % 2 * AREA;
    start..start + AREA
}

/// What the writer knows of them.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Number of the last record that was written.
    sequence: u64,
    /// That record is valid in the file.
    needed: bool,
    /// A write was begun, and it is not known what of it is in the file.
    begun: bool,
    /// Why it was not ended.
    failed: Option<Arc<Error>>,
}

/// The records that are valid, the older one first.
pub(super) fn find(region: &impl Region, key: Key) -> Result<Vec<Record>> {
    let mut found = Vec::new();
    for sequence in [0, 1] {
        let record = read_record(region, key, area(sequence), FIRST..region.len())
            .map_err(|error| error.during(Operation::Recover))?;
        found.extend(record);
    }
    found.sort_by_key(|record| record.sequence);
    Ok(found)
}

/// The pages of a record, and where in the region they go.
pub(super) fn pages(
    region: &impl Region,
    key: Key,
    record: &Record,
) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut pages = Vec::new();
    for part in &record.parts {
        let mut bytes = Vec::new();
        if !part.read(region, key, &mut bytes)? {
            return Err(changed(&record.area));
        }
        pages.push((part.at, bytes));
    }
    Ok(pages)
}

/// Another process writes to the file, or the medium reads differently each time.
fn changed(area: &Range<u64>) -> Error {
    let what = ErrorKind::Damaged("a record that was whole a moment ago");
    Error::new(Operation::Recover, what).over(area.start, area.end - area.start)
}

/// Completes the writes of these records, and clears both areas, durable on return.
pub(super) fn complete(region: &impl Region, key: Key, found: &[Record]) -> Result<()> {
    // A place must not change before its record is durable: the process that wrote it may have been
    // killed before its drain.
    for record in found {
        record.keep(region)?;
    }
    for record in found {
        if !record.lay(region, key, |_| true)? {
            return Err(changed(&record.area));
        }
    }
    // What did not happen must not happen later: the same page, written once more to another place, would
    // make a record whole that a crash has torn.
    for area in [area(0), area(1)] {
        if found.iter().all(|record| record.area.start != area.start) {
            clear(region, &area)?;
        }
    }
    region.drain()?;
    // The older one first: alone, it would be laid over what the newer one has written.
    for record in found {
        clear(region, &record.area)?;
        region.drain()?;
    }
    Ok(())
}

/// Makes a record invalid, durable after the next drain of this thread.
/// Clears both areas, durable with the next drain: where a key is drawn from a seed, what was there
/// before may be valid.
pub(super) fn erase(region: &impl Region) -> Result<()> {
    clear(region, &area(0))?;
    clear(region, &area(1))
}

fn clear(region: &impl Region, area: &Range<u64>) -> Result<()> {
    region.fill_flush(area.start, LINE, 0)
}

impl Records {
    /// Goes on after these records, which are cleared.
    pub(super) fn after(found: &[Record]) -> Self {
        let sequence = found.iter().map(|record| record.sequence).max().unwrap_or(0);
        Self { sequence, ..Self::default() }
    }

    /// Replaces a page, durable on return.
    pub(super) fn write(
        &mut self,
        region: &impl Region,
        key: Key,
        at: u64,
        page: &[u8],
    ) -> Result<()> {
        self.check(Operation::Write)?;
        let sequence = self.sequence.checked_add(1).filter(|next| *next < 1 << 63);
        let full = || Error::new(Operation::Write, ErrorKind::TooLarge { max: (1 << 63) - 1 });
        let sequence = sequence.ok_or_else(full)?;
        // An observer of syncs may panic.
        self.begun = true;
        let write = || {
            RecordWriter::new(region, key, area(sequence).start, 1)
                .add(at, page)?
                .finish(sequence)?;
            sync(region)?;
            region.write_flush(at, page)?;
            if self.needed {
                clear(region, &area(self.sequence))?;
            }
            // A fence now is less than an interrupt of the other cores later.
            if region.drain_blocks() { Ok(()) } else { region.drain() }
        };
        write().inspect_err(|error| self.failed = Some(Arc::new(error.clone())))?;
        *self = Self { sequence, needed: true, begun: false, failed: None };
        Ok(())
    }

    /// Makes every page durable in its place, and clears the record, durable on return.
    pub(super) fn settle(&mut self, region: &impl Region) -> Result<()> {
        self.check(Operation::Sync)?;
        if !self.needed {
            return Ok(());
        }
        // Another thread may have written it.
        sync(region)?;
        clear(region, &area(self.sequence))?;
        region.drain()?;
        self.needed = false;
        Ok(())
    }

    fn check(&self, operation: Operation) -> Result<()> {
        if !self.begun {
            return Ok(());
        }
        let panicked = || {
            let why =
                ErrorKind::Unsupported("a write was cut short by a panic: open the pages anew");
            Arc::new(Error::new(Operation::Write, why))
        };
        let cause = self.failed.clone().unwrap_or_else(panicked);
        Err(Error::new(operation, ErrorKind::Failed(cause)))
    }
}

/// Waits for what this thread has flushed, and where that takes a device, for what other threads have.
fn sync(region: &impl Region) -> Result<()> {
    if region.drain_blocks() { region.sync_all() } else { region.drain() }
}
