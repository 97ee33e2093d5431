//! Following a log that another process writes.

use std::path::Path;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::cell::Cell;
use crate::format::check::Key;
use crate::format::header::{Found, Header, Kind};
use crate::primitives::primitive;
use crate::region::{AnyRegion, Options, Region};

use super::block::Block;
use super::cursor::Cursor;
use super::layout::{BLOCKS, Layout};
use super::reader::{Open, Record};
use super::root::{Root, RootCell};
use super::segment::{Headers, SegmentHeader};
use super::{Lsn, VERSION};

/// Reads a log that another process has open for writing, record by record, as a poll: it keeps no
/// lock and changes nothing.
///
/// It gives whole commits in the order of their Lsns, each once. It sees what is written, which may
/// be a moment before it is durable: what it read of the last commits, a crash may still take. An
/// Lsn that is missing is waited for until the log was opened anew after it, which proves that it
/// will not come.
#[derive(Debug)]
pub struct LogReader<R: Region> {
    region: R,
    headers: Headers,
    root: Cell,
    next: u64,
    cursors: Vec<Option<Cursor>>,
    /// How often the log was truncated and opened, as far as this reader has seen to it.
    seen: Option<(u64, u64)>,
    last: Last,
    open: Open,
    /// The segment of the open block, and its life.
    from: (usize, u64),
}

/// The last record before the next one, which a truncation must not have taken.
#[derive(Clone, Copy, Debug)]
enum Last {
    /// There is none: the reader began with the oldest.
    None,
    /// The caller has it, from elsewhere.
    Known,
    /// This reader gave it.
    Given { lsn: u64, segment: usize, life: u64 },
}

impl LogReader<AnyRegion> {
    /// Follows the log in a file from this Lsn on; [`Lsn::ZERO`] stands for the oldest that is kept.
    ///
    /// # Errors
    ///
    /// As [`Options::open`] and [`in_region`](Self::in_region).
    pub fn open(path: impl AsRef<Path>, from: Lsn) -> Result<Self> {
        let path = path.as_ref();
        let open = || Self::in_region(Options::new().read_only(true).open(path)?, from);
        open().map_err(|error: Error| error.at(path))
    }
}

impl<R: Region> LogReader<R> {
    /// Follows the log in a region. A region opened for reading does not grow: a log that did is to
    /// be followed anew.
    ///
    /// # Errors
    ///
    /// `WrongFormat`, `NewerFormat`, `Damaged`; `Released` if the record with this Lsn was.
    pub fn in_region(region: R, from: Lsn) -> Result<Self> {
        let Found::Header { header, .. } = Header::find(&region, Kind::Log, VERSION)? else {
            return Err(Error::new(Operation::Open, ErrorKind::WrongFormat(Kind::Log.name())));
        };
        let key = Key::new(header.salt);
        let headers = Headers { layout: Layout::of(header.numbers[0])?, key };
        let root = Layout::root(key);
        let mut reader = Self {
            region,
            headers,
            root,
            next: from.get(),
            cursors: Vec::new(),
            seen: None,
            last: Last::Known,
            open: Open::default(),
            from: (0, 0),
        };
        let root = reader.root()?;
        if from == Lsn::ZERO {
            reader.next = root.released + 1;
            reader.last = Last::None;
        }
        reader.check(&root)?;
        Ok(reader)
    }

    fn root(&self) -> Result<Root> {
        Ok(RootCell::open(self.root, &self.region)?.get())
    }

    /// The next record, in the reader's buffer; `None` if there is no further one yet. A commit that a
    /// truncation took before this call is not begun; one that was begun is given to its end.
    ///
    /// # Errors
    ///
    /// `Released` if the next record was. `NoRecord`, from then on, if a truncation took the last record
    /// that this reader gave, or the one before the first that it was asked for; and where that can
    /// no longer be told, as its segment is used again or, of a record that it did not give itself, the
    /// log was truncated twice, or opened, since. Those of the region.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>> {
        loop {
            if let Some((lsn, range)) = self.open.next(self.next) {
                self.next = lsn + 1;
                let (segment, life) = self.from;
                self.last = Last::Given { lsn, segment, life };
                let lsn = Lsn::new(lsn);
                return Ok(Some(Record { lsn, payload: &self.open.body[range] }));
            }
            if !self.open_next()? {
                return Ok(None);
            }
        }
    }

    /// Opens the next block; false if there is none yet.
    fn open_next(&mut self) -> Result<bool> {
        // What was truncated is still there until something else is.
        let root = self.root()?;
        self.check_cut(&root)?;
        if self.take()? {
            return Ok(true);
        }
        // Not where it was expected. First, what will not come any more; then look again.
        let root = self.root()?;
        self.check(&root)?;
        self.refresh(&root);
        self.next = self.next.max(self.lowest()?.min(root.floor));
        self.take()
    }

    /// Refuses to go on where records were taken away.
    fn check(&mut self, root: &Root) -> Result<()> {
        if self.next <= root.released {
            let kind = ErrorKind::Released { first: root.released + 1 };
            return Err(Error::new(Operation::Read, kind));
        }
        self.check_cut(root)
    }

    /// Whether the record before the next one is still there, if the log was truncated meanwhile; then
    /// everything is to be looked for anew.
    fn check_cut(&mut self, root: &Root) -> Result<()> {
        let now = (root.cuts, root.opened);
        let Some((cuts, opened)) = self.seen.filter(|(cuts, _)| *cuts != root.cuts) else {
            self.seen = Some(now);
            return Ok(());
        };
        let (lsn, is_there) = match self.last {
            Last::None => (0, true),
            // Where it is, nobody has looked. The floor is that of the last truncation, or of an
            // opening after it.
            Last::Known => {
                let one = root.cuts == cuts + 1 && root.opened == opened;
                (self.next - 1, self.next - 1 <= root.released || one && self.next <= root.floor)
            }
            Last::Given { lsn, segment, life } => {
                let header = self.header(segment)?;
                let limit = root.cut.unwrap_or(u64::MAX).min(header.limit);
                (lsn, header.life == life && lsn <= limit)
            }
        };
        if !is_there {
            return Err(Error::new(Operation::Read, ErrorKind::NoRecord { lsn }));
        }
        self.seen = Some(now);
        self.cursors.clear();
        Ok(())
    }

    /// The header of a segment, which may be being written.
    fn header(&self, segment: usize) -> Result<SegmentHeader> {
        const TRIES: u32 = 16;
        let mut result = self.headers.read(&self.region, segment);
        for _ in 1..TRIES {
            match result {
                Err(error) if matches!(error.kind(), ErrorKind::Damaged(_)) => {
                    result = self.headers.read(&self.region, segment);
                }
                result => return result.map(|found| found.header),
            }
        }
        result.map(|found| found.header)
    }

    /// Takes up the lives that have begun.
    fn refresh(&mut self, root: &Root) {
        let count = root.segments.min(self.headers.layout.count(self.region.len()));
        self.cursors.resize(count as usize, None);
        for segment in 0..count as usize {
            // A header that is being written is looked at the next time.
            let Ok(found) = self.headers.read(&self.region, segment) else { continue };
            let header = found.header;
            let cursor = &mut self.cursors[segment];
            match cursor {
                Some(cursor) if cursor.header.life == header.life => cursor.header = header,
                _ if header.life == 0 => *cursor = None,
                _ => *cursor = Some(Cursor::new(segment, header, BLOCKS)),
            }
        }
    }

    /// The block that a cursor is at, behind those that are not asked for.
    fn peek(&mut self, index: usize) -> Result<Option<Block>> {
        let Some(cursor) = &mut self.cursors[index] else { return Ok(None) };
        while let Some(block) = cursor.peek(&self.region, self.headers.layout)? {
            let limit = cursor.header.limit;
            if block.lsn <= limit && block.last().min(limit) >= self.next {
                return Ok(Some(block));
            }
            cursor.at += block.bytes();
        }
        Ok(None)
    }

    /// Whether all of the block that a cursor is at is there; if so, its body is in the buffer. It may
    /// be on its way, or one that a crash has cut, whose Lsns another segment can have since.
    fn is_whole(&mut self, index: usize, block: &Block) -> Result<bool> {
        let Some(cursor) = &self.cursors[index] else { return Ok(false) };
        let (region, layout) = (&self.region, self.headers.layout);
        let whole = cursor.body(region, layout, block, &mut self.open.body)?;
        Ok(primitive!("log.follow.whole", whole, true))
    }

    /// Opens the block with the next Lsn; false if it is not all there yet.
    fn take(&mut self) -> Result<bool> {
        for index in 0..self.cursors.len() {
            let Some(block) = self.peek(index)?.filter(|block| block.lsn <= self.next) else {
                continue;
            };
            if self.is_whole(index, &block)?
                && let Some(cursor) = &mut self.cursors[index]
            {
                self.open.start(&block, cursor.header.limit);
                self.from = (index, cursor.header.life);
                cursor.at += block.bytes();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The lowest Lsn of all blocks at the cursors that are there; `u64::MAX` if none is.
    fn lowest(&mut self) -> Result<u64> {
        let mut lowest = u64::MAX;
        for index in 0..self.cursors.len() {
            let block = self.peek(index)?.filter(|block| block.lsn < lowest);
            if let Some(block) = block
                && self.is_whole(index, &block)?
            {
                lowest = block.lsn;
            }
        }
        Ok(lowest)
    }
}

impl<R: Region> Iterator for LogReader<R> {
    type Item = Result<(Lsn, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.next_record().transpose()?;
        Some(record.map(|record| (record.lsn, record.payload.to_vec())))
    }
}
