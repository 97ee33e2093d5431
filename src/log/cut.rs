//! What a truncation makes of each segment.
//!
//! Discarded records stay where they are. A segment with room goes on being used after them: its next block
//! is a mark. So no byte that a reader of another process may be reading is overwritten, and a crash has
//! nothing to put back.
//!
//! Truncation number `t`, which keeps the records up to `c`:
//!
//! 1. The root gets `cut = c` and the turn `t`; the first copies of headers that lack the truncation before
//!    it are written. One drain.
//! 2. The second copy of the header gets the turn `t`, the limit `c` and `void`, the offset where the next
//!    block begins: of each segment in which it discards something, and of **each that goes on**, whether or
//!    not it discards something there. One drain.
//! 3. The first block written to a segment since then is a mark with the header's limit and turn.
//!
//! Which bytes decide after a crash, a kill, or both in any order, and what the next opening does:
//!
//! | newest valid copy of the header | root | what decides for its blocks |
//! |---|---|---|
//! | turn below the root's, no mark with the root's turn in the blocks | `cut` is set | the root: the crash came between 1 and 2, or took both copies. Recovery does 2 for this segment, by the same rule: `void` is behind every block and mark found |
//! | turn below that of a mark in the blocks | any | the mark: a torn seal has taken the copy that knew of it. Recovery gives the header what the mark says |
//! | else | any | the header, and the list of marks that begins there |
//!
//! The invariants, which hold between any two drains, and after each step of a recovery:
//!
//! - A block that is written to a segment after truncation `t` has a mark before it whose turn is `t` or
//!   later, or lies in a generation that began after `t`, or follows nothing that `t` discards or that an
//!   earlier mark forbids.
//! - The limit of a mark is below the LSN of the block after it. So a header that goes on must not keep the
//!   limit of an earlier truncation at `void` = end when a later one, which may be lower, is done: that is
//!   why step 2 takes in segments that lose nothing, in recovery too.
//! - While `cut` is set, a header without the turn `t` belongs to a segment to which nothing was added since,
//!   or one whose blocks hold the mark. `cut` is replaced by the next truncation only in the drain that makes
//!   the first copies durable, and is taken back only after both copies are.
//! - `last` of a header is 0 or at most `c` when `cut` is taken back: otherwise the LSNs from `c + 1` on would
//!   count as used.
//!
//! A second truncation writes second copies over those of the first one while the first copies, written by
//! its step 1, say the same; so a torn step 2 leaves the first truncation in the header and the second in the
//! root, whose `cut` discards all that both discard. A killed process leaves the same states, which may not
//! be durable: recovery writes what it decides on once more before it changes anything.

use std::sync::atomic::Ordering;

use crate::format::LINE;

use super::segment::SegmentHeader;
use super::table::{Life, Table, Usage};

/// What is to become of the segments.
pub(super) struct Plan {
    /// The records that stay.
    limit: u64,
    /// Which truncation it is.
    turn: u64,
    cuts: Vec<Cut>,
}

/// What is to become of one.
struct Cut {
    segment: usize,
    /// Its header, if that changes.
    header: Option<SegmentHeader>,
    usage: Usage,
    /// The last Lsn that is left in it, or 0.
    last: u64,
}

impl Plan {
    /// The number of the truncation.
    pub(super) fn turn(&self) -> u64 {
        self.turn
    }

    /// The headers that change.
    pub(super) fn headers(&self) -> impl Iterator<Item = (usize, &SegmentHeader)> {
        self.cuts.iter().filter_map(|cut| Some((cut.segment, cut.header.as_ref()?)))
    }
}

impl Table {
    /// How records above an Lsn are voided, in segments of `size` bytes. Nobody is writing.
    pub(super) fn plan_cut(&self, limit: u64, size: u64) -> Plan {
        let pool = self.pool();
        let turn = pool.turn + 1;
        let lives = pool.lives.iter().enumerate();
        let cuts =
            lives.filter_map(|(segment, life)| self.cut_of(life, segment, (limit, turn), size));
        Plan { limit, turn, cuts: cuts.collect() }
    }

    fn cut_of(
        &self,
        life: &Life,
        segment: usize,
        (limit, turn): (u64, u64),
        size: u64,
    ) -> Option<Cut> {
        let progress = &self.progress[segment];
        let end = progress.end.load(Ordering::Acquire);
        let last = progress.last.load(Ordering::Acquire);
        let is_cut = match life.usage {
            Usage::Free | Usage::Lost | Usage::Active => return None,
            // There may be more than is known: a commit that is not finished.
            Usage::Broken => true,
            Usage::Idle | Usage::Full => last > limit,
        };
        let is_empty = life.first.is_none_or(|first| first > limit);
        let last = if is_empty { 0 } else { last.min(limit) };
        let is_idle = life.usage == Usage::Idle;
        if is_idle && has_room(end, size) {
            // Also where nothing is void: what follows the mark is known to be younger.
            let header = Some(cut_header(life, limit, turn, end, end));
            return Some(Cut { segment, header, usage: Usage::Idle, last });
        }
        if !is_cut {
            // No room for a mark and a block behind it.
            let full = Cut { segment, header: None, usage: Usage::Full, last };
            return is_idle.then_some(full);
        }
        // What an earlier truncation voids behind the end stays void.
        let before = u64::from(life.header.void);
        let void = if life.usage == Usage::Broken { size } else { end.max(before) };
        let mut header = cut_header(life, limit, turn, end, void);
        header.last = last;
        let usage = if is_empty { Usage::Free } else { Usage::Full };
        Some(Cut { segment, header: Some(header), usage, last })
    }

    /// The segments of which only the second copy of the header knows of the last truncation.
    pub(super) fn halves(&self) -> Vec<(usize, SegmentHeader)> {
        let pool = self.pool();
        let lives = pool.lives.iter().enumerate();
        lives.filter(|(_, life)| life.is_half).map(|(number, life)| (number, life.header)).collect()
    }

    /// The plan is carried out on the medium.
    pub(super) fn carry_out(&self, plan: Plan) {
        let pool = &mut *self.pool();
        pool.turn = plan.turn;
        // The first copies are durable with the root.
        pool.lives.iter_mut().for_each(|life| life.is_half = false);
        for Cut { segment, header, usage, last } in plan.cuts {
            let life = &mut pool.lives[segment];
            if let Some(header) = header {
                life.header = header;
                life.is_half = true;
                life.voids.add(header.void, header.limit);
            }
            life.usage = usage;
            life.first = life.first.filter(|first| *first <= plan.limit);
            life.index.truncate(life.index.partition_point(|(first, _)| *first <= plan.limit));
            self.progress[segment].last.store(last, Ordering::Release);
            if usage == Usage::Free {
                pool.free.push_back(segment);
            }
        }
        // Rarely, and of any number of them.
        pool.catalog.clear();
        for (segment, progress) in self.progress.iter().enumerate() {
            pool.register(segment, progress.last.load(Ordering::Acquire));
        }
        self.changed();
    }
}

/// Whether there is room for a mark and a block behind it.
pub(super) fn has_room(end: u64, size: u64) -> bool {
    end + 2 * LINE <= size
}

/// The header of a life whose blocks end at `end`, after a truncation that voids those before `void`.
fn cut_header(life: &Life, limit: u64, turn: u64, end: u64, void: u64) -> SegmentHeader {
    let mut header = life.header;
    // The truncation before has left a mark, if a block was written since.
    let marked = header.void != 0 && u64::from(header.void) < end;
    let mark = if marked { header.void } else { header.mark };
    header.cut(limit, (void as u32, mark), turn);
    header.end = header.end.max(end as u32);
    header
}
