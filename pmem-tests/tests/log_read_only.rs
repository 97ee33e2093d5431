//! A log that is opened for reading while another process writes it: what is found is the log as it was
//! at a moment of the search, and nothing is taken for damage.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use daxmap::log::{Log, LogOptions, Lsn};
use daxmap::{ErrorKind, Options, Region, Result};
use daxmap_sim::{Mode, SimRegion};
use pmem_tests::log_beside::{Op, SCENARIOS, Shared, begun, between_reads, options, watched};
use pmem_tests::log_model::{SEGMENT, region_len};
use pmem_tests::pass_on;
use pmem_tests::watched::Watched;
use pmem_tests::wordwise::Wordwise;

/// Reads all of a log that was opened for reading. Records follow one another up to the last, unless
/// something was taken away since, of which the reader is told.
fn read_all<R: Region>(log: &Log<R>) -> Vec<u64> {
    let mut lsns = Vec::new();
    for record in log.reader(Lsn::ZERO).expect("the oldest") {
        match record {
            Ok((lsn, _)) => lsns.push(lsn.get()),
            Err(error) => {
                let kind = error.kind();
                let told = matches!(kind, ErrorKind::Released { .. } | ErrorKind::NoRecord { .. });
                assert!(told, "{error}");
                return lsns;
            }
        }
    }
    assert_eq!(lsns.len() as u64, log.recovery().records);
    lsns
}

fn follow_one_another(lsns: &[u64]) -> bool {
    lsns.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

#[test]
fn everything_that_a_writer_does_between_two_reads_of_an_opening() {
    let (mut runs, mut busy) = (0, 0);
    for (before, ops) in SCENARIOS {
        for step in [0, 1, 2, 5] {
            for after in 0.. {
                let region = watched();
                let mut writer = begun(Wordwise::new(region.unwatched()), before);
                let (released, last) = (writer.log().released().get(), writer.log().last().get());
                let writer = Arc::new(Mutex::new(writer));
                between_reads(&region, after, step, Arc::clone(&writer), ops);
                let opened = options().read_only(true).open_region(region.clone());
                let over = region.forget();
                match opened {
                    Ok(log) => {
                        let found = log.recovery();
                        assert!(
                            found.damaged.is_empty() && found.missing == 0,
                            "{ops:?} {found:?}"
                        );
                        let lsns = read_all(&log);
                        assert!(follow_one_another(&lsns), "{ops:?}, {after}, {step}: {lsns:?}");
                        // What was durable before is there, unless it was taken away meanwhile.
                        let writer = writer.lock().unwrap();
                        let gone = !writer.cuts.lock().unwrap().is_empty()
                            || writer.log.as_ref().expect("open").released().get() > released;
                        assert!(gone || log.last().get() >= last, "{ops:?}, {after}, {step}");
                    }
                    Err(error) => {
                        assert!(matches!(error.kind(), ErrorKind::Busy), "{ops:?}: {error}");
                        busy += 1;
                    }
                }
                if over {
                    break;
                }
                runs += 1;
            }
        }
    }
    println!("openings for reading, operations between their reads | {runs} runs, {busy} busy");
    assert!(runs > 500 && busy == 0);
}

#[test]
fn openings_for_reading_beside_a_writer_report_no_damage() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("tmpfs");
    let path = directory.path().join("log");
    let region = Options::new().len(region_len(16));
    let log =
        LogOptions::new().region(region).segment_bytes(SEGMENT).create(&path).expect("created");
    let stop = AtomicBool::new(false);
    let (mut opened, mut busy) = (0_u64, 0_u64);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut turn = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                turn += 1;
                if log.append(&vec![turn as u8; turn * 131 % 600]).is_err() {
                    log.release_up_to(Lsn::new(log.last().get() - 40)).expect("released");
                }
            }
            turn
        });
        let looks: Vec<_> = (0..200)
            .map(|_| {
                let log = LogOptions::new().read_only(true).open(&path);
                log.map(|log| (log.recovery().clone(), read_all(&log)))
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        assert!(writer.join().expect("no panic") > 200);
        for look in looks {
            match look {
                Ok((found, lsns)) => {
                    assert_eq!(found.missing, 0, "{found:?}");
                    assert!(follow_one_another(&lsns), "{lsns:?}");
                    opened += 1;
                }
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Busy), "{error}");
                    busy += 1;
                }
            }
        }
    });
    println!("openings for reading beside a writer: {opened}, busy {busy}");
    assert!(opened > busy);
}

/// Between any two reads of the opening, the writer appends a record and releases the oldest ones: what
/// was found is gone only where a segment is used again.
#[test]
fn a_writer_that_releases_all_the_time_keeps_nobody_out() {
    fn goes_on(region: &Watched<SimRegion>, writer: &Shared, step: u64) {
        let (again, shared) = (region.clone(), Arc::clone(writer));
        region.before_read(step, move || {
            let ops = [Op::Append(8), Op::Release(40)];
            ops.into_iter().try_for_each(|op| shared.lock().unwrap().apply(op)).expect("done");
            goes_on(&again, &shared, step);
        });
    }
    for step in [1, 2, 3, 7] {
        let region = watched();
        let writer = begun(Wordwise::new(region.unwatched()), &[Op::Append(8); 60]);
        let writer = Arc::new(Mutex::new(writer));
        goes_on(&region, &writer, step);
        let opened = options().read_only(true).open_region(region.clone());
        let _ = region.forget();
        let log = opened.unwrap_or_else(|error| panic!("every {step} reads: {error}"));
        let found = log.recovery();
        assert!(found.damaged.is_empty() && found.missing == 0 && found.records > 0, "{found:?}");
        assert!(follow_one_another(&read_all(&log)), "every {step} reads");
        let appended = writer.lock().unwrap().log().last().get();
        assert!(appended > 61, "{appended}: it went on meanwhile");
    }
}

/// The first read of a slot of the opening mark finds it half written.
struct HalfWritten {
    region: SimRegion,
    slot: u64,
    left: AtomicBool,
}

impl Region for HalfWritten {
    pass_on!(region: sync_all len durability granularity backend is_emulated write fill_flush
        flush drain deep_flush load_u64 store_u64 compare_exchange_u64 grow close slices);

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.region.read(offset, into)?;
        if offset == self.slot && into.len() > 24 && self.left.swap(false, Ordering::Relaxed) {
            into[24..].fill(0xee);
        }
        Ok(())
    }
}

#[test]
fn a_mark_that_is_being_written_is_not_damaged() {
    for slot in [64, 4096 + 64] {
        let region = SimRegion::new(Mode::Adr, region_len(3), region_len(3));
        options().format(region.clone()).expect("formatted").close().expect("closed");
        let region = HalfWritten { region, slot, left: AtomicBool::new(true) };
        let log = options().read_only(true).open_region(&region).expect("sound");
        assert!(log.recovery().healed.is_empty(), "{:?}", log.recovery());
        assert!(!region.left.load(Ordering::Relaxed), "it was read");
    }
}
