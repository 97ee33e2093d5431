//! Any list of operations on a log beside a model: power cuts and kills, between operations and in
//! them, and openings.
//!
//! `DAXMAP_PROPERTY_CASES` is the number of lists, 2000 unless given.

use std::sync::Arc;

use daxmap::ErrorKind;
use daxmap::log::{LogReader, Lsn};
use daxmap_sim::{Mode, SimRegion};
use pmem_tests::killed::Killed;
use pmem_tests::log_model::{self, LARGEST, Model, Op, Records, Subject, region_len};
use pmem_tests::long_run::setting;
use proptest::prelude::*;

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
    Does(Op),
    /// The power goes between two operations.
    Cut {
        seed: u64,
    },
    /// The process is killed in the operation, before it has drained once more than `drains` times;
    /// then the power goes, or only another process comes.
    KilledIn {
        op: Op,
        drains: u32,
        power: Option<u64>,
    },
    /// Records are read from somewhere, in both directions.
    Read {
        from: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0_usize..200).prop_map(Op::Append),
        2 => (0_usize..4000).prop_map(Op::Append),
        2 => (1_usize..6, 0_usize..300).prop_map(|(count, len)| Op::Many(count, len)),
        2 => (1_usize..6, 0_usize..700).prop_map(|(count, len)| Op::Staged(count, len)),
        1 => (0_usize..3).prop_map(Op::Largest),
        1 => prop_oneof![1_usize..20, LARGEST / 4 - 2..LARGEST / 4 + 6].prop_map(Op::Empty),
        1 => (0_usize..4, any::<bool>()).prop_map(|(after, own)| Op::Panics(after, own)),
        1 => (0_u64..2).prop_map(Op::Grow),
        2 => (0_u64..4).prop_map(Op::Release),
        2 => (0_u64..5).prop_map(Op::Truncate),
        1 => Just(Op::Truncate(1)),
        1 => Just(Op::Reopen),
        1 => Just(Op::Kill),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let killed = (op(), 0_u32..4, prop::option::of(any::<u64>()));
    prop_oneof![
        12 => op().prop_map(Step::Does),
        2 => any::<u64>().prop_map(|seed| Step::Cut { seed }),
        4 => killed.prop_map(|(op, drains, power)| Step::KilledIn { op, drains, power }),
        1 => (0_u64..40).prop_map(|from| Step::Read { from }),
    ]
}

/// Truncations of few records, most of them killed, and short commits of several writers between.
fn truncation_step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![
        3 => (0_usize..70).prop_map(Op::Append),
        1 => (900_usize..2000).prop_map(Op::Append),
        2 => (1_usize..4, 0_usize..40).prop_map(|(count, len)| Op::Staged(count, len)),
        1 => Just(Op::Panics(1, true)),
        4 => (1_u64..4).prop_map(Op::Truncate),
        1 => (1_u64..6).prop_map(Op::Release),
        1 => Just(Op::Reopen),
    ];
    (op, 0_u32..4, prop::option::of(any::<u64>()), any::<bool>()).prop_map(
        |(op, drains, power, is_killed)| {
            if is_killed { Step::KilledIn { op, drains, power } } else { Step::Does(op) }
        },
    )
}

type Region = Arc<Killed<SimRegion>>;

/// A log, and somebody who follows it from its first record.
struct Machine {
    memory: SimRegion,
    region: Region,
    subject: Subject<Region>,
    follower: LogReader<SimRegion>,
    followed: Records,
}

fn alive(memory: &SimRegion) -> Region {
    Arc::new(Killed::before_drain(memory.clone(), u32::MAX))
}

impl Machine {
    fn new(mode: Mode, segments: u64) -> Self {
        // A list has at most 30 operations, of which each makes it one segment longer at most.
        let memory = SimRegion::new(mode, region_len(segments), region_len(segments + 30));
        let model = log_model::prepare(&memory, &[]).expect("nothing crashes");
        Self::open(memory, model)
    }

    /// A process begins.
    fn open(memory: SimRegion, model: Model) -> Self {
        let region = alive(&memory);
        let subject = Subject::open_over(&region, model).expect("it opens");
        let follower = LogReader::in_region(memory.clone(), Lsn::ZERO).expect("it is a log");
        Self { memory, region, subject, follower, followed: Vec::new() }
    }

    /// The next process, which finds one of two models, after a power cut or a kill.
    fn after(self, before: Model, after: Model, power: Option<u64>) -> Self {
        self.subject.abandon();
        let memory = power.map_or_else(|| self.memory.clone(), |seed| self.memory.crash(seed));
        let mut machine = Self::open(memory, before);
        let log = machine.subject.log.as_ref().expect("it is open");
        let (found, released) = (log_model::forwards(log).expect("read"), log.released().get());
        let is = |model: &Model| model.records == found && model.released == released;
        if !is(&machine.subject.model) {
            assert!(is(&after), "neither what was before nor what was on its way: {found:?}");
            machine.subject.model = after;
        }
        // Which numbers a commit gets that follows one that was lost is the log's own business.
        let next = log.last().get() + 1;
        assert!(machine.subject.model.records.last().is_none_or(|(lsn, _)| *lsn < next));
        machine.subject.model.next = next;
        machine.follow();
        machine
    }

    fn step(mut self, step: Step) -> Self {
        match step {
            Step::Does(op) => {
                self.subject.apply(op).expect("nothing fails");
                self.done(op);
            }
            Step::Cut { seed } => {
                let model = self.subject.model.clone();
                self = self.after(model.clone(), model, Some(seed));
            }
            Step::KilledIn { op, drains, power } => {
                let before = self.subject.model.clone();
                let mut after = before.clone();
                after.apply(op);
                self.region.kill_after(drains);
                // A thread of its own: the model knows whose stores a drain waits for.
                let subject = &mut self.subject;
                let done = std::thread::scope(|scope| scope.spawn(|| subject.apply(op)).join());
                if done.expect("it does not panic").is_ok() && !self.region.is_killed() {
                    // It needed fewer drains: the process goes on.
                    self.region.kill_after(u32::MAX);
                    self.done(op);
                    return self.step(Step::Read { from: 0 });
                }
                self = self.after(before, after, power);
            }
            Step::Read { from } => self.read(from),
        }
        self.compare();
        self
    }

    /// The follower reads on; where records were taken back that it has read, from the first one.
    fn done(&mut self, op: Op) {
        if matches!(op, Op::Truncate(count) if count > 0) || matches!(op, Op::Grow(_)) {
            self.follow_anew();
        }
        self.follow();
    }

    fn follow_anew(&mut self) {
        self.follower = LogReader::in_region(self.memory.clone(), Lsn::ZERO).expect("a log");
        self.followed.clear();
    }

    /// Whatever has happened: when everything is released there is room, for this process and for
    /// the next one.
    fn end(mut self) {
        let log = self.subject.log.take().expect("it is open");
        log_model::has_room(&log).unwrap();
        log.abandon();
        let log = log_model::options().open_region(alive(&self.memory)).expect("it opens");
        log_model::has_room(&log).unwrap();
        log.abandon();
    }

    fn compare(&self) {
        let (Some(log), model) = (&self.subject.log, &self.subject.model) else { return };
        assert_eq!(log_model::forwards(log).expect("read"), model.records);
        assert_eq!(log_model::backwards(log).expect("read"), model.records);
        assert_eq!((log.released().get(), log.last().get() + 1), (model.released, model.next));
    }

    fn read(&self, from: u64) {
        let (Some(log), model) = (&self.subject.log, &self.subject.model) else { return };
        let named = |record: daxmap::Result<(Lsn, Vec<u8>)>| {
            let (lsn, payload) = record.expect("read");
            (lsn.get(), payload)
        };
        let above: Records =
            model.records.iter().filter(|(lsn, _)| *lsn >= from).cloned().collect();
        match log.reader(Lsn::new(from)) {
            Ok(reader) => assert_eq!(reader.map(named).collect::<Records>(), above),
            Err(error) => {
                let released = matches!(error.kind(), ErrorKind::Released { .. });
                assert!(released && from <= model.released && from > 0, "{error}");
            }
        }
        let mut below: Records =
            model.records.iter().filter(|(lsn, _)| *lsn <= from).cloned().collect();
        below.reverse();
        let reader = log.reverse_reader(Lsn::new(from)).expect("a reader");
        assert_eq!(reader.map(named).collect::<Records>(), below, "from {from} down");
    }

    /// Reads what the follower has not seen. It may have seen what was released since.
    fn follow(&mut self) {
        loop {
            match self.follower.next_record() {
                Ok(Some(record)) => self.followed.push((record.lsn.get(), record.payload.to_vec())),
                Ok(None) => break,
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Released { .. }), "{error}");
                    self.follow_anew();
                }
            }
        }
        let model = &self.subject.model;
        if self.subject.log.is_some() {
            let seen = self.followed.iter().filter(|(lsn, _)| *lsn > model.released);
            let missed =
                model.records.iter().filter(|record| !self.followed.contains(record)).count();
            assert!(seen.eq(model.records.iter()), "{missed} records were missed: {model:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: setting("DAXMAP_PROPERTY_CASES", 2000) as u32, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn it_does_what_the_model_does(
        mode in prop::sample::select(Mode::ALL.to_vec()),
        segments in 2_u64..6,
        steps in prop::collection::vec(step(), 0..30),
    ) {
        let machine = steps.into_iter().fold(Machine::new(mode, segments), Machine::step);
        machine.end();
    }

    #[test]
    fn truncations_that_are_killed_leave_what_the_model_has(
        mode in prop::sample::select(Mode::ALL.to_vec()),
        segments in 2_u64..4,
        steps in prop::collection::vec(truncation_step(), 0..20),
    ) {
        let machine = steps.into_iter().fold(Machine::new(mode, segments), Machine::step);
        machine.end();
    }
}

fn does(ops: &[Op]) -> impl Iterator<Item = Step> + use<'_> {
    ops.iter().map(|&op| Step::Does(op))
}

/// A commit that a crash has cut has Lsns that another segment has since: whoever follows the log does
/// not wait for it. Found by the test above.
#[test]
fn a_follower_passes_a_commit_that_was_cut() {
    let before = [Op::Many(2, 169), Op::Many(5, 117), Op::Staged(2, 297), Op::Release(0)];
    let cut =
        Step::KilledIn { op: Op::Append(153), drains: 0, power: Some(7_706_593_113_968_842_491) };
    let steps = does(&before).chain([cut]).chain(does(&[Op::Append(0)]));
    let machine = steps.fold(Machine::new(Mode::PageCache, 2), Machine::step);
    assert_eq!(machine.followed.len(), 1);
}

/// A segment that was truncated twice, the second time by recovery, is not taken for one that a third
/// truncation concerns: what the second has voided stayed void on the medium, and could be read until
/// the log was opened anew. Found by the test above.
#[test]
fn what_was_truncated_stays_so_when_something_else_is() {
    let before = [Op::Many(6, 0), Op::Append(0), Op::Truncate(1)];
    let killed = Step::KilledIn { op: Op::Truncate(2), drains: 0, power: None };
    let after = [Op::Append(0), Op::Append(0), Op::Append(0), Op::Truncate(2)];
    let steps = does(&before).chain([killed]).chain(does(&after));
    let machine = steps.fold(Machine::new(Mode::Adr, 2), Machine::step);
    let records: Vec<_> = machine.subject.model.records.iter().map(|(lsn, _)| *lsn).collect();
    assert_eq!(records, [1, 2, 3, 4, 5]);
}

/// Recovery found both copies of a segment's header alike, one of them by a killed process that had not
/// drained it. It made the other one durable only, over which the next life of the segment is written
/// first: a power cut in that left neither. Found by the test above.
#[test]
fn both_copies_of_a_header_are_durable_when_one_is_written() {
    for seed in 0..64 {
        let before = [Op::Append(0), Op::Append(0)];
        let killed = |op, drains, power| Step::KilledIn { op, drains, power };
        let steps = does(&before[..1])
            .chain([killed(Op::Append(0), 0, None)])
            .chain(does(&[Op::Append(0), Op::Staged(1, 0), Op::Append(0)]))
            .chain([killed(Op::Kill, 1, None), killed(Op::Truncate(2), 3, None)])
            .chain([killed(Op::Append(0), 0, Some(seed))]);
        let machine = steps.fold(Machine::new(Mode::Adr, 3), Machine::step);
        assert!(!machine.subject.model.records.is_empty());
    }
}

/// A truncation that was killed anywhere is finished, or was none, and it is not done again to what
/// is appended since.
#[test]
fn a_truncation_that_was_killed_is_finished_once() {
    for mode in [Mode::Adr, Mode::PageCache] {
        for (drains, cut, power) in (0..8).flat_map(|drains| {
            (1..4).flat_map(move |cut| [None, Some(7)].map(move |power| (drains, cut, power)))
        }) {
            let steps = does(&[Op::Many(5, 100), Op::Append(20), Op::Append(2000)])
                .chain([Step::KilledIn { op: Op::Truncate(cut), drains, power }])
                .chain(does(&[Op::Append(30), Op::Append(40), Op::Append(50), Op::Kill]))
                .chain(does(&[Op::Append(60), Op::Reopen, Op::Append(70)]));
            let machine = steps.fold(Machine::new(mode, 4), Machine::step);
            assert!(machine.subject.model.records.len() >= 9, "{drains}, {cut}, {power:?}");
        }
    }
}

/// A truncation that recovery finished said nothing to a segment in which it voided nothing: the mark
/// that was to follow gave the limit of the truncation before, above the Lsn of the block behind it,
/// and that was damage. Found by the test above.
#[test]
fn a_truncation_that_recovery_finishes_is_the_last_one_of_every_segment_that_goes_on() {
    for (drains, power) in (0..4).flat_map(|drains| [None, Some(7), Some(8)].map(|at| (drains, at)))
    {
        for mode in Mode::ALL {
            let steps = does(&[Op::Append(537), Op::Append(0)])
                .chain([Step::KilledIn { op: Op::Staged(2, 0), drains: 1, power: None }])
                .chain(does(&[Op::Truncate(1)]))
                .chain([Step::KilledIn { op: Op::Truncate(1), drains, power }])
                .chain(does(&[Op::Append(0), Op::Truncate(1)]));
            steps.fold(Machine::new(mode, 3), Machine::step).end();
        }
    }
}

/// The seal of a full segment is torn, and with it the copy of the header that knew of the truncation
/// in it: the mark does, also for those who read the opened log. Found by the test above.
#[test]
fn a_torn_seal_brings_no_truncated_record_back() {
    for seed in 0..64 {
        for mode in Mode::ALL {
            let before = [Op::Staged(2, 169), Op::Empty(8), Op::Truncate(1), Op::Empty(8)];
            let killed = |op| Step::KilledIn { op, drains: 0, power: Some(seed) };
            let steps = does(&before)
                .chain([killed(Op::Append(3289))])
                .chain(does(&[Op::Truncate(2), Op::Append(0)]))
                .chain([killed(Op::Truncate(1)), killed(Op::Kill)])
                .chain(does(&[Op::Append(0), Op::Truncate(3)]));
            steps.fold(Machine::new(mode, 3), Machine::step).end();
        }
    }
}
