//! Giving records up: the oldest ones, when they are no longer needed, and the newest ones, as a
//! consensus protocol needs it.

use std::sync::atomic::Ordering;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::primitives::primitive;
use crate::region::Region;

use super::core::Core;
use super::root::NOTE_BYTES;
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
        self.release(lsn, None)
    }

    /// Gives up the records up to this Lsn as [`release_up_to`](Self::release_up_to) does, without a sync of
    /// its own. They cannot be read from then on.
    ///
    /// It becomes durable, with all before it, where the next segment is begun, which takes one sync more
    /// then, or with the next release that is not lazy, be it of less, with a truncation that takes records
    /// away, a growth, or the close. A crash before that leaves the
    /// records in the log: they are there again when it is opened. Followers in other processes read them
    /// until then.
    ///
    /// # Errors
    ///
    /// `NoRecord` if a commit at or below this Lsn is not finished yet.
    pub fn release_lazily(&self, lsn: Lsn) -> Result<()> {
        let core = &self.core;
        core.check_releasable(lsn)?;
        core.released.fetch_max(lsn.get(), Ordering::AcqRel);
        core.room_came();
        Ok(())
    }

    /// The same as [`release_up_to`](Self::release_up_to), and replaces the [note](Self::note) of the log
    /// by this one, durable on return. A crash inside leaves both changes or none. The note is replaced
    /// also where the records were released before.
    ///
    /// For what an engine must know of the records that are gone: the term of the last one, for instance.
    ///
    /// # Errors
    ///
    /// As [`release_up_to`](Self::release_up_to). After an error of the region it is unknown whether both
    /// changed, until the log is opened anew; after any other, neither did.
    pub fn release_with_note(&self, lsn: Lsn, note: [u8; 32]) -> Result<()> {
        self.release(lsn, Some(note))
    }

    /// The note of the last [`release_with_note`](Self::release_with_note); zeros in a log that never had
    /// one. [`copy_to`](Self::copy_to) copies it.
    #[must_use]
    pub fn note(&self) -> [u8; 32] {
        self.core.released_and_note().1
    }

    /// [`released`](Self::released) and [`note`](Self::note) of one moment: no release of another thread
    /// comes between them. What was released lazily since has no note of its own.
    #[must_use]
    pub fn released_and_note(&self) -> (Lsn, [u8; 32]) {
        let (released, note) = self.core.released_and_note();
        (Lsn::new(released), note)
    }

    fn release(&self, lsn: Lsn, note: Option<[u8; NOTE_BYTES]>) -> Result<()> {
        let core = &self.core;
        core.check_releasable(lsn)?;
        // What was released lazily rides on any release.
        let is_known = core.recyclable() == core.released();
        if note.is_none() && is_known && lsn.get() <= core.recyclable() {
            return Ok(());
        }
        let change = || {
            core.change_root(|root| {
                root.released = root.released.max(lsn.get());
                root.durable = core.watermark.get() - 1;
                root.note = note.unwrap_or(root.note);
            })
        };
        // No segment is used again before the medium knows that it is free.
        primitive!("log.release.root", change(), Ok(()))?;
        core.table.free_up_to(core.recyclable());
        core.room_came();
        Ok(())
    }

    /// Gives up the records after this Lsn. The next record gets the Lsn after it. Durable on
    /// return; a crash inside leaves all of these records or none.
    ///
    /// Takes two drains. The segments go on being used: what is given up takes its space, and a line of
    /// 64 bytes more, until everything before it in its segment is released or truncated, too.
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
        self.core.settle()?;
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

impl<R: Region> Core<R> {
    fn check_releasable(&self, lsn: Lsn) -> Result<()> {
        self.check_writable(Operation::Truncate)?;
        if lsn.get() < self.watermark.get() {
            return Ok(());
        }
        Err(Error::new(Operation::Truncate, ErrorKind::NoRecord { lsn: lsn.get() }))
    }
}

/// Voids what is after an Lsn. Nobody is writing.
fn cut<R: Region>(core: &Core<R>, lsn: u64) -> Result<()> {
    core.take_back();
    let plan = core.table.plan_cut(lsn, core.layout.segment);
    // Durable with the root: until then, the root has the truncation before.
    for (segment, header) in core.table.halves() {
        core.headers.write(&core.region, segment, 0, &header)?;
    }
    // Not a commit that failed: nobody was told that it is durable.
    let durable = lsn.min(core.watermark.get() - 1);
    // From here on it has happened: recovery does the rest.
    let begin = || {
        core.change_root(|root| {
            root.cut = Some(lsn);
            root.floor = lsn + 1;
            root.cuts = plan.turn();
            root.durable = durable;
        })
    };
    primitive!("log.cut.begin", begin(), Ok(()))?;
    // The second copies, of which the first are durable. These follow with the next truncation, or the
    // close: until then, the root has this one.
    let limit = || {
        for (segment, header) in plan.headers() {
            core.headers.write(&core.region, segment, 1, header)?;
        }
        core.region.drain()
    };
    primitive!("log.cut.limits", limit(), Ok(()))?;
    core.table.carry_out(plan);
    Ok(())
}
