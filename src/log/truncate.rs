//! Giving records up: the oldest ones, when they are no longer needed, and the newest ones, as a
//! consensus protocol needs it.

use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::Region;

use super::core::Core;
use super::segment::SegmentHeader;
use super::table::{Life, Usage};
use super::{Log, Lsn};

impl<R: Region> Log<R> {
    /// Gives up the records up to this Lsn. They cannot be read from then on, and segments in which
    /// nothing else is left are used again. Durable on return.
    ///
    /// # Errors
    ///
    /// `NoRecord` if a commit at or below this Lsn is not finished yet; those of the region.
    pub fn release_up_to(&self, lsn: Lsn) -> Result<()> {
        let core = &self.core;
        core.check_writable(Operation::Truncate)?;
        if lsn.get() >= core.watermark.get() {
            let kind = ErrorKind::NoRecord { lsn: lsn.get() };
            return Err(Error::new(Operation::Truncate, kind));
        }
        if lsn.get() <= core.released() {
            return Ok(());
        }
        let change = || {
            core.change_root(|root| {
                root.released = root.released.max(lsn.get());
                root.durable = core.watermark.get() - 1;
            })
        };
        // No segment is used again before the medium knows that it is free.
        primitive!("log.release.root", change(), Ok(()))?;
        core.released.fetch_max(lsn.get(), Ordering::AcqRel);
        core.table.free_up_to(core.released());
        core.room_came();
        Ok(())
    }

    /// Gives up the records after this Lsn. The next record gets the Lsn after it. Durable on
    /// return; a crash inside leaves all of these records or none.
    ///
    /// # Errors
    ///
    /// `Released` if this Lsn is. Those of the region: the log is then to be opened anew, which
    /// finishes the truncation if it has begun.
    pub fn truncate_after(&mut self, lsn: Lsn) -> Result<()> {
        let released = self.core.released();
        self.core.check_writable(Operation::Truncate)?;
        if lsn.get() < released {
            let kind = ErrorKind::Released { first: released + 1 };
            return Err(Error::new(Operation::Truncate, kind));
        }
        // The next Lsn is 1 at least.
        if lsn.get() >= self.core.watermark.next() - 1 {
            return Ok(());
        }
        self.core.exclusively(|| cut(&self.core, lsn.get()))?;
        self.core.watermark.rewind(lsn.get() + 1);
        Ok(())
    }

    /// Makes the region longer and adds the segments that fit.
    ///
    /// # Errors
    ///
    /// As [`Region::grow`]. The log can be used as before.
    pub fn grow(&mut self, new_len: u64) -> Result<()> {
        let core = &mut self.core;
        core.check_writable(Operation::Grow)?;
        let new_len = new_len.max(core.region.len());
        core.region.grow(new_len)?;
        let old = core.table.progress.len();
        let new = core.layout.count(new_len) as usize;
        let added: Vec<_> = (old..new).map(|segment| (segment, 0, SegmentHeader::UNUSED)).collect();
        core.headers.replace(&core.region, &added)?;
        core.change_root(|root| root.segments = root.segments.max(new as u64))?;
        for _ in added {
            core.table.push(Life::new(SegmentHeader::UNUSED, Usage::Free), None);
        }
        Ok(())
    }
}

/// Voids what is after an Lsn. Nobody is writing.
fn cut<R: Region>(core: &Core<R>, lsn: u64) -> Result<()> {
    core.recall()?;
    // Not a commit that failed: nobody was told that it is durable.
    let durable = lsn.min(core.watermark.get() - 1);
    // From here on it has happened: recovery does the rest.
    let begin = || {
        core.change_root(|root| {
            root.cut = Some(lsn);
            root.floor = lsn + 1;
            root.cuts += 1;
            root.durable = durable;
        })
    };
    primitive!("log.cut.begin", begin(), Ok(()))?;
    let held: Vec<usize> = {
        let pool = core.table.pool();
        let lives = pool.lives.iter().enumerate();
        let past = lives.filter(|(number, life)| core.table.reaches_past(life, *number, lsn));
        past.map(|(number, _)| number).collect()
    };
    let mut limited = Vec::new();
    for segment in held {
        let found = core.headers.read(&core.region, segment)?;
        let mut header = found.header;
        header.limit = header.limit.min(lsn);
        header.last = lsn;
        limited.push((segment, found.copy, header));
    }
    primitive!("log.cut.limits", core.headers.replace(&core.region, &limited), Ok(()))?;
    primitive!("log.cut.end", core.change_root(|root| root.cut = None), Ok(()))?;
    core.table.cut(lsn);
    Ok(())
}
