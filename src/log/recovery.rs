//! Opening a log: every live byte is read once, what a crash has cut is dropped, what is damaged is
//! reported, and what is only in one of two copies gets its second back.

use std::ops::{Range, RangeInclusive};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::UnsafeShutdown;
use crate::durability::Granularity;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::format::header::Header;
use crate::format::opening;
use crate::format::salts::Salts;
use crate::format::{LINE, rewrite};
use crate::primitives::primitive;
use crate::region::{Region, process};

use super::core::Core;
use super::deferred::Deferred;
use super::layout::Layout;
use super::place::Shared;
use super::root::{Root, RootCell};
use super::segment::{Headers, SegmentHeader};
use super::spare::Spares;
use super::survey::{How, Segment, survey};
use super::table::{Life, Table, Usage};
use super::watermark::Watermark;
use super::writer::{DIRECT, STREAMED};
use super::{Log, Lsn, VERSION};

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The log was closed, and nothing happened to it since.
    pub was_closed: bool,
    /// Whether the memory under the log lost power unsaved since the log was last opened for writing.
    pub unsafe_shutdown: UnsafeShutdown,
    /// Records above the released ones.
    pub records: u64,
    /// The lowest and the highest Lsn of these.
    pub lsns: Option<RangeInclusive<Lsn>>,
    /// Lsns between the released ones and the highest that no record has: commits of which a crash
    /// has left nothing while later ones of other writers are there. None was acknowledged, but for
    /// those that `damaged` has.
    pub missing: u64,
    /// Bytes of the region, each range where the next commit of a segment would begin, that are not
    /// a commit: one that a crash has cut, or what was there in an earlier life of the space.
    pub dropped: Vec<Range<u64>>,
    /// Records that were durable and are not there, those of which nothing is left included. Empty
    /// unless damage was accepted.
    pub damaged: Vec<DamagedRecords>,
    /// Segments lost with their header. Empty unless damage was accepted.
    pub lost_segments: Vec<Range<u64>>,
    /// Parts of which one of two copies was damaged, or was cut by a crash: bytes of the region.
    /// They are whole again if the log is open for writing.
    pub healed: Vec<Range<u64>>,
    /// A truncation that a crash had interrupted was finished.
    pub finished_truncation: bool,
    /// Bytes of segments read.
    pub bytes_read: u64,
}

/// Records that were durable and are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedRecords {
    /// Bytes of the region.
    pub bytes: Range<u64>,
    /// The Lsns that may be concerned: some of them may be another writer's, and there.
    pub lsns: RangeInclusive<Lsn>,
}

pub(super) fn open<R: Region>(region: R, header: Header, copies: u8, how: How) -> Result<Log<R>> {
    let key = Key::new(header.salt);
    let headers = Headers { layout: Layout::of(header.numbers[0])?, key };
    let mark = opening::check(&region, &header, how.refuses_unsafe_shutdown)?;
    let root_cell = Layout::root(key);
    let (mut cell, root, segments, mut recovery) = survey(&region, &headers, root_cell, &how)?;
    recovery.unsafe_shutdown = mark.unsafe_shutdown;
    let next = count(&segments, &root, &mut recovery);
    report_damage(&headers, &segments, (&root, next), &how, &mut recovery)?;
    let mut lives: Vec<Life> =
        segments.iter().map(|segment| life(segment.as_ref(), &root, headers.layout)).collect();
    recovery.finished_truncation = segments.iter().flatten().any(|segment| segment.limited);
    if copies < 2 || mark.is_damaged() {
        recovery.healed.push(0..crate::format::header::HEADER_AREA);
    }
    // While somebody else may be writing, an older slot is one that is not written yet.
    if cell.damaged_slot || !how.read_only && !cell.is_settled {
        let at = crate::format::header::HEADER_AREA;
        recovery.healed.push(at..super::layout::SEGMENTS);
    }
    if !how.read_only {
        opening::begin(&region, key, &header, VERSION)?;
        if copies < 2 {
            header.heal(&region)?;
        }
        repair(&region, &mut cell, &headers, &segments, &mut lives, next)?;
        let absent = (next - 1 - root.released).saturating_sub(recovery.records);
        let (opened, durable) = (root.opened + 1, next - 1);
        let after = Root { floor: next, opened, durable, absent, ..root };
        cell.store(&region, Root { cut: None, closed: false, ..after })?;
        opening::told(&region, key)?;
    }
    let mut table = Table::of_turn(root.cuts);
    for (life, segment) in lives.into_iter().zip(&segments) {
        table.push(life, segment.as_ref().map(|segment| &segment.contents));
    }
    let direct = match region.granularity() {
        Granularity::Page => DIRECT.min(headers.layout.room() / 2),
        _ => STREAMED,
    };
    let watermark = Watermark::new(next);
    let core = Core {
        region,
        layout: headers.layout,
        direct,
        headers,
        salts: reseeded(how.salts, root.opened),
        table,
        deferred: Deferred::new(watermark.register()),
        watermark,
        note: Mutex::new(root.note),
        root: Mutex::new(cell),
        shared: Mutex::new(Shared::default()),
        spares: Spares::default(),
        released: AtomicU64::new(root.released),
        recyclable: AtomicU64::new(root.released),
        read_only: how.read_only,
        process: process::mark(),
        accepts_damage: how.accepts_damage,
        stuck: AtomicBool::new(false),
    };
    Ok(Log::new(core, recovery))
}

/// A salt is never used twice, be it by a seed.
fn reseeded(salts: Salts, opened: u64) -> Salts {
    match salts {
        Salts::Kernel => Salts::Kernel,
        Salts::Seeded(seed) => Salts::seeded(
            seed.into_inner().wrapping_add(opened.wrapping_mul(0xd134_2543_de82_ef95)),
        ),
    }
}

/// Counts what is there. The next Lsn.
fn count(segments: &[Option<Segment>], root: &Root, recovery: &mut Recovery) -> u64 {
    let (mut first, mut last) = (u64::MAX, 0);
    for Segment { contents, .. } in segments.iter().flatten() {
        if let Some((from, to)) = contents.lsns {
            (first, last) = (first.min(from), last.max(to));
        }
    }
    let first = first.max(root.released + 1);
    if first <= last {
        recovery.lsns = Some(Lsn::new(first)..=Lsn::new(last));
    }
    let kept = segments.iter().flatten().map(|segment| segment.contents.records);
    recovery.records = kept.sum();
    recovery.missing = last.saturating_sub(root.released).saturating_sub(recovery.records);
    // Also what was given out and is lost: without damage, all of these are there, or below the floor.
    let known = segments.iter().flatten().map(|segment| segment.found.header.last);
    let gone = known.max().unwrap_or(0).max(root.durable);
    last.max(gone).max(root.released).saturating_add(1).max(root.floor)
}

/// Fails if something is damaged, unless that is accepted.
fn report_damage(
    headers: &Headers,
    segments: &[Option<Segment>],
    (root, next): (&Root, u64),
    how: &How,
    recovery: &mut Recovery,
) -> Result<()> {
    for (number, segment) in segments.iter().enumerate() {
        let Some(Segment { contents, .. }) = segment else { continue };
        let at = headers.layout.at(number);
        for damage in &contents.damage {
            let last = damage.lsns.end.min(next).saturating_sub(1).max(damage.lsns.start);
            recovery.damaged.push(DamagedRecords {
                bytes: at + damage.bytes.start..at + damage.bytes.end,
                lsns: Lsn::new(damage.lsns.start)..=Lsn::new(last),
            });
        }
    }
    if recovery.damaged.is_empty() && recovery.lost_segments.is_empty() {
        recovery.damaged.extend(gap(headers, segments, root));
    }
    match recovery.damaged.first() {
        Some(damage) if !how.accepts_damage => {
            let (first, last) = (damage.lsns.start().get(), damage.lsns.end().get());
            let what = ErrorKind::DamagedRecords { first, last };
            let bytes = damage.bytes.end - damage.bytes.start;
            Err(Error::new(Operation::Recover, what).over(damage.bytes.start, bytes))
        }
        _ => Ok(()),
    }
}

/// Records that were durable when the root was written and are nowhere: a segment has lost its last
/// writes, its header included, or is a copy of another moment.
fn gap(headers: &Headers, segments: &[Option<Segment>], root: &Root) -> Option<DamagedRecords> {
    let found: u64 = segments.iter().flatten().map(|segment| segment.contents.known).sum();
    let most = root.durable.saturating_sub(root.released);
    if found >= most.saturating_sub(root.absent) {
        return None;
    }
    // The Lsns that no segment can have; all of them, if several writers' hide the gap.
    let mut held: Vec<(u64, u64)> =
        segments.iter().flatten().filter_map(|segment| segment.contents.lsns).collect();
    held.sort_unstable();
    let (mut next, mut gap) = (root.released + 1, None::<(u64, u64)>);
    for (first, last) in held.into_iter().chain([(root.durable + 1, root.durable + 1)]) {
        if first > next && next <= root.durable {
            let from = gap.map_or(next, |(from, _)| from);
            gap = Some((from, first.min(root.durable + 1) - 1));
        }
        next = next.max(last + 1);
    }
    let (from, to) = gap.unwrap_or((root.released + 1, root.durable));
    let bytes = headers.layout.at(0)..headers.layout.at(segments.len());
    Some(DamagedRecords { bytes, lsns: Lsn::new(from)..=Lsn::new(to) })
}

/// What a segment can be used for.
fn life(segment: Option<&Segment>, root: &Root, layout: Layout) -> Life {
    let Some(Segment { found, contents, .. }) = segment else {
        return Life::new(SegmentHeader::UNUSED, Usage::Lost);
    };
    let header = found.header;
    let kept = contents.lsns.is_some_and(|(_, last)| last > root.released);
    let goes_on =
        header.last == 0 && contents.damage.is_empty() && contents.end + LINE <= layout.segment;
    let usage = match (kept, goes_on) {
        (false, _) if contents.damage.is_empty() => Usage::Free,
        (true, true) => Usage::Idle,
        _ => Usage::Full,
    };
    let first = contents.lsns.map(|(first, _)| first);
    let (index, voids) = (contents.index.clone(), contents.voids.clone());
    Life { header, usage, first, index, voids, is_half: false }
}

/// Makes the log on the medium what it was found to be.
///
/// What was found may not be durable: a process that was killed had not drained it. So it is made
/// durable first, and before anything is written over what it would replace. It is written once more,
/// since a region vouches only for what its caller wrote; the same bytes over themselves cannot be
/// torn.
fn repair(
    region: &impl Region,
    root: &mut RootCell,
    headers: &Headers,
    segments: &[Option<Segment>],
    lives: &mut [Life],
    next: u64,
) -> Result<()> {
    primitive!("log.recover.root", root.keep(region), Ok(()))?;
    let mut replaced = Vec::new();
    for (number, (segment, life)) in segments.iter().zip(lives).enumerate() {
        let Some(segment) = segment else { continue };
        primitive!(
            "log.recover.seen_headers",
            headers.write(region, number, segment.found.copy, &segment.on_medium),
            Ok(())
        )?;
        // The next life begins with copy 0, whichever of two equal ones was durable.
        primitive!(
            "log.recover.other_headers",
            headers.rewrite(region, number, 1 - segment.found.copy),
            Ok(())
        )?;
        if life.usage != Usage::Free {
            settle_end(region, headers.layout.at(number), segment)?;
        }
        if let Some(header) = repaired(segment, life, next) {
            replaced.push((number, segment.found.copy, header));
        }
    }
    primitive!("log.recover.drain", region.drain(), Ok(()))?;
    primitive!("log.recover.headers", headers.replace(region, &replaced), Ok(()))
}

/// Keeps what was found at the end of a segment, and wipes what must not follow it.
fn settle_end(region: &impl Region, at: u64, segment: &Segment) -> Result<()> {
    let Segment { on_medium, contents, .. } = segment;
    if u64::from(on_medium.end) < contents.end {
        let (from, end) = (at + contents.durable, at + contents.end);
        primitive!("log.recover.tail", rewrite(region, from, end), Ok(()))?;
    }
    // A commit that a crash has cut must not follow the next one written.
    for stale in &contents.stale {
        let wiped = || region.fill_flush(at + stale, LINE, 0);
        primitive!("log.recover.stale", wiped(), Ok(()))?;
    }
    Ok(())
}

/// The header that a segment is to have, if it has another one.
fn repaired(segment: &Segment, life: &mut Life, next: u64) -> Option<SegmentHeader> {
    let Segment { found, on_medium, contents, .. } = segment;
    let header = &mut life.header;
    if !contents.damage.is_empty() {
        // Nothing follows in this life, and what was damaged was in the log.
        let last = if header.last == 0 { next - 1 } else { header.last };
        header.last = last;
    } else if life.usage != Usage::Free {
        header.end = contents.end as u32;
        if life.usage == Usage::Full && header.last == 0 {
            header.last = contents.lsns.map_or(0, |(_, last)| last);
        }
    }
    (found.other_is_stale || header != on_medium).then_some(*header)
}
