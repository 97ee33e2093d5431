//! Looking at a log: what root and segments hold, as it was at one moment, be somebody writing.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::LINE;
use crate::format::cell::Cell;
use crate::format::salts::Salts;
use crate::primitives::primitive;
use crate::region::Region;

use super::beside;
use super::cursor::Cursor;
use super::cut::has_room;
use super::layout::{BLOCKS, Layout, SEGMENTS_MIN};
use super::recovery::Recovery;
use super::root::{Root, RootCell};
use super::scan::{Bounds, Contents, scan};
use super::segment::{FoundHeader, Headers, SegmentHeader};
use super::voids::Voids;

/// How to open.
pub(super) struct How {
    pub(super) salts: Salts,
    pub(super) read_only: bool,
    pub(super) accepts_damage: bool,
    pub(super) refuses_unsafe_shutdown: bool,
    pub(super) shorter: Shorter,
}

/// What a region is that is shorter than the log in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shorter {
    /// Damaged: the file was cut.
    Damaged,
    /// Opened before somebody else made the log longer, or cut: the caller finds out.
    Told,
    /// What was cut off is lost.
    Accepted,
}

/// A segment as it was found.
pub(super) struct Segment {
    /// The header, with what recovery changes of it.
    pub(super) found: FoundHeader,
    /// As it stands on the medium.
    pub(super) on_medium: SegmentHeader,
    pub(super) contents: Contents,
    /// A truncation that is on its way gives it a limit that its header does not have yet.
    pub(super) limited: bool,
}

fn check_length(region: &impl Region, layout: Layout, root: Root, how: &How) -> Result<()> {
    let (len, asked) = (region.len(), layout.len(root.segments));
    let short = root.segments < SEGMENTS_MIN || len < asked && how.shorter != Shorter::Accepted;
    if !primitive!("log.length", short, false) {
        return Ok(());
    }
    let what = match how.shorter {
        Shorter::Told if root.segments >= SEGMENTS_MIN => ErrorKind::TooShort { len, asked },
        _ => ErrorKind::Damaged("the region is shorter than the log in it"),
    };
    Err(Error::new(Operation::Recover, what).over(len, asked.saturating_sub(len)))
}

/// Reads the root and all segments. Where nothing may be changed, another process may be writing: what
/// is found then is the log as it was at some moment of the search, of which no record is missing that
/// was durable before.
///
/// # Errors
///
/// `Busy` if segments were used again, or the log was truncated or opened, during every search; that of
/// a region that is shorter than the log.
pub(super) fn survey<R: Region>(
    region: &R,
    headers: &Headers,
    root_cell: Cell,
    how: &How,
) -> Result<(RootCell, Root, Vec<Option<Segment>>, Recovery)> {
    for _ in 0..beside::TRIES {
        let cell = beside::root(region, root_cell)?;
        let mut root = cell.get();
        check_length(region, headers.layout, root, how)?;
        let look = |segment: u64| find(region, headers, &root, how, segment as usize, u64::MAX);
        let mut found: Vec<Found> = (0..root.segments).map(look).collect::<Result<_>>()?;
        if how.read_only && !complete(region, headers, root_cell, how, &mut root, &mut found)? {
            std::thread::yield_now();
            continue;
        }
        let mut recovery = Recovery { was_closed: root.closed, ..Recovery::default() };
        let segments = found.into_iter().map(|found| found.note(&mut recovery)).collect();
        return Ok((cell, root, segments, recovery));
    }
    Err(beside::busy().during(Operation::Recover))
}

/// A segment as one look has found it, and what there is to be said of it.
struct Found {
    segment: Option<Segment>,
    healed: Option<Range<u64>>,
    lost: Option<Range<u64>>,
    dropped: Option<Range<u64>>,
}

impl Found {
    /// The life that was found; none if there was no header.
    fn life(&self) -> Option<u64> {
        self.segment.as_ref().map(|segment| segment.on_medium.life)
    }

    fn note(self, recovery: &mut Recovery) -> Option<Segment> {
        recovery.healed.extend(self.healed);
        recovery.lost_segments.extend(self.lost);
        recovery.dropped.extend(self.dropped);
        recovery.bytes_read += self.segment.as_ref().map_or(0, |segment| segment.contents.read);
        self.segment
    }
}

/// Completes what was found beside a writer: of the records up to the highest Lsn that was found, those
/// that came after the look at their segment. False if it cannot be told, as records were truncated.
fn complete(
    region: &impl Region,
    headers: &Headers,
    root_cell: Cell,
    how: &How,
    root: &mut Root,
    found: &mut [Found],
) -> Result<bool> {
    let lasts = found.iter().filter_map(|found| found.segment.as_ref()?.contents.lsns);
    let last = lasts.map(|(_, last)| last).max().unwrap_or(0);
    for (number, found) in found.iter_mut().enumerate() {
        if has_more(region, headers, number, last, found)? {
            *found = find_whole(region, headers, root, how, number, last)?;
        }
    }
    let of = |root: &Root| (root.cuts, root.opened, root.cut, root.segments);
    for _ in 0..beside::TRIES {
        let now = beside::root_value(region, root_cell)?;
        if of(&now) != of(root) {
            return Ok(false);
        }
        if now.released == root.released {
            return Ok(true);
        }
        // A segment is used again when all of its records are released. If none was since before this
        // root was read, nothing that it keeps is gone, whatever is released meanwhile.
        root.released = now.released;
        let mut used_again = false;
        for (number, found) in found.iter_mut().enumerate() {
            let life = found.life();
            let first = found.segment.as_ref().and_then(|segment| segment.contents.lsns);
            if first.is_some_and(|(first, _)| first <= root.released) {
                *found = find_whole(region, headers, root, how, number, last)?;
            }
            used_again |= found.life() != life;
        }
        for (number, found) in found.iter().enumerate() {
            if let Some(life) = found.life() {
                used_again |= beside::header(region, headers, number)?.header.life != life;
            }
        }
        if !used_again {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a segment holds more than what was found in it, or what is above `last`.
fn has_more(
    region: &impl Region,
    headers: &Headers,
    number: usize,
    last: u64,
    found: &Found,
) -> Result<bool> {
    let Some(segment) = &found.segment else { return Ok(false) };
    let (life, contents) = (segment.on_medium.life, &segment.contents);
    let now = beside::header(region, headers, number)?.header;
    if now.life != life || life == 0 {
        return Ok(now.life != life);
    }
    let next =
        Cursor::new(number, now, Voids::default(), contents.end).peek(region, headers.layout)?;
    Ok(next.is_some() || contents.lsns.is_some_and(|(_, newest)| newest > last))
}

/// Reads a segment that is not used again meanwhile. Records above `last` do not count.
fn find_whole(
    region: &impl Region,
    headers: &Headers,
    root: &Root,
    how: &How,
    number: usize,
    last: u64,
) -> Result<Found> {
    for _ in 0..beside::TRIES {
        let found = find(region, headers, root, how, number, last)?;
        let Some(segment) = &found.segment else { return Ok(found) };
        if beside::header(region, headers, number)?.header.life == segment.on_medium.life {
            return Ok(found);
        }
    }
    Err(beside::busy().during(Operation::Recover))
}

/// Reads a segment. Records above `bound` do not count.
fn find(
    region: &impl Region,
    headers: &Headers,
    root: &Root,
    how: &How,
    segment: usize,
    bound: u64,
) -> Result<Found> {
    let at = headers.layout.at(segment);
    let all_lost = || {
        let lost = Some(at..at + headers.layout.segment);
        Ok(Found { segment: None, healed: None, lost, dropped: None })
    };
    // Of a file that was cut, this may be all there is.
    let size = region.len().saturating_sub(at).min(headers.layout.segment) / LINE * LINE;
    if size < BLOCKS {
        return all_lost();
    }
    let mut found = match beside::header(region, headers, segment) {
        Ok(found) => found,
        Err(error) if how.accepts_damage && matches!(error.kind(), ErrorKind::Damaged(_)) => {
            return all_lost();
        }
        Err(error) => return Err(error),
    };
    let healed = found.other_is_invalid.then_some(at..at + BLOCKS);
    let on_medium = found.header;
    let header = &mut found.header;
    // A mark that is missed is found to be damage.
    let (voids, _) = Voids::found(region, headers.layout, segment, header)?;
    // What the truncation has not reached yet, or one of two copies has lost.
    let cut = root.cut.filter(|_| header.turn < root.cuts).map(|cut| (root.cuts, cut));
    // An unused segment, or one whose records are known to be released, has nothing to be read.
    let skipped = header.life == 0 || header.last != 0 && header.last <= root.released;
    let mut contents = if skipped {
        Contents::none(voids)
    } else {
        let (released, durable) = (root.released, root.durable);
        scan(region, (at, size), header, voids, &Bounds { released, durable, last: bound, cut })?
    };
    if header.follow(contents.mark) {
        contents.voids.add(header.void, header.limit);
    }
    // What is void, or not asked for, is not the last record any more.
    let most = cut.map_or(bound, |(_, cut)| cut.min(bound));
    header.last = primitive!("log.recover.last", header.last.min(most), header.last);
    let limited = cut.is_some_and(|(turn, cut)| {
        finish_cut(header, &mut contents, (cut, turn), headers.layout.segment)
    });
    let dropped = contents.leftover.as_ref().map(|left| at + left.start..at + left.end);
    let segment = Some(Segment { found, on_medium, contents, limited });
    let lost = (size < headers.layout.segment).then_some(at + size..at + headers.layout.segment);
    Ok(Found { segment, healed, lost, dropped })
}

/// Finishes the truncation of the root in a segment that it has not reached, by the rule of the
/// truncation itself (`cut`): whether it says something to this segment.
fn finish_cut(
    header: &mut SegmentHeader,
    contents: &mut Contents,
    (limit, turn): (u64, u64),
    size: u64,
) -> bool {
    let goes_on = header.last == 0 && contents.damage.is_empty() && has_room(contents.end, size);
    if header.life == 0 || header.turn >= turn || !contents.is_cut && !goes_on {
        return false;
    }
    if contents.is_cut && header.last != 0 {
        header.last = contents.lsns.map_or(0, |(_, last)| last);
    }
    // Behind everything, an older mark included, that a commit which is not there has left.
    let mark = contents.mark.map_or(0, |(at, _)| at);
    header.cut(limit, (contents.end as u32, mark), turn);
    contents.voids.add(header.void, header.limit);
    true
}
