//! A follower beside a writer that appends, truncates, releases, grows, closes and opens: what it is
//! given is the log, one record behind the other, and it is told of everything that was taken from it.
//!
//! In the simulator, as a process of its own: interleavings of its reads with the writer's stores, word
//! by word. And as real processes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daxmap::log::{Log, LogOptions, LogReader, Lsn};
use daxmap::{AnyRegion, ErrorKind, Options, Region};
use daxmap_sim::{Body, Explorer, Mode, Report, SimRegion, SplitMix64};
use pmem_tests::log_beside::{
    Given, Op, SCENARIOS, Writer, begun, between_reads, newest, options, record, watched,
};
use pmem_tests::log_model::{SEGMENT, region_len};
use pmem_tests::watched::Watched;
use pmem_tests::wordwise::Wordwise;

/// Follows the log until the writer is done, from the oldest again whenever something was taken.
fn follow<R: Region + Clone>(
    region: &R,
    done: impl Fn() -> bool,
    cut: impl Fn(u64) -> u64,
) -> Given {
    let mut given = Given::default();
    let mut follower = None;
    loop {
        // Before the last look.
        let over = done();
        let result = match &mut follower {
            Some(_) => Ok(()),
            None => LogReader::in_region(region.clone(), Lsn::ZERO).map(|new| follower = Some(new)),
        };
        let result = result.and_then(|()| match &mut follower {
            Some(follower) => follower.next_record().map(|found| {
                found.map(|record| given.take(record.lsn.get(), record.payload, &cut))
            }),
            None => Ok(None),
        });
        match result {
            Ok(None) if over => return given,
            Ok(_) => {}
            Err(error) => {
                given.refuse(&error);
                if given.last.is_none() {
                    follower = None;
                }
            }
        }
    }
}

fn explore(
    mode: Mode,
    (before, ops): (&'static [Op], &'static [Op]),
    (preemptions, schedules, random): (usize, u64, u64),
    words: bool,
) -> Report {
    // The log that each schedule begins with, and where its truncations were.
    type Run = (Option<Log<Wordwise<SimRegion>>>, Arc<Mutex<Vec<u64>>>);
    let run: Arc<Mutex<Run>> = Arc::default();
    let ended: Arc<Mutex<Option<u64>>> = Arc::default();
    let setup = {
        let (run, ended) = (Arc::clone(&run), Arc::clone(&ended));
        move |region: &SimRegion| {
            let cuts = Arc::default();
            let region = Wordwise::new(region.clone());
            let mut writer = Writer::new(region.clone(), options().format(region)?, &cuts);
            before.iter().try_for_each(|&op| writer.apply(op))?;
            *run.lock().unwrap() = (writer.log, cuts);
            *ended.lock().unwrap() = None;
            Ok(())
        }
    };
    let writes: Body = {
        let (run, ended) = (Arc::clone(&run), Arc::clone(&ended));
        Box::new(move |region, _| {
            let (log, cuts) = std::mem::take(&mut *run.lock().unwrap());
            run.lock().unwrap().1 = Arc::clone(&cuts);
            let region = Wordwise::new(region.clone());
            let mut writer = Writer::new(region, log.expect("prepared"), &cuts);
            ops.iter().try_for_each(|&op| writer.apply(op))?;
            let log = writer.log.take().expect("open");
            let last = if log.last() > log.released() { log.last().get() } else { 0 };
            *ended.lock().unwrap() = Some(last);
            log.abandon();
            Ok(())
        })
    };
    let follows: Body = Box::new(move |region, _| {
        let cuts = Arc::clone(&run.lock().unwrap().1);
        let cut = |number: u64| cuts.lock().unwrap()[number as usize - 1];
        let done = || {
            // Asked in the region's turn.
            let _ = region.load_u64(0);
            ended.lock().unwrap().is_some()
        };
        let given = if words {
            follow(&Wordwise::new(region.clone()), done, cut)
        } else {
            follow(region, done, cut)
        };
        let last = ended.lock().unwrap().expect("it was done");
        assert_eq!(given.last.map_or(0, |(lsn, _)| lsn), last, "all of it comes");
        Ok(())
    });
    Explorer::new(mode, region_len(3))
        .max_len(region_len(6))
        .setup(setup)
        .depth(1)
        .images(1)
        .samples(0)
        .preemptions(preemptions)
        .schedules(schedules)
        .random_schedules(random)
        .run_threads(&[follows, writes], |_, _| Ok(()))
        .expect_clean()
}

/// Asks until there is nothing more, and goes back to the oldest record when one was taken.
fn catch_up(
    region: &Watched<SimRegion>,
    follower: &mut Option<LogReader<Watched<SimRegion>>>,
    given: &mut Given,
    cuts: &Mutex<Vec<u64>>,
) {
    let cut = |number: u64| cuts.lock().unwrap()[number as usize - 1];
    loop {
        let next = match follower {
            Some(follower) => follower
                .next_record()
                .map(|found| found.map(|record| given.take(record.lsn.get(), record.payload, cut))),
            None => LogReader::in_region(region.clone(), Lsn::ZERO)
                .map(|new| follower.insert(new))
                .map(|_| Some(())),
        };
        match next {
            Ok(Some(())) => {}
            Ok(None) => return,
            Err(error) => {
                given.refuse(&error);
                if given.last.is_none() {
                    *follower = None;
                }
            }
        }
    }
}

/// Between any two reads of the follower: all of what the writer does, or one thing after another.
#[test]
fn everything_that_a_writer_does_between_two_reads() {
    let mut runs = 0;
    for (before, ops) in SCENARIOS {
        for step in [0, 1, 3, 8] {
            for after in 0.. {
                let region = watched();
                // The writer's own reads go past the hook.
                let writer = begun(Wordwise::new(region.unwatched()), before);
                let (cuts, writer) = (Arc::clone(&writer.cuts), Arc::new(Mutex::new(writer)));
                let (mut follower, mut given) = (None, Given::default());
                between_reads(&region, after, step, Arc::clone(&writer), ops);
                catch_up(&region, &mut follower, &mut given, &cuts);
                let over = region.forget();
                catch_up(&region, &mut follower, &mut given, &cuts);
                if over {
                    break;
                }
                let mut writer = writer.lock().unwrap();
                let last = given.last.map_or(0, |(lsn, _)| lsn);
                assert_eq!(last, newest(&mut writer), "{ops:?}, {after}, {step}");
                runs += 1;
            }
        }
    }
    println!("a follower, operations between its reads | {runs} runs");
    assert!(runs > 1000);
}

/// Between any two stores of the writer, of 8 bytes each, the follower reads what there is.
#[test]
fn everything_that_a_follower_reads_between_two_stores() {
    type Following = (Option<LogReader<Watched<SimRegion>>>, Given);
    fn look(
        region: &Watched<SimRegion>,
        (after, step): (u64, u64),
        following: Arc<Mutex<Following>>,
        cuts: Arc<Mutex<Vec<u64>>>,
    ) {
        let again = region.clone();
        region.before_write(after, move || {
            {
                let (follower, given) = &mut *following.lock().unwrap();
                catch_up(&again, follower, given, &cuts);
            }
            look(&again, (step, step), following, cuts);
        });
    }

    let mut runs = 0;
    for (before, ops) in SCENARIOS {
        for step in [1, 7, 1000] {
            let stride = if cfg!(debug_assertions) { 5 } else { 1 };
            for after in (0..).step_by(if step == 1 { 1000 } else { stride }) {
                let region = watched();
                let mut writer = begun(Wordwise::new(region.clone()), before);
                let following: Arc<Mutex<Following>> = Arc::default();
                {
                    let (follower, given) = &mut *following.lock().unwrap();
                    catch_up(&region, follower, given, &writer.cuts);
                }
                let before_ops = region.writes();
                look(&region, (after, step), Arc::clone(&following), Arc::clone(&writer.cuts));
                ops.iter().try_for_each(|&op| writer.apply(op)).expect("done");
                let _ = region.forget();
                let (follower, given) = &mut *following.lock().unwrap();
                catch_up(&region, follower, given, &writer.cuts);
                let last = given.last.map_or(0, |(lsn, _)| lsn);
                assert_eq!(last, newest(&mut writer), "{ops:?}, {after}, {step}");
                runs += 1;
                if after > region.writes() - before_ops || step < 1000 && after >= step {
                    break;
                }
            }
        }
    }
    println!("a follower, its reads between stores of 8 bytes | {runs} runs");
    assert!(runs > 100);
}

/// The explorer of interleavings, word by word.
#[test]
fn sampled_interleavings_word_by_word() {
    let random = if cfg!(debug_assertions) { 8 } else { 60 };
    let mut sum = Report::default();
    for mode in [Mode::Adr, Mode::PageCache] {
        for scenario in SCENARIOS {
            sum.add(&explore(mode, scenario, (2, 1, random), true));
            sum.add(&explore(mode, scenario, (2, random, random), false));
        }
    }
    println!(
        "\nevidence: a follower as a process of its own beside a writer, word by word \
         | {} interleavings, 0 failures | memory orders weaker than sequential consistency",
        sum.schedules
    );
}

// Real processes.

/// Where the child process finds the log, and the words that both share.
const LOG: &str = "DAXMAP_FOLLOWED_LOG";
const WORDS: &str = "DAXMAP_FOLLOWED_WORDS";

/// Words that the processes share, by number: 0: the writer is done, 1: the last Lsn that is there then,
/// 2: the follower is ready, then one for each truncation.
const CUTS: u64 = 16;

/// The follower. Does its work in a process that the other tests start.
#[test]
fn follower_process() {
    let Some(path) = std::env::var_os(LOG).map(PathBuf::from) else { return };
    let words = std::env::var_os(WORDS).expect("given with the log");
    let shared = Options::new().read_only(true).open(words).expect("the words");
    let word = |number: u64| shared.load_u64(8 * number).expect("a word");
    let cut = |number: u64| word(CUTS + number);
    let mut given = Given::default();
    let mut follower = LogReader::open(&path, Lsn::ZERO).expect("followed");
    let mut resting = None;
    loop {
        // At rest, everything comes.
        if word(0) == 1 {
            let since = *resting.get_or_insert_with(Instant::now);
            if given.last.map_or(0, |(lsn, _)| lsn) == word(1) {
                break;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "{:?} of {}", given.last, word(1));
        }
        match follower.next_record() {
            Ok(Some(record)) => given.take(record.lsn.get(), record.payload, cut),
            Ok(None) => {}
            Err(error) => {
                given.refuse(&error);
                while given.last.is_none() {
                    match LogReader::open(&path, Lsn::ZERO) {
                        Ok(new) => {
                            follower = new;
                            break;
                        }
                        Err(error) => given.refuse(&error),
                    }
                }
            }
        }
    }
    println!("followed {} records", given.records);
}

fn start_follower(path: &Path, words: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "follower_process", "--nocapture"])
        .env(LOG, path)
        .env(WORDS, words)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the follower starts")
}

/// A writer that does everything at random, and two followers.
fn beside_processes(options: &LogOptions, path: &Path, grows: bool) {
    let mut log = options.create(path).expect("created");
    // Where a store is seen by other processes at once.
    let directory = tempfile::tempdir_in("/dev/shm").expect("tmpfs");
    let words = directory.path().join("words");
    let shared = Options::new().len(8 << 20).create(&words).expect("the words");
    let store = |number: u64, value: u64| shared.store_u64(8 * number, value).expect("a word");
    let followers = [start_follower(path, &words), start_follower(path, &words)];
    let mut random = SplitMix64::new(5);
    let (mut generation, mut full) = (0, 0);
    let begun = Instant::now();
    while generation < 20 || begun.elapsed() < Duration::from_secs(1) {
        let (released, last) = (log.released().get(), log.last().get());
        match random.below(100) {
            0 | 1 if last > released => {
                generation += 1;
                let kept = last - random.below((last - released).min(20) + 1);
                store(CUTS + generation, kept);
                log.truncate_after(Lsn::new(kept)).expect("truncated");
            }
            2 | 3 if last > released + 40 => {
                log.release_up_to(Lsn::new(last - 30 - random.below(10))).expect("released");
            }
            4 if random.below(10) == 0 => {
                if random.below(2) == 0 {
                    log.close().expect("closed");
                } else {
                    log.abandon();
                }
                log = LogOptions::new()
                    .region(Options::new().max_len(1 << 20))
                    .open(path)
                    .expect("open");
                assert_eq!(log.last().get(), last);
            }
            5 if grows && log.region().len() < 1 << 20 => {
                let len = log.region().len() + SEGMENT;
                log.grow(len).expect("grown");
            }
            _ => {
                let payload = record(generation, last + 1, random.below(120) as usize);
                if log.append(&payload).is_err() {
                    full += 1;
                    log.release_up_to(Lsn::new(last)).expect("released");
                    if log.append(&record(generation, last + 1, 16)).is_err() {
                        log.close().expect("closed");
                        log = LogOptions::new().open(path).expect("open");
                    }
                }
            }
        }
    }
    store(1, if log.last() > log.released() { log.last().get() } else { 0 });
    store(0, 1);
    for follower in followers {
        let output = follower.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        let followed = said.lines().find_map(|line| {
            line.strip_prefix("followed ")?.strip_suffix(" records")?.parse::<u64>().ok()
        });
        assert!(followed > Some(50), "{said}");
    }
    println!("beside {generation} truncations; full {full} times");
}

#[test]
fn processes_beside_a_writer_on_tmpfs() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("tmpfs");
    let region = Options::new().len(region_len(6)).max_len(1 << 20);
    let options = LogOptions::new().region(region).segment_bytes(SEGMENT);
    beside_processes(&options, &directory.path().join("log"), false);
}

#[test]
fn processes_beside_a_writer_that_grows_its_log_in_the_page_cache() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let region = Options::new().len(region_len(4)).max_len(1 << 20);
    let options = LogOptions::new().region(region).segment_bytes(SEGMENT);
    beside_processes(&options, &directory.path().join("log"), true);
}

/// A follower in a region that stays as it is says that the log has grown, once it needs what is new.
#[test]
fn a_region_that_does_not_grow_with_the_log_is_said_to_be_too_short() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = directory.path().join("log");
    let region = Options::new().len(region_len(2)).max_len(region_len(8));
    let mut log = LogOptions::new().region(region).segment_bytes(SEGMENT).create(&path).unwrap();
    let short: AnyRegion = Options::new().read_only(true).open(&path).unwrap();
    let mut stays = LogReader::in_region(short, Lsn::ZERO).unwrap();
    let mut grows = LogReader::open(&path, Lsn::ZERO).unwrap();
    log.append(&record(0, 1, 1900)).unwrap();
    for follower in [&mut stays, &mut grows] {
        assert_eq!(follower.next_record().unwrap().unwrap().lsn, Lsn::FIRST);
    }
    log.grow(region_len(6)).unwrap();
    for lsn in 2..=10 {
        log.append(&record(0, lsn, 1900)).unwrap();
    }
    let told = loop {
        match stays.next_record() {
            Ok(record) => assert!(record.is_some(), "it says so, and does not wait"),
            Err(error) => break error,
        }
    };
    let (len, asked) = (region_len(2), region_len(6));
    let right =
        matches!(told.kind(), ErrorKind::TooShort { len: l, asked: a } if (*l, *a) == (len, asked));
    assert!(right, "{told}");
    let rest: Vec<_> = grows.by_ref().map(|record| record.unwrap().0.get()).collect();
    assert_eq!(rest, (2..=10).collect::<Vec<_>>());
    // The name is another log's: the follower does not go over to it.
    std::fs::rename(&path, directory.path().join("moved")).unwrap();
    LogOptions::new()
        .region(Options::new().len(region_len(9)))
        .segment_bytes(SEGMENT)
        .create(&path)
        .unwrap();
    log.grow(region_len(8)).unwrap();
    for lsn in 11..=15 {
        log.append(&record(0, lsn, 1900)).unwrap();
    }
    let error = grows.by_ref().find_map(Result::err).expect("it says so");
    assert!(matches!(error.kind(), ErrorKind::TooShort { .. }), "{error}");
}
