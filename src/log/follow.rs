//! Following a log that another process writes.
//!
//! The reader takes what it needs from the region and reads the root after it. A truncation and an
//! opening change the root before they change anything else, and a segment is not used again before
//! the root says that its records are released. So if the root says what it said before, then what was
//! read between belonged to the log.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::cell::Cell;
use crate::format::check::Key;
use crate::format::header::{Found, Header, Kind};
use crate::primitives::primitive;
use crate::region::{AnyRegion, Options, Region};

use super::beside;
use super::block::Block;
use super::cursor::Cursor;
use super::layout::{BLOCKS, Layout};
use super::merge::{Look, Merge};
use super::reader::{Open, Record};
use super::root::Root;
use super::segment::{Headers, SegmentHeader};
use super::voids::Voids;
use super::{Lsn, VERSIONS};

/// Reads a log that another process has open for writing, record by record, as a poll: it keeps no
/// lock and changes nothing.
///
/// It gives whole commits in the order of their Lsns, each once. It sees what is written, which may
/// be a moment before it is durable: what it read of the last commits, a crash may still take. An
/// Lsn that is missing is waited for until the log was opened again after it, which proves that it
/// will not come.
///
/// A poll that finds nothing reads the header of each segment. A record costs a search among the
/// segments that are written to, and the root of the log.
#[derive(Debug)]
pub struct LogReader<R: Region> {
    region: R,
    /// How a region that is as long as the file is now can be had.
    reopen: Option<Reopen<R>>,
    /// The salt of the file: another log under its name has another one.
    salt: u64,
    headers: Headers,
    root: Cell,
    next: u64,
    merge: Merge,
    /// The life of each segment that was taken up, or 0, and the last truncation that its header knew of.
    known: Vec<(u64, u64)>,
    /// A segment that cannot be read: its header, or what was durable of it.
    lost: Option<Error>,
    /// The root up to which this reader has seen to truncations, openings and releases.
    seen: Root,
    last: Last,
    open: Open,
    /// The open block.
    from: Option<Place>,
}

/// The path of the log, and how it is opened.
type Reopen<R> = (PathBuf, fn(&Path) -> Result<R>);

/// Where a block is.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: usize,
    life: u64,
    at: u64,
    block: Block,
}

/// The last record before the next one, which a truncation must not have taken.
#[derive(Clone, Copy, Debug)]
enum Last {
    /// There is none: the reader began with the oldest.
    None,
    /// The caller has it, from elsewhere.
    Known,
    /// This reader gave it.
    Given(u64, Place),
}

impl LogReader<AnyRegion> {
    /// Follows the log in a file from this Lsn on; [`Lsn::ZERO`] stands for the oldest that is kept.
    /// When the log grows, so does what is read.
    ///
    /// # Errors
    ///
    /// As [`Options::open`] and [`in_region`](Self::in_region).
    pub fn open(path: impl AsRef<Path>, from: Lsn) -> Result<Self> {
        let path = path.as_ref();
        let reopen = |path: &Path| Options::new().for_any_length().read_only(true).open(path);
        let open = || {
            let mut reader = Self::in_region(reopen(path)?, from)?;
            // The program may change its working directory.
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            reader.reopen = Some((absolute, reopen));
            Ok(reader)
        };
        open().map_err(|error: Error| error.at(path))
    }
}

impl<R: Region> LogReader<R> {
    /// Follows the log in a region. If the region does not become longer with the log, a log that
    /// has grown is to be followed again, in a region opened since.
    ///
    /// # Errors
    ///
    /// `WrongFormat`, `NewerFormat`, `OlderFormat`, `Damaged`; `Released` if the record with this Lsn
    /// was; `Busy` if the writer was faster every time.
    pub fn in_region(region: R, from: Lsn) -> Result<Self> {
        let Found::Header { header, .. } = Header::find(&region, Kind::Log, VERSIONS)? else {
            return Err(Error::new(Operation::Open, ErrorKind::WrongFormat(Kind::Log.name())));
        };
        let key = Key::new(header.salt);
        let headers = Headers { layout: Layout::of(header.numbers[0])?, key };
        let root = Layout::root(key);
        let seen = beside::root_value(&region, root)?;
        let (next, last) = match from {
            Lsn::ZERO => (seen.released + 1, Last::None),
            _ => (from.get(), Last::Known),
        };
        let reader = Self {
            region,
            reopen: None,
            salt: header.salt,
            headers,
            root,
            next,
            merge: Merge::default(),
            known: Vec::new(),
            lost: None,
            seen,
            last,
            open: Open::default(),
            from: None,
        };
        reader.check_released(&seen)?;
        Ok(reader)
    }

    /// The next record, in the reader's buffer; `None` if there is no further one yet. A commit that a
    /// truncation took before this call is not begun; one that was begun is given to its end.
    ///
    /// # Errors
    ///
    /// - `Released` if the next record was.
    /// - `NoRecord`, from then on, if a truncation took the last record that this reader gave, or the
    ///   one before the first that it was asked for; and where that can no longer be told, as its segment
    ///   is used again or, of a record that it did not give itself, the log was truncated twice, opened
    ///   or closed, since. Go back to a record that both have, and follow the log from there.
    /// - `TooShort` if the log has grown and this region has not: follow the log again.
    /// - `Damaged` if the next record may be one that was durable and cannot be read.
    /// - `Busy` if the log changed every time while it was read: ask again.
    /// - Those of the region.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>> {
        loop {
            if let Some((lsn, range)) = self.open.next(self.next) {
                self.next = lsn + 1;
                if let Some(place) = self.from {
                    self.last = Last::Given(lsn, place);
                }
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
        for _ in 0..beside::TRIES {
            let found = self.find()?;
            let root = beside::root_value(&self.region, self.root)?;
            if self.has_changed(&root)? {
                continue;
            }
            if let Some(place) = found {
                self.begin(place);
                return Ok(true);
            }
            // Not where it was expected: in a life that has begun since?
            self.refresh(&root)?;
            let found = self.find()?;
            let lowest = if found.is_none() { self.lowest()? } else { u64::MAX };
            let now = beside::root_value(&self.region, self.root)?;
            if self.has_changed(&now)? {
                continue;
            }
            if let Some(place) = found {
                self.begin(place);
                return Ok(true);
            }
            // What was not there, below the floor, will not come any more.
            let next = lowest.min(root.floor);
            if next <= self.next {
                return Ok(false);
            }
            self.check_lost()?;
            self.next = next;
        }
        Err(beside::busy())
    }

    fn check_released(&self, root: &Root) -> Result<()> {
        if self.next <= root.released {
            let kind = ErrorKind::Released { first: root.released + 1 };
            return Err(Error::new(Operation::Read, kind));
        }
        Ok(())
    }

    /// Whether something was taken away since the root that was seen, so that everything is to be
    /// looked for again.
    ///
    /// # Errors
    ///
    /// `Released`; `NoRecord` if it was the record before the next one.
    fn has_changed(&mut self, root: &Root) -> Result<bool> {
        self.check_released(root)?;
        let of = |root: &Root| (root.cuts, root.opened);
        if of(root) != of(&self.seen) {
            if let Some(lsn) = self.taken(root)? {
                // Unless all was released meanwhile.
                self.check_released(&beside::root_value(&self.region, self.root)?)?;
                return Err(Error::new(Operation::Read, ErrorKind::NoRecord { lsn }));
            }
        } else if root.cut == self.seen.cut {
            self.seen = *root;
            return Ok(false);
        }
        // The limit of a truncation that has ended is none of the lives that begin after it.
        self.seen = *root;
        self.merge = Merge::default();
        self.known.clear();
        Ok(true)
    }

    /// The record before the next one, if it is no longer there or that cannot be told. The log was
    /// truncated or opened between the root that was seen and this one.
    fn taken(&self, root: &Root) -> Result<Option<u64>> {
        let truncated = root.cuts != self.seen.cuts;
        let (lsn, is_there) = match self.last {
            Last::None => return Ok(None),
            // Where it is, nobody has looked. The floor is that of the truncation, if it was only one
            // and the log was neither opened nor closed after it.
            Last::Known => {
                let one = root.cuts == self.seen.cuts + 1 && root.opened == self.seen.opened;
                let kept = one && !root.closed && self.next <= root.floor;
                (self.next - 1, !truncated || kept)
            }
            Last::Given(lsn, place) => {
                let released = !truncated && lsn <= root.released;
                (lsn, released || self.is_there(lsn, &place, root)?)
            }
        };
        // What was released cannot be truncated.
        let is_there = is_there || lsn <= self.seen.released;
        Ok((!is_there).then_some(lsn))
    }

    /// Whether a record that was given is still in the log: its block, and not another one.
    fn is_there(&self, lsn: u64, place: &Place, root: &Root) -> Result<bool> {
        let Place { segment, life, at, block } = *place;
        let found = beside::header(&self.region, &self.headers, segment).and_then(|found| {
            let voids =
                Voids::beside(&self.region, self.headers.layout, segment, &found.header, root)?;
            Ok((found.header, voids))
        });
        let (header, voids) = match found {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), ErrorKind::Damaged(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let cursor = Cursor::new(segment, header, voids, at);
        let now = cursor.peek(&self.region, self.headers.layout)?;
        Ok(header.life == life && lsn <= cursor.limit() && now == Some(block))
    }

    /// Sees to it that all segments of the log can be read.
    fn follow_growth(&mut self, root: &Root) -> Result<()> {
        let layout = self.headers.layout;
        let (len, asked) = (self.region.len(), layout.len(root.segments));
        if len >= asked {
            return Ok(());
        }
        if let Some((path, reopen)) = &self.reopen {
            let region = reopen(path).map_err(|error| error.at(path))?;
            let found = Header::find(&region, Kind::Log, VERSIONS);
            let same =
                matches!(&found, Ok(Found::Header { header, .. }) if header.salt == self.salt);
            if same && region.len() >= asked {
                self.region = region;
                return Ok(());
            }
        }
        Err(Error::new(Operation::Read, ErrorKind::TooShort { len, asked }))
    }

    /// Takes up the lives that have begun, and what is known of the others.
    fn refresh(&mut self, root: &Root) -> Result<()> {
        self.follow_growth(root)?;
        self.lost = None;
        self.known.resize(root.segments as usize, (0, 0));
        let mut found = Vec::with_capacity(self.known.len());
        for segment in 0..self.known.len() {
            match self.look(segment, root) {
                Ok(now) => found.push(Some(now)),
                // It may hold the next record, or not.
                Err(error) if matches!(error.kind(), ErrorKind::Damaged(_)) => {
                    found.push(None);
                    self.lost = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        self.merge.retain_waiting(|cursor| {
            let Some((header, voids)) = &found[cursor.segment] else { return false };
            if header.life != cursor.header.life {
                return false;
            }
            let same = (header.turn == cursor.header.turn).then_some(&cursor.voids);
            // An older copy, while the other one is written, says nothing of what is behind a mark. Of a
            // younger one that was seen before, the cursor learns at the mark.
            let younger = voids.as_ref().filter(|_| header.turn > cursor.header.turn);
            if let Some(voids) = younger.or(same) {
                *cursor = Cursor::new(cursor.segment, *header, voids.clone(), cursor.at);
            }
            true
        });
        for (segment, found) in found.into_iter().enumerate() {
            let Some((header, voids)) = found.filter(|(header, _)| header.life != 0) else {
                continue;
            };
            let (life, turn) = self.known[segment];
            let is_new = life != header.life;
            let least = if is_new { 0 } else { turn };
            self.known[segment] = (header.life, header.turn.max(least));
            if is_new {
                self.merge.add(Cursor::new(segment, header, voids.unwrap_or_default(), BLOCKS));
            }
        }
        Ok(())
    }

    /// The header of a segment, and what of it is void if that is not known yet.
    fn look(&self, segment: usize, root: &Root) -> Result<(SegmentHeader, Option<Voids>)> {
        let (region, headers) = (&self.region, &self.headers);
        for _ in 0..beside::TRIES {
            let header = beside::header(region, headers, segment)?.header;
            let (life, turn) = self.known[segment];
            if life == header.life && header.turn <= turn {
                return Ok((header, None));
            }
            match Voids::beside(region, headers.layout, segment, &header, root) {
                // Unless the segment is used again.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Damaged(_))
                        && beside::header(region, headers, segment)?.header != header => {}
                voids => return Ok((header, Some(voids?))),
            }
        }
        Err(beside::busy())
    }

    /// Looks for the block with the next Lsn. If it is all there, its body is in the buffer.
    fn find(&mut self) -> Result<Option<Place>> {
        self.poll()?;
        while self.merge.lowest().is_some_and(|lsn| lsn <= self.next) {
            if let Some(place) = self.whole()? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The lowest Lsn of all blocks that are there; `u64::MAX` if none is.
    fn lowest(&mut self) -> Result<u64> {
        while self.merge.lowest().is_some() {
            if let Some(place) = self.whole()? {
                return Ok(place.block.lsn);
            }
        }
        Ok(u64::MAX)
    }

    /// Looks at the next blocks of the cursors of which it is not known.
    fn poll(&mut self) -> Result<()> {
        let (region, headers, next) = (&self.region, &self.headers, self.next);
        let seen = &self.seen;
        self.merge.poll(|cursor| {
            while let Some(block) = cursor.peek(region, headers.layout)? {
                if block.has(next, cursor.limit()) {
                    return Ok(Look::Block(block.lsn));
                }
                if let Some(mark) = block.as_mark() {
                    if mark.turn > cursor.header.turn
                        && !renew(region, headers, seen, cursor, mark.turn)?
                    {
                        return Ok(Look::Nothing);
                    }
                }
                cursor.at += block.bytes();
            }
            let ended = cursor.complete && cursor.at >= u64::from(cursor.header.end);
            Ok(if ended { Look::Done } else { Look::Nothing })
        })
    }

    /// The block of the lowest Lsn, if all of it is there, with its body in the buffer. Else its cursor
    /// waits: the block may be on its way, or be one that a crash has cut, whose Lsns another segment
    /// can have since; or this is no block any more, or one that was given.
    fn whole(&mut self) -> Result<Option<Place>> {
        let (region, layout) = (&self.region, self.headers.layout);
        let Some(cursor) = self.merge.cursor() else { return Ok(None) };
        if let Some(block) = cursor.peek(region, layout)? {
            if block.has(self.next, cursor.limit()) {
                let whole = cursor.body(region, layout, &block, &mut self.open.body)?;
                if primitive!("log.follow.whole", whole, true) {
                    let (segment, life) = (cursor.segment, cursor.header.life);
                    return Ok(Some(Place { segment, life, at: cursor.at, block }));
                }
            }
        }
        self.merge.taken(true);
        Ok(None)
    }

    /// Opens the block whose body is in the buffer: that of the lowest Lsn.
    fn begin(&mut self, place: Place) {
        if let Some(cursor) = self.merge.cursor() {
            self.open.start(&place.block, cursor.limit());
            cursor.at += place.block.bytes();
        }
        self.merge.taken(true);
        self.from = Some(place);
    }

    /// Refuses to pass over what may be a record that was durable.
    fn check_lost(&mut self) -> Result<()> {
        let layout = self.headers.layout;
        let mut lost = self.lost.take();
        self.merge.retain_waiting(|cursor| {
            if cursor.at < u64::from(cursor.header.end) {
                lost = Some(cursor.damaged(layout));
            }
            true
        });
        lost.map_or(Ok(()), Err)
    }
}

/// What is behind the mark of a truncation was written since the header has it. False if the segment is
/// used again.
#[cold]
fn renew(
    region: &impl Region,
    headers: &Headers,
    root: &Root,
    cursor: &mut Cursor,
    turn: u64,
) -> Result<bool> {
    let mut header = beside::header(region, headers, cursor.segment)?.header;
    if header.life != cursor.header.life {
        return Ok(false);
    }
    // Less, where the copy that had it is damaged.
    header.turn = header.turn.max(turn);
    let voids = Voids::beside(region, headers.layout, cursor.segment, &header, root)?;
    *cursor = Cursor::new(cursor.segment, header, voids, cursor.at);
    Ok(true)
}

impl<R: Region> Iterator for LogReader<R> {
    type Item = Result<(Lsn, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.next_record().transpose()?;
        Some(record.map(|record| (record.lsn, record.payload.to_vec())))
    }
}
