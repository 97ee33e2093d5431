//! A copy of a log that is in use, and space that was lost with a segment's header.

use std::ops::Range;
use std::path::Path;

use crate::error::{ErrorKind, Operation, Result};
use crate::publish::Commit;
use crate::region::{Options, Region};

use super::layout::Layout;
use super::root::Root;
use super::segment::SegmentHeader;
use super::table::Usage;
use super::{Log, LogOptions, Lsn};

/// So many bytes of records are a commit of the copy, if one has no more.
const COMMIT: u64 = 1 << 20;

impl<R: Region> Log<R> {
    /// Makes a copy of the log in another file, which must not exist, while the log is in use. The copy
    /// has the records that are durable when the call begins, with their Lsns, but for those that are
    /// released before they are copied. It is whole and closed under its name, or is not there. Of a log that
    /// is open for reading only, it has the records that were there when it was opened, and it may have
    /// some that another process has truncated since: open it just before.
    ///
    /// A log of another process is copied by opening it for reading
    /// ([`LogOptions::read_only`]). Nothing else makes a copy of a log in use: `cp` reads parts of
    /// different moments. Opening what it has made is an error if a record is missing that the copied
    /// root says was durable, but a record may be missing that became durable while `cp` ran, and a
    /// truncated record may be in it. A closed log can be copied with `cp`; a snapshot of the filesystem
    /// or of the device is as good as a crash.
    ///
    /// The Lsns that the copy has.
    ///
    /// # Errors
    ///
    /// `Os(EEXIST)` if there is a file of this name; those of reading, and of making a file. `NoRecord` if
    /// another process truncated the log meanwhile: open it again.
    pub fn copy_to(&self, path: impl AsRef<Path>) -> Result<Range<Lsn>> {
        let path = path.as_ref();
        self.copy(path).map_err(|error| error.at(path))
    }

    fn copy(&self, path: &Path) -> Result<Range<Lsn>> {
        let layout = self.core.layout;
        let segments = self.core.table.progress.len() as u64;
        let draft = Options::new().len(layout.len(segments)).draft(path)?;
        let options = LogOptions::new().segment_bytes(layout.segment);
        if self.core.read_only {
            self.core.look_at_root()?;
        }
        let (released, note) = self.core.released_and_note();
        options.lay_out_from(&*draft, released)?;
        let mut copy = options.open_region(&*draft)?;
        if note != [0; 32] {
            copy.core.change_root(|root| root.note = note)?;
        }
        let gaps = self.copy_records(&mut copy, layout)?;
        let lsns = Lsn::new(copy.released().get() + 1)..copy.last().next();
        copy.close_with_gaps(&gaps)?;
        draft.commit(Commit::CreateOnly)?.close()?;
        Ok(lsns)
    }

    /// Copies what is durable now. The Lsns that no record has.
    fn copy_records<C: Region>(
        &self,
        copy: &mut Log<C>,
        layout: Layout,
    ) -> Result<Vec<Range<u64>>> {
        let last = self.last();
        let room = copy.commit_bytes_max().min(COMMIT);
        let (mut gaps, mut next, mut staged) = (Vec::new(), copy.released().get() + 1, Vec::new());
        let mut bytes = 0;
        let mut reader = self.reader(Lsn::ZERO)?;
        reader.begin_at(next);
        loop {
            let record = match reader.next_record() {
                Ok(record) => record.filter(|record| record.lsn <= last),
                Err(error) => match error.kind() {
                    ErrorKind::Released { .. } => {
                        let (released, note) = self.core.released_and_note();
                        copy.append_all(&mut staged, layout)?;
                        copy.skip_to(released + 1);
                        copy.release_with_note(Lsn::new(released), note)?;
                        (bytes, next) = (0, released + 1);
                        // It fails with its first record if that is released, too.
                        reader = self.reader(Lsn::ZERO)?;
                        reader.begin_at(next);
                        continue;
                    }
                    _ => return Err(error),
                },
            };
            let Some(record) = record else { break };
            let (lsn, taken) = (record.lsn.get(), record.payload.len() as u64 + 8);
            if bytes + taken > room || lsn > next {
                copy.append_all(&mut staged, layout)?;
                bytes = 0;
            }
            if lsn > next {
                gaps.push(next..lsn);
                copy.skip_to(lsn);
            }
            staged.push(record.payload.to_vec());
            (bytes, next) = (bytes + taken, lsn + 1);
        }
        copy.append_all(&mut staged, layout)?;
        // Numbers of which the last ones have no record.
        if next <= last.get() {
            gaps.push(next..last.get() + 1);
            copy.skip_to(last.get() + 1);
        }
        Ok(gaps)
    }

    /// Appends these as one commit; where there is no room, as they lie otherwise than in the log they
    /// are from, makes some.
    fn append_all(&mut self, staged: &mut Vec<Vec<u8>>, layout: Layout) -> Result<()> {
        if staged.is_empty() {
            return Ok(());
        }
        let appended = match self.append_many(&*staged) {
            Err(error) if matches!(error.kind(), ErrorKind::Full { .. }) => {
                self.grow(layout.len(self.core.table.progress.len() as u64 + 1))?;
                self.append_many(&*staged)
            }
            appended => appended,
        };
        staged.clear();
        appended.map(drop)
    }

    /// The next record has this Lsn, or a higher one.
    fn skip_to(&mut self, lsn: u64) {
        let next = self.core.watermark.next().max(lsn);
        self.core.watermark.rewind(next);
    }

    /// Closes a log in which these Lsns have no record.
    fn close_with_gaps(self, gaps: &[Range<u64>]) -> Result<()> {
        let (floor, released) = (self.core.watermark.next(), self.core.released());
        let above = gaps.iter().map(|gap| gap.end.saturating_sub(gap.start.max(released + 1)));
        let absent = above.sum();
        self.core.change_root(|root| root.floor = floor)?;
        self.core.change_root(|root| *root = Root { durable: floor - 1, absent, ..*root })?;
        self.close()
    }

    /// Makes the segments that were lost with their headers empty ones, so that they are used again.
    /// How many. They are there only in a log that was opened with
    /// [`accept_damage`](LogOptions::accept_damage). What was in them cannot be salvaged after it.
    ///
    /// # Errors
    ///
    /// Those of the region. Segments that were not made new stay lost.
    pub fn renew_lost_segments(&mut self) -> Result<u64> {
        let core = &self.core;
        core.check_writable(Operation::Write)?;
        let lost: Vec<usize> = {
            let pool = core.table.pool();
            let lives = pool.lives.iter().enumerate();
            lives.filter(|(_, life)| life.usage == Usage::Lost).map(|(number, _)| number).collect()
        };
        for &segment in &lost {
            // Neither copy is valid: a crash leaves it lost, or empty.
            for copy in [0, 1] {
                core.headers.write(&core.region, segment, copy, &SegmentHeader::UNUSED)?;
            }
        }
        core.region.drain()?;
        for &segment in &lost {
            core.table.renew(segment);
        }
        core.room_came();
        Ok(lost.len() as u64)
    }
}
