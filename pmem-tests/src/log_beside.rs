//! A log and somebody who reads it beside its writer, for the tests of followers and of openings for
//! reading. What goes wrong in a test panics.
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate)]

use std::sync::{Arc, Mutex};

use daxmap::log::{Log, LogOptions, Lsn};
use daxmap::{Error, ErrorKind, Region, Result};
use daxmap_sim::{Mode, SimRegion};

use crate::log_model::{SEGMENT, region_len};
use crate::watched::Watched;
use crate::wordwise::Wordwise;

/// A record that says which one it is: how often the log had been truncated, and its Lsn.
pub fn record(generation: u64, lsn: u64, len: usize) -> Vec<u8> {
    let mut bytes = [generation.to_le_bytes(), lsn.to_le_bytes()].concat();
    bytes.resize(len.max(16), lsn as u8);
    bytes
}

/// What a follower has been given.
#[derive(Default)]
pub struct Given {
    /// The Lsn of the last record, and how often the log had been truncated then.
    pub last: Option<(u64, u64)>,
    /// How many.
    pub records: u64,
}

impl Given {
    /// The next record must follow the one before, which no truncation may have taken since: `cut` has the
    /// Lsn up to which each of them kept records.
    pub fn take(&mut self, lsn: u64, payload: &[u8], cut: impl Fn(u64) -> u64) {
        let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("a word"));
        let generation = word(0);
        assert_eq!(word(8), lsn, "the record says which it is");
        if let Some((before, of)) = self.last {
            assert_eq!(lsn, before + 1, "none is passed over");
            assert!(generation >= of, "{before} of {of}, then {lsn} of {generation}");
            for truncation in of + 1..=generation {
                let kept = cut(truncation);
                assert!(
                    kept >= before,
                    "{before} of {of} was given, truncation {truncation} kept those up to {kept}, and \
                     nothing was said before {lsn} of {generation}"
                );
            }
        }
        self.last = Some((lsn, generation));
        self.records += 1;
    }

    /// Only what can happen to a follower is an error of its.
    pub fn refuse(&mut self, error: &Error) {
        let told = matches!(
            error.kind(),
            ErrorKind::Released { .. } | ErrorKind::NoRecord { .. } | ErrorKind::Busy
        );
        assert!(told, "{error}");
        if !matches!(error.kind(), ErrorKind::Busy) {
            self.last = None;
        }
    }
}

/// What the writer does.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// A record of so many bytes.
    Append(usize),
    /// Truncates the newest so many.
    Truncate(u64),
    /// Releases all but the newest so many.
    Release(u64),
    /// Closes and opens.
    Reopen,
    /// Opens as after a kill.
    Kill,
    /// Adds segments.
    Grow(u64),
}

/// The writer, and up to where each of its truncations kept records.
pub struct Writer<R: Region + Clone> {
    region: R,
    /// None only while it is opened again.
    pub log: Option<Log<R>>,
    /// Up to where each truncation kept records.
    pub cuts: Arc<Mutex<Vec<u64>>>,
}

impl<R: Region + Clone> Writer<R> {
    /// A writer of this log.
    pub fn new(region: R, log: Log<R>, cuts: &Arc<Mutex<Vec<u64>>>) -> Self {
        Self { region, log: Some(log), cuts: Arc::clone(cuts) }
    }

    /// The log.
    pub fn log(&mut self) -> &mut Log<R> {
        self.log.as_mut().expect("open between two operations")
    }

    /// Does it.
    pub fn apply(&mut self, op: Op) -> Result<()> {
        let generation = self.cuts.lock().unwrap().len() as u64;
        let (released, last) = (self.log().released(), self.log().last());
        match op {
            Op::Append(len) => {
                let payload = record(generation, last.get() + 1, len);
                assert_eq!(self.log().append(&payload)?, last.next());
            }
            Op::Truncate(count) => {
                let kept = last.get().saturating_sub(count).max(released.get());
                self.cuts.lock().unwrap().push(kept);
                self.log().truncate_after(Lsn::new(kept))?;
            }
            Op::Release(keep) => {
                let lsn = Lsn::new(last.get().saturating_sub(keep)).max(released);
                self.log().release_up_to(lsn)?;
            }
            Op::Reopen | Op::Kill => {
                match (self.log.take(), op) {
                    (Some(log), Op::Reopen) => log.close()?,
                    (Some(log), _) => log.abandon(),
                    _ => {}
                }
                self.log = Some(options().open_region(self.region.clone())?);
                assert_eq!(self.log().last(), last);
            }
            Op::Grow(segments) => self.log().grow(region_len(segments))?,
        }
        Ok(())
    }
}

/// The options of every log here.
#[must_use]
pub fn options() -> LogOptions {
    LogOptions::new().segment_bytes(SEGMENT).seed(11)
}

/// Two of these fill a segment.
const HALF: Op = Op::Append(1900);

/// What was done before the follower began, and what is done beside it.
pub const SCENARIOS: [(&[Op], &[Op]); 7] = [
    (&[Op::Append(8); 4], &[Op::Truncate(2), Op::Append(8), Op::Append(8)]),
    (&[Op::Append(8); 4], &[Op::Append(8), Op::Truncate(2), Op::Append(8), Op::Truncate(1), HALF]),
    (&[HALF; 4], &[Op::Release(0), HALF, HALF, HALF]),
    (&[HALF; 3], &[Op::Truncate(2), Op::Release(0), HALF, HALF, HALF]),
    (&[Op::Append(8); 3], &[Op::Append(8), Op::Reopen, Op::Append(8)]),
    (&[Op::Append(8); 3], &[Op::Truncate(1), Op::Kill, Op::Append(8), Op::Append(8)]),
    (&[HALF; 5], &[Op::Grow(6), HALF, HALF, HALF, Op::Kill, HALF]),
];

/// The writer of a scenario, after what was done before the follower began.
pub fn begun(
    region: Wordwise<Watched<SimRegion>>,
    before: &[Op],
) -> Writer<Wordwise<Watched<SimRegion>>> {
    let log = options().format(region.clone()).expect("formatted");
    let mut writer = Writer::new(region, log, &Arc::default());
    before.iter().try_for_each(|&op| writer.apply(op)).expect("done");
    writer
}

/// A region of three segments that can grow.
#[must_use]
pub fn watched() -> Watched<SimRegion> {
    Watched::new(SimRegion::new(Mode::Adr, region_len(3), region_len(6)))
}

/// The last record that is kept, or 0.
pub fn newest<R: Region + Clone>(writer: &mut Writer<R>) -> u64 {
    let log = writer.log();
    if log.last() > log.released() { log.last().get() } else { 0 }
}

/// The writer, for who interrupts somebody else's reads.
pub type Shared = Arc<Mutex<Writer<Wordwise<Watched<SimRegion>>>>>;

/// Does the next of the operations before the follower's read after so many, and the others at the same
/// distance from each other.
pub fn between_reads(
    watched: &Watched<SimRegion>,
    after: u64,
    step: u64,
    writer: Shared,
    ops: &'static [Op],
) {
    let again = watched.clone();
    watched.before_read(after, move || {
        let Some((op, rest)) = ops.split_first() else { return };
        // What it reads itself is not counted.
        writer.lock().unwrap().apply(*op).expect("done");
        if step == 0 {
            rest.iter().try_for_each(|&op| writer.lock().unwrap().apply(op)).expect("done");
        } else {
            between_reads(&again, step, step, writer, rest);
        }
    });
}
