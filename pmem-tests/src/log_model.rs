//! What a log must be like after a crash, for the tests of `daxmap::log`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};

use daxmap::log::{Log, LogOptions, Lsn};
use daxmap::{Error, ErrorKind, Region, Result};
use daxmap_sim::{Explorer, History, Mode, Notes, Report, SimRegion};

/// Records: their Lsns and payloads.
pub type Records = Vec<(u64, Vec<u8>)>;

/// Bytes of a segment: the smallest there is, so that segments are recycled soon.
pub const SEGMENT: u64 = 12288;

/// Bytes of the largest record: a segment without the two pages of its header, and without the header
/// of its block.
pub const LARGEST: usize = SEGMENT as usize - 2 * 4096 - 40;

/// Of how many recovered logs one is looked at for room.
const ROOM_EVERY: u64 = 8;

/// Bytes before the first segment (FORMAT.md).
pub const SEGMENTS_AT: u64 = 16384;

/// Begins the record that a check appends to see that the log goes on.
const PROBE: &[u8] = b"appended after recovery";

/// The options of every log here.
#[must_use]
pub fn options() -> LogOptions {
    LogOptions::new().segment_bytes(SEGMENT).seed(11)
}

/// Bytes of a region with so many segments.
#[must_use]
pub fn region_len(segments: u64) -> u64 {
    SEGMENTS_AT + segments * SEGMENT
}

/// What is done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Appends a record of so many bytes.
    Append(usize),
    /// Appends so many records of so many bytes as one commit.
    Many(usize, usize),
    /// The same by a writer of its own, staged first.
    Staged(usize, usize),
    /// Appends so many empty records as one commit: more than fit, if that is refused.
    Empty(usize),
    /// Appends the largest record that a commit can have, and so many empty ones with it, if that is
    /// refused.
    Largest(usize),
    /// Appends records by an iterator that panics after so many: by the log, or by a writer of its own
    /// that has staged one before, and that the panic takes with it.
    Panics(usize, bool),
    /// Makes the region so many segments longer.
    Grow(u64),
    /// Releases all but the newest so many records.
    Release(u64),
    /// Truncates the newest so many records.
    Truncate(u64),
    /// Closes the log and opens it again.
    Reopen,
    /// Opens the log again as after a kill of the process.
    Kill,
}

/// What the log has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// The Lsn up to which records were released.
    pub released: u64,
    /// The Lsn of the next record.
    pub next: u64,
    /// Those above `released`.
    pub records: Records,
    /// Records ever made, so that no two are the same.
    made: u64,
}

impl Model {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self { next: 1, ..Self::default() }
    }

    /// The payload of the record made next: its number, and bytes that follow from it.
    fn payload(&mut self, len: usize) -> Vec<u8> {
        self.made += 1;
        let mut bytes = self.made.to_le_bytes().to_vec();
        bytes.resize(len.max(8), self.made as u8 ^ 0x5a);
        bytes
    }

    /// What one thing done changes, if the log has room for it.
    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Append(len) => {
                let payload = self.payload(len);
                self.add(vec![payload]);
            }
            Op::Many(count, len) | Op::Staged(count, len) => {
                let payloads = (0..count).map(|_| self.payload(len)).collect();
                self.add(payloads);
            }
            Op::Empty(count) => self.add(vec![Vec::new(); count]),
            Op::Largest(0) => {
                let payload = self.payload(LARGEST);
                self.add(vec![payload]);
            }
            Op::Release(keep) => {
                self.released = (self.next - 1).saturating_sub(keep).max(self.released);
                self.records.retain(|(lsn, _)| *lsn > self.released);
            }
            Op::Truncate(count) => {
                let after = (self.next - 1).saturating_sub(count).max(self.released);
                self.next = after + 1;
                self.records.retain(|(lsn, _)| *lsn <= after);
            }
            Op::Largest(_) | Op::Panics(..) | Op::Grow(_) | Op::Reopen | Op::Kill => {}
        }
    }

    fn add(&mut self, payloads: Vec<Vec<u8>>) {
        for payload in payloads {
            self.records.push((self.next, payload));
            self.next += 1;
        }
    }
}

/// True of the error that a full log gives.
#[must_use]
pub fn is_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Full { .. })
}

/// Where code of the caller's panics.
const PANIC: &str = "the caller's iterator";

/// Runs what panics with [`PANIC`], without a message for it.
fn caught(work: impl FnOnce()) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&PANIC) {
                hook(info);
            }
        }));
    });
    let caught = catch_unwind(AssertUnwindSafe(work)).expect_err("it panics");
    if caught.downcast_ref::<&str>() != Some(&PANIC) {
        // Somebody else's: that of a crash that is explored, for instance.
        resume_unwind(caught);
    }
}

/// So many records, and then a panic.
fn panicking(after: usize) -> impl Iterator<Item = &'static [u8]> {
    let panic = || -> &'static [u8] { std::panic::panic_any(PANIC) };
    std::iter::repeat_n(&b"never committed"[..], after).chain(std::iter::once_with(panic))
}

/// A log and what it must hold.
pub struct Subject<R: Region + Clone = SimRegion> {
    /// The log; none only while it is opened again.
    pub log: Option<Log<R>>,
    /// What it must hold.
    pub model: Model,
    region: R,
}

impl Subject {
    /// Opens the log in a region, which must hold this.
    pub fn open(region: &SimRegion, model: Model) -> Result<Self> {
        Self::open_over(region, model)
    }
}

impl<R: Region + Clone> Subject<R> {
    /// The same over any region.
    pub fn open_over(region: &R, model: Model) -> Result<Self> {
        let log = Some(options().open_region(region.clone())?);
        Ok(Self { log, model, region: region.clone() })
    }

    /// Gives the log up as if the process had been killed.
    pub fn abandon(self) {
        if let Some(log) = self.log {
            log.abandon();
        }
    }

    /// Does one thing to both. A full log is left as it is.
    ///
    /// # Panics
    ///
    /// If a commit is refused that fits, or one is not that does not.
    pub fn apply(&mut self, op: Op) -> Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let model = &mut self.model;
        let mut payloads = |count, len| (0..count).map(|_| model.payload(len)).collect::<Vec<_>>();
        let (done, payloads) = match op {
            Op::Append(len) => {
                let payloads = payloads(1, len);
                (log.append(&payloads[0]).map(|_| ()), payloads)
            }
            Op::Many(count, len) => {
                let payloads = payloads(count, len);
                (log.append_many(&payloads).map(|_| ()), payloads)
            }
            Op::Staged(count, len) => {
                let payloads = payloads(count, len);
                let mut writer = log.writer();
                for payload in &payloads {
                    writer.stage(payload)?;
                }
                (writer.commit().map(|_| ()), payloads)
            }
            Op::Empty(count) => {
                let payloads = vec![Vec::new(); count];
                let most = 1 + log.commit_bytes_max() / 4;
                match log.append_many(&payloads) {
                    Err(error) if matches!(error.kind(), ErrorKind::TooLarge { .. }) => {
                        assert!(count as u64 > most, "{count} of {most} were refused");
                        return Ok(());
                    }
                    done => {
                        assert!(count as u64 <= most || done.is_err());
                        (done.map(|_| ()), payloads)
                    }
                }
            }
            Op::Largest(more) => {
                assert_eq!(log.commit_bytes_max(), LARGEST as u64);
                let mut payloads = payloads(1, LARGEST);
                payloads.resize(1 + more, Vec::new());
                let mut writer = log.writer();
                writer.stage(&payloads[0])?;
                for _ in 0..more {
                    let refused = writer.stage(b"").expect_err("there is no room for its length");
                    assert!(matches!(refused.kind(), ErrorKind::TooLarge { max: 0 }));
                }
                if more > 0 {
                    writer.discard();
                    model.made -= 1;
                    return Ok(());
                }
                (writer.commit().map(|_| ()), payloads)
            }
            Op::Panics(after, own) => {
                caught(|| {
                    if own {
                        let mut writer = log.writer();
                        writer.stage(b"never committed").expect("there is room");
                        let _ = writer.append_many(panicking(after));
                    } else {
                        let _ = log.append_many(panicking(after));
                    }
                });
                return Ok(());
            }
            Op::Grow(segments) => {
                log.grow(self.region.len() + segments * SEGMENT)?;
                return Ok(());
            }
            Op::Release(keep) => {
                let last = log.last().get();
                let released = last.saturating_sub(keep).max(model.released);
                log.release_up_to(Lsn::new(released))?;
                model.released = released;
                model.records.retain(|(lsn, _)| *lsn > released);
                (Ok(()), Vec::new())
            }
            Op::Truncate(count) => {
                let after = (model.next - 1).saturating_sub(count).max(model.released);
                log.truncate_after(Lsn::new(after))?;
                model.next = after + 1;
                model.records.retain(|(lsn, _)| *lsn <= after);
                (Ok(()), Vec::new())
            }
            Op::Reopen | Op::Kill => {
                let log = self.log.take();
                match log {
                    Some(log) if op == Op::Kill => log.abandon(),
                    log => log.map_or(Ok(()), Log::close)?,
                }
                self.log = Some(options().open_region(self.region.clone())?);
                return Ok(());
            }
        };
        match done {
            Ok(()) => self.model.add(payloads),
            Err(error) if is_full(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Formats a region, does this to the log and closes it. What it holds then.
pub fn prepare(region: &SimRegion, ops: &[Op]) -> Result<Model> {
    drop(options().format(region.clone())?);
    let mut subject = Subject::open(region, Model::new())?;
    ops.iter().try_for_each(|&op| subject.apply(op))?;
    subject.log.take().map_or(Ok(()), Log::close)?;
    Ok(subject.model)
}

/// Operations to be crashed, and those before them that are not.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Done before, without crashes.
    pub before: Vec<Op>,
    /// Explored.
    pub ops: Vec<Op>,
    /// How many segments the log has.
    pub segments: u64,
}

impl Scenario {
    /// What the log must hold before the first operation and after each of them.
    ///
    /// # Panics
    ///
    /// If an operation fails where nothing crashes.
    #[must_use]
    pub fn models(&self, mode: Mode) -> Vec<Model> {
        let len = region_len(self.segments);
        let region = SimRegion::new(mode, len, len);
        let model = prepare(&region, &self.before).expect("nothing crashes");
        let mut subject = Subject::open(&region, model).expect("it was closed");
        let mut models = vec![subject.model.clone()];
        for &op in &self.ops {
            subject.apply(op).expect("nothing crashes");
            models.push(subject.model.clone());
        }
        models
    }

    /// Explores it: its crashes, and if `depth` is 2, those of the recovery.
    ///
    /// # Panics
    ///
    /// If a crash leaves what it must not.
    pub fn explore(
        &self,
        mode: Mode,
        depth: usize,
        settings: impl FnOnce(Explorer) -> Explorer,
    ) -> Report {
        let (models, before) = (self.models(mode), self.before.clone());
        let explorer = Explorer::new(mode, region_len(self.segments))
            .depth(depth)
            .setup(move |region| prepare(region, &before).map(drop));
        let workload = workload(models[0].clone(), &self.ops);
        let report = settings(explorer).run(workload, check(models, depth));
        if let Some(failure) = &report.failure {
            panic!("{mode:?} {self:?}: {failure}");
        }
        report
    }
}

/// A workload of these operations, each begun and acknowledged by its number, from 1.
fn workload(
    model: Model,
    ops: &[Op],
) -> impl Fn(&SimRegion, &Notes) -> Result<()> + Send + Sync + use<> {
    let ops = ops.to_vec();
    move |region, notes| {
        let mut subject = Subject::open(region, model.clone())?;
        for (number, &op) in (1..).zip(&ops) {
            notes.begin(number);
            subject.apply(op)?;
            notes.ack(number);
        }
        Ok(())
    }
}

/// Everything in the log, read forwards.
pub fn forwards<R: Region>(log: &Log<R>) -> std::result::Result<Records, String> {
    let reader = log.reader(Lsn::ZERO).map_err(|error| error.to_string())?;
    let records = reader.map(|record| record.map(|(lsn, payload)| (lsn.get(), payload)));
    records.collect::<Result<_>>().map_err(|error| error.to_string())
}

/// Everything in the log, read backwards, oldest first.
pub fn backwards<R: Region>(log: &Log<R>) -> std::result::Result<Records, String> {
    let reader = log.reverse_reader(Lsn::new(u64::MAX)).map_err(|error| error.to_string())?;
    let records = reader.map(|record| record.map(|(lsn, payload)| (lsn.get(), payload)));
    let mut records: Vec<_> = records.collect::<Result<_>>().map_err(|error| error.to_string())?;
    records.reverse();
    Ok(records)
}

/// Of a log of which everything is released, the largest commit has room, and so has the next.
///
/// # Errors
///
/// What has not, in words.
pub fn has_room<R: Region>(log: &Log<R>) -> std::result::Result<(), String> {
    let largest = vec![0xee; log.commit_bytes_max() as usize];
    for own in [false, true] {
        let released = log.release_up_to(log.last());
        released.map_err(|error| format!("release of everything: {error}"))?;
        let appended = if own { log.writer().append(&largest) } else { log.append(&largest) };
        appended
            .map_err(|error| format!("released is everything, and {error}: {:?}", log.space()))?;
    }
    Ok(())
}

/// Opens the log after a crash, reads it both ways, and appends a record of `probe` bytes to it.
///
/// # Errors
///
/// What is wrong, in words.
pub fn recover(region: &SimRegion, probe: usize) -> std::result::Result<(u64, Records), String> {
    let words = |error: Error| error.to_string();
    let log = options().open_region(region.clone()).map_err(words)?;
    let mut records = forwards(&log)?;
    if backwards(&log)? != records {
        return Err("read backwards, the records are others".to_owned());
    }
    let last = log.last();
    let newest = records.last().map_or(log.released().get(), |(lsn, _)| *lsn);
    if newest > last.get() {
        return Err(format!("the newest record is {newest}, the last durable one {last}"));
    }
    let mut appended = PROBE.to_vec();
    appended.resize(probe.max(PROBE.len()), 0);
    match log.append(&appended) {
        Ok(lsn) if lsn != last.next() => return Err(format!("Lsn {lsn} came after {last}")),
        Ok(lsn) => {
            let after = forwards(&log)?;
            records.push((lsn.get(), appended));
            if after != records {
                return Err("an append after recovery changed what was there".to_owned());
            }
            if probe > 0 {
                // As large as a commit that was cut: nothing that came after that one follows it.
                log.abandon();
                let log = options().open_region(region.clone()).map_err(words)?;
                if forwards(&log)? != records {
                    return Err("after an append and a kill, the records are others".to_owned());
                }
                records.pop();
                return Ok((log.released().get(), without_probes(records)));
            }
            records.pop();
        }
        Err(error) if is_full(&error) => {}
        Err(error) => return Err(error.to_string()),
    }
    Ok((log.released().get(), without_probes(records)))
}

/// Without those of recoveries that were crashed.
fn without_probes(mut records: Records) -> Records {
    while records.last().is_some_and(|(_, payload)| payload.starts_with(PROBE)) {
        records.pop();
    }
    records
}

/// A check: what was acknowledged is there, the commit that was on its way is there whole or not at
/// all, and nothing else is. Of recoveries that are not crashed (`depth` 1), one in some ends
/// with a release of everything: then there is room.
pub fn check(
    models: Vec<Model>,
    depth: usize,
) -> impl Fn(&SimRegion, &History) -> std::result::Result<(), String> + Send + Sync {
    let checked = AtomicU64::new(0);
    move |region, history| {
        let (acked, begun) = (history.acked().len(), history.begun().len());
        let (released, records) = recover(region, 0)?;
        let number = checked.fetch_add(1, Ordering::Relaxed);
        if depth == 1 && number.is_multiple_of(ROOM_EVERY) {
            let log = options().open_region(region.clone()).map_err(|error| error.to_string())?;
            has_room(&log)?;
            log.abandon();
        }
        history.recovered(&(acked, records.len(), released));
        let allowed = &models[acked..=begun];
        if allowed.iter().any(|model| model.records == records && model.released == released) {
            return Ok(());
        }
        let lsns = |records: &[(u64, Vec<u8>)]| -> Vec<u64> {
            records.iter().map(|(lsn, _)| *lsn).collect()
        };
        let allowed: Vec<_> =
            allowed.iter().map(|model| (model.released, lsns(&model.records))).collect();
        Err(format!("released {released}, records {:?}; allowed {allowed:?}", lsns(&records)))
    }
}

/// The log that the simulated threads of one run share.
pub type SharedLog = Arc<Mutex<Option<Arc<Log<SimRegion>>>>>;
