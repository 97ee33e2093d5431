//! What is run on the device: a seed is a workload. Every kind of step, in an order and with
//! sizes that the seed chooses.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use daxmap::log::{Log, Lsn};
use daxmap::publish::{Commit, Draft};
use daxmap::{AnyRegion, ErrorKind, Options, Region};
use pmem_tests::blockdev::LogClock;
use pmem_tests::failing::with_failing;
use pmem_tests::random::Random;
use pmem_tests::storing::Structure;
use pmem_tests::versions;

use crate::background;
use crate::facts::{Facts, NAMES, Once, Origin, Pending, SlotFile, Span, TICK};
use crate::log::{self, LogFacts};
use crate::stores::{Store, StoreFacts};

/// A sync of the library that returns success without having been made. A control: some crash
/// must show that it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// fdatasync in `drain`.
    Drain,
    /// fdatasync in `commit`, before the draft has a name.
    Draft,
    /// The last fsync in `commit`: of the directory, or of the file where that is what it takes.
    Name,
    /// Both syncs in `create`.
    Creation,
    /// fsync in `grow`.
    Growth,
    /// Both syncs in `open`.
    Opening,
}

impl Lie {
    pub const ALL: [Self; 6] =
        [Self::Drain, Self::Draft, Self::Name, Self::Creation, Self::Growth, Self::Opening];

    fn call(self) -> libc::c_long {
        match self {
            Self::Drain | Self::Draft => libc::SYS_fdatasync,
            Self::Name | Self::Creation | Self::Growth | Self::Opening => libc::SYS_fsync,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Persist,
    /// Adjacent writes, gathered, one drain.
    Batch,
    /// Writes that nobody drains yet.
    Loose,
    Grow,
    /// Several threads that write and drain one region at once.
    Threads,
    /// A second region of the same file, used alternately with the first.
    Twice,
    Reopen,
    Publish,
    /// Two drafts at a time, committed in the other order.
    PublishTwo,
    /// A draft that is used as a region once it is committed.
    PublishLive,
    /// A commit whose last sync fails, and a commit of the filesystem's own after it.
    PublishInterrupted,
    /// A commit whose first sync fails, and a commit of the filesystem's own after it: the name
    /// must not be there yet.
    PublishRefused,
    /// A commit that ends between its temporary name and its final one, as when the process is
    /// killed, and a commit of the filesystem's own after it.
    PublishAbandoned,
    /// A file that somebody made and did not sync.
    Foreign,
    /// Commits to the log, of one record and of several, some of them staged.
    LogCommit,
    /// All but the newest records of the log are released.
    LogRelease,
    LogReopen,
    /// Numbers are stored into a state, or a working set is saved.
    Store(Structure),
    StoreReopen(Structure),
    /// The filesystem commits by itself.
    Background,
}

const STEPS: [Step; 38] = [
    Step::Persist,
    Step::Persist,
    Step::Batch,
    Step::Batch,
    Step::Loose,
    Step::Loose,
    Step::Grow,
    Step::Grow,
    Step::Threads,
    Step::Twice,
    Step::Reopen,
    Step::Publish,
    Step::Publish,
    Step::Publish,
    Step::PublishTwo,
    Step::PublishLive,
    Step::PublishInterrupted,
    Step::PublishRefused,
    Step::PublishAbandoned,
    Step::Foreign,
    Step::LogCommit,
    Step::LogCommit,
    Step::LogCommit,
    Step::LogRelease,
    Step::LogRelease,
    Step::LogReopen,
    Step::Store(Structure::State),
    Step::Store(Structure::State),
    Step::Store(Structure::Shadow),
    Step::Store(Structure::Redo),
    Step::Store(Structure::Pages),
    Step::Store(Structure::Pages),
    Step::Store(Structure::Pages),
    Step::StoreReopen(Structure::Pages),
    Step::StoreReopen(Structure::State),
    Step::StoreReopen(Structure::Shadow),
    Step::Background,
    Step::Background,
];

/// Threads of [`Step::Threads`], and what each of them writes.
const THREADS: usize = 3;
const WRITES_PER_THREAD: usize = 3;

/// A region, and what was written to it and not drained.
struct Open {
    file: usize,
    region: AnyRegion,
    pending: Vec<Pending>,
}

pub struct Workload<'a> {
    directory: &'a Path,
    clock: LogClock,
    lie: Option<Lie>,
    random: Random,
    facts: Facts,
    open: Vec<Open>,
    /// None while it is opened again, and before the first step of the log.
    log: Option<Log<AnyRegion>>,
    /// Beside the facts of each.
    stores: Vec<Option<Store>>,
    versions: u64,
}

/// Runs the workload of a seed in a directory, and returns what was promised.
pub fn run(directory: &Path, clock: LogClock, seed: u64, lie: Option<Lie>) -> Facts {
    let mut workload = Workload {
        directory,
        clock,
        lie,
        random: Random::new(seed),
        facts: Facts::new(),
        open: Vec::new(),
        log: None,
        stores: Vec::new(),
        versions: 0,
    };
    for (name, slots, slot_bytes) in [("small", 40, 64), ("large", 9, 4104)] {
        workload.create(name, slots, slot_bytes);
    }
    let mut steps = STEPS.to_vec();
    while !steps.is_empty() {
        let next = workload.random.below(steps.len() as u64) as usize;
        workload.step(steps.swap_remove(next));
    }
    workload.facts
}

impl Workload<'_> {
    /// Runs a part of the library's work, with the call missing that the control takes from it.
    fn during<T: Send>(&self, part: Lie, work: impl FnOnce() -> T + Send) -> T {
        if self.lie == Some(part) { with_failing(part.call(), 0, work) } else { work() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn now(&self) -> usize {
        self.clock.now()
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    fn step(&mut self, step: Step) {
        let at = self.below(self.open.len());
        match step {
            Step::Persist => self.persist(at),
            Step::Batch => {
                self.write_some(at, 12);
                self.drain(at);
            }
            Step::Loose => self.write_some(at, 5),
            Step::Grow => self.grow(at),
            Step::Threads => self.threads(at),
            Step::Twice => self.twice(at),
            Step::Reopen => self.reopen(at),
            Step::Publish => self.publish(),
            Step::PublishTwo => self.publish_two(),
            Step::PublishLive => self.publish_live(),
            Step::PublishInterrupted => self.publish_interrupted(),
            Step::PublishRefused => self.publish_refused(),
            Step::PublishAbandoned => self.publish_abandoned(),
            Step::Foreign => self.foreign(),
            Step::LogCommit => self.log_commit(),
            Step::LogRelease => self.log_release(),
            Step::LogReopen => self.log_reopen(),
            Step::Store(structure) => self.store(structure),
            Step::StoreReopen(structure) => self.store_reopen(structure),
            Step::Background => background::commit(&self.path(TICK)),
        }
    }

    fn create(&mut self, name: &'static str, slots: usize, slot_bytes: usize) {
        let mut span = Span::new(self.now());
        let options = Options::new().len((slots * slot_bytes) as u64).max_len(1 << 20);
        let region =
            self.during(Lie::Creation, || options.create(self.path(name))).expect("created");
        span.acknowledged = Some(self.now());
        self.opened(SlotFile::new(name, Origin::Created, slots, slot_bytes, span), region);
    }

    fn opened(&mut self, file: SlotFile, region: AnyRegion) {
        self.facts.files.push(file);
        let file = self.facts.files.len() - 1;
        self.open.push(Open { file, region, pending: Vec::new() });
    }

    fn persist(&mut self, at: usize) {
        let file = self.open[at].file;
        let slot = self.below(self.facts.files[file].slots());
        let mut span = Span::new(self.now());
        let facts = &self.facts.files[file];
        let (offset, bytes) = (facts.offset(slot), facts.write_bytes(slot, facts.writes_of(slot)));
        let region = &self.open[at].region;
        self.during(Lie::Drain, || region.write_persist(offset, &bytes)).expect("persisted");
        span.acknowledged = Some(self.now());
        self.facts.files[file].wrote(slot, span);
        self.drained(at);
    }

    /// Adjacent slots, one after the other, flushed and not drained.
    fn write_some(&mut self, at: usize, count: usize) {
        let file = self.open[at].file;
        let slots = self.facts.files[file].slots();
        let first = self.below(slots);
        for slot in first..(first + count).min(slots) {
            let span = Span::new(self.now());
            let facts = &mut self.facts.files[file];
            let bytes = facts.write_bytes(slot, facts.writes_of(slot));
            let open = &mut self.open[at];
            if slot % 2 == 0 {
                open.region.write_flush(facts.offset(slot), &bytes).expect("written");
            } else {
                open.region.write(facts.offset(slot), &bytes).expect("written");
                open.region.flush(facts.offset(slot), bytes.len() as u64).expect("flushed");
            }
            open.pending.push(facts.wrote(slot, span));
        }
    }

    fn drain(&mut self, at: usize) {
        let region = &self.open[at].region;
        self.during(Lie::Drain, || region.drain()).expect("drained");
        self.drained(at);
    }

    /// Everything that was flushed before is acknowledged now.
    fn drained(&mut self, at: usize) {
        let now = self.now();
        let Open { file, pending, .. } = &mut self.open[at];
        for pending in pending.drain(..) {
            self.facts.files[*file].acknowledged(pending, now);
        }
    }

    fn grow(&mut self, at: usize) {
        let file = self.open[at].file;
        let slots = self.facts.files[file].slots() + 1 + self.below(40);
        let mut span = Span::new(self.now());
        let len = self.facts.files[file].offset(slots);
        let region = &self.open[at].region;
        self.during(Lie::Growth, || region.grow(len)).expect("grown");
        span.acknowledged = Some(self.now());
        self.facts.files[file].grown(slots, span);
    }

    fn threads(&mut self, at: usize) {
        let Open { file, region, .. } = &self.open[at];
        let (file, facts, clock) = (*file, &self.facts.files[*file], &self.clock);
        let writer = |first: usize| {
            let mut spans = Vec::new();
            for number in 0..WRITES_PER_THREAD {
                let slot = (first + number * THREADS) % facts.slots();
                let mut span = Span::new(clock.now());
                let bytes = facts.write_bytes(slot, facts.writes_of(slot));
                region.write_flush(facts.offset(slot), &bytes).expect("written");
                region.drain().expect("drained");
                span.acknowledged = Some(clock.now());
                spans.push((slot, span));
            }
            spans
        };
        let all = || {
            std::thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..THREADS).map(|first| scope.spawn(move || writer(first))).collect();
                threads.into_iter().flat_map(|thread| thread.join().expect("a writer")).collect()
            })
        };
        let spans: Vec<(usize, Span)> = self.during(Lie::Drain, all);
        for (slot, span) in spans {
            self.facts.files[file].wrote(slot, span);
        }
    }

    fn twice(&mut self, at: usize) {
        let file = self.open[at].file;
        let path = self.path(self.facts.files[file].name);
        let region = Options::new().lock(false).max_len(1 << 20).open(path).expect("opened twice");
        self.open.push(Open { file, region, pending: Vec::new() });
        let second = self.open.len() - 1;
        for at in [second, at, second] {
            self.write_some(at, 2);
            self.persist(at);
        }
        self.write_some(second, 3);
        let open = self.open.pop().expect("just pushed");
        self.during(Lie::Drain, || open.region.close()).expect("closed");
        let now = self.now();
        for pending in open.pending {
            self.facts.files[file].acknowledged(pending, now);
        }
    }

    fn reopen(&mut self, at: usize) {
        let region = &self.open[at].region;
        self.during(Lie::Drain, || region.close()).expect("closed");
        self.drained(at);
        let Open { file, region, .. } = self.open.swap_remove(at);
        drop(region);
        let path = self.path(self.facts.files[file].name);
        let region = Options::new().max_len(1 << 20).open(path).expect("opened");
        self.open.push(Open { file, region, pending: Vec::new() });
    }

    /// A draft of a new version.
    fn draft(&mut self, name: &str) -> (Draft, u64) {
        self.versions += 1;
        let len = 16 + self.below(60_000);
        let draft = Options::new().len(len as u64).draft(self.path(name)).expect("a draft");
        let content = versions::content(self.versions, len);
        // In pieces, and not in order.
        let middle = self.below(len);
        draft.write(middle as u64, &content[middle..]).expect("written");
        draft.write_flush(0, &content[..middle]).expect("written");
        (draft, self.versions)
    }

    fn commit(&self, draft: Draft, how: Commit<'_>) -> daxmap::Result<AnyRegion> {
        self.during(Lie::Draft, || self.during(Lie::Name, || draft.commit(how)))
    }

    fn publish(&mut self) {
        let (draft, version) = self.draft(NAMES[0]);
        self.publish_draft(draft, version);
    }

    fn publish_draft(&mut self, draft: Draft, version: u64) {
        let before @ [file, kept] = self.facts.names.now();
        let new = Some(version);
        let (how, states) = match self.below(3) {
            0 if file.is_none() => (Commit::CreateOnly, vec![[new, kept]]),
            0 | 1 if file.is_some() => {
                // The new version passes through the kept name.
                (Commit::Exchange(OsStr::new(NAMES[1])), vec![before, [file, new], [new, file]])
            }
            _ => (Commit::Replace, vec![[new, kept]]),
        };
        let states = [vec![before], states].concat();
        let mut span = Span::new(self.now());
        self.commit(draft, how).expect("committed");
        span.acknowledged = Some(self.now());
        self.facts.names.committed(states, span);
    }

    fn publish_two(&mut self) {
        let (first, first_version) = self.draft(NAMES[0]);
        let name = format!("once-{}", self.versions);
        let (second, version) = self.draft(&name);
        let mut span = Span::new(self.now());
        self.commit(second, Commit::CreateOnly).expect("committed");
        span.acknowledged = Some(self.now());
        self.facts.once.push(Once { name, version, span });
        self.publish_draft(first, first_version);
    }

    fn publish_live(&mut self) {
        let (slots, slot_bytes) = (50, 200);
        let mut span = Span::new(self.now());
        let mut file = SlotFile::new("live", Origin::Published, slots, slot_bytes, span);
        let options = Options::new().len(file.offset(slots)).max_len(1 << 20);
        let draft = options.draft(self.path("live")).expect("a draft");
        draft.write(0, &file.published_bytes()).expect("written");
        let region = self.commit(draft, Commit::CreateOnly).expect("committed");
        span.acknowledged = Some(self.now());
        file = SlotFile::new("live", Origin::Published, slots, slot_bytes, span);
        self.opened(file, region);
        let at = self.open.len() - 1;
        self.persist(at);
        self.write_some(at, 7);
        self.drain(at);
    }

    fn publish_interrupted(&mut self) {
        let name = format!("interrupted-{}", self.versions);
        let (draft, version) = self.draft(&name);
        let span = Span::new(self.now());
        let refused = self.during(Lie::Draft, || {
            with_failing(libc::SYS_fsync, libc::EIO, || draft.commit(Commit::CreateOnly))
        });
        let error = refused.map(drop).expect_err("the last sync failed");
        assert!(matches!(error.kind(), ErrorKind::PublishedNotDurable(_)), "{error}");
        self.facts.once.push(Once { name, version, span });
        background::commit(&self.path(TICK));
    }

    fn publish_refused(&mut self) {
        // No fact knows the name: finding it is an error.
        let (draft, _) = self.draft("refused");
        let refused =
            with_failing(libc::SYS_fdatasync, libc::EIO, || draft.commit(Commit::Replace));
        let error = refused.map(drop).expect_err("the first sync failed");
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
        background::commit(&self.path(TICK));
    }

    fn publish_abandoned(&mut self) {
        // In place of a file that stays.
        let (draft, _) = self.draft(self.facts.files[0].name);
        let refused = with_failing(libc::SYS_unlinkat, libc::EIO, || {
            with_failing(libc::SYS_renameat, libc::EIO, || draft.commit(Commit::Replace))
        });
        let error = refused.map(drop).expect_err("the rename failed");
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
        background::commit(&self.path(TICK));
    }

    /// The log, which its first step creates.
    fn log(&mut self) -> Log<AnyRegion> {
        self.log.take().unwrap_or_else(|| {
            let mut span = Span::new(self.now());
            let log = log::create(self.directory).expect("created");
            span.acknowledged = Some(self.now());
            self.facts.log = Some(LogFacts::new(span));
            log
        })
    }

    fn log_facts(&mut self) -> &mut LogFacts {
        self.facts.log.as_mut().expect("the log is there")
    }

    fn log_commit(&mut self) {
        let log = self.log();
        for count in [1, 1 + self.below(6), 1] {
            let next = log.last().get() + 1;
            let records: Vec<Vec<u8>> =
                (next..).take(count).map(pmem_tests::storing::payload).collect();
            let mut span = Span::new(self.now());
            let last = self.during(Lie::Drain, || {
                if count == 1 {
                    return log.append(&records[0]).map(Lsn::get);
                }
                let mut writer = log.writer();
                records.iter().try_for_each(|record| writer.stage(record))?;
                writer.commit().map(|lsns| lsns.end.get() - 1)
            });
            match last {
                Ok(last) => {
                    span.acknowledged = Some(self.now());
                    self.log_facts().committed(last, span);
                }
                Err(error) => assert!(matches!(error.kind(), ErrorKind::Full { .. }), "{error}"),
            }
        }
        self.log = Some(log);
    }

    fn log_release(&mut self) {
        let log = self.log();
        let up_to = log.last().get().saturating_sub(3);
        if up_to > log.released().get() {
            let mut span = Span::new(self.now());
            self.during(Lie::Drain, || log.release_up_to(Lsn::new(up_to))).expect("released");
            span.acknowledged = Some(self.now());
            self.log_facts().released(up_to, span);
        }
        self.log = Some(log);
    }

    fn log_reopen(&mut self) {
        let log = self.log();
        self.during(Lie::Drain, || log.close()).expect("closed");
        self.log = Some(log::open(self.directory).expect("opened"));
    }

    /// The store of a structure, which its first step creates, and where its facts are.
    fn store_of(&mut self, structure: Structure) -> (Store, usize) {
        let known = self.facts.stores.iter().position(|facts| facts.structure == structure);
        let place = known.unwrap_or_else(|| {
            let mut span = Span::new(self.now());
            let store = Store::create(self.directory, structure).expect("created");
            span.acknowledged = Some(self.now());
            self.facts.stores.push(StoreFacts::new(structure, span));
            self.stores.push(Some(store));
            self.stores.len() - 1
        });
        (self.stores[place].take().expect("it is open"), place)
    }

    fn store(&mut self, structure: Structure) {
        let (mut store, place) = self.store_of(structure);
        for _ in 0..3 {
            let number = self.facts.stores[place].next();
            let mut span = Span::new(self.now());
            self.during(Lie::Drain, || store.store(number)).expect("stored");
            span.acknowledged = Some(self.now());
            self.facts.stores[place].stored(span);
        }
        self.stores[place] = Some(store);
    }

    fn store_reopen(&mut self, structure: Structure) {
        let (store, place) = self.store_of(structure);
        let directory = self.directory;
        let reopen = || store.reopen(directory, structure);
        self.stores[place] = Some(self.during(Lie::Drain, reopen).expect("opened again"));
    }

    fn foreign(&mut self) {
        let (slots, slot_bytes) = (30, 128);
        let mut span = Span::new(self.now());
        let file = SlotFile::new("foreign", Origin::Foreign, slots, slot_bytes, span);
        let path = self.path("foreign");
        fs::write(&path, file.published_bytes()).expect("written by somebody");
        let options = Options::new().max_len(1 << 20);
        let region = self.during(Lie::Opening, || options.open(&path)).expect("opened");
        span.acknowledged = Some(self.now());
        let file = SlotFile::new("foreign", Origin::Foreign, slots, slot_bytes, span);
        self.opened(file, region);
    }
}

/// Makes everything durable that the filesystem has done so far, so that the log begins with it.
pub fn settle(directory: &Path) {
    let mut file = File::create(directory.join(TICK)).expect("a file");
    file.write_all(b"begun").expect("written");
    file.sync_all().expect("synced");
    File::open(directory).and_then(|directory| directory.sync_all()).expect("synced");
}
