//! A log that is opened for reading while another process writes it: what is found is the log as it was
//! at a moment of the search, and nothing is taken for damage.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use daxmap::log::{Log, LogOptions, Lsn};
use daxmap::{ErrorKind, Options, Region};
use pmem_tests::log_beside::{SCENARIOS, begun, between_reads, options, watched};
use pmem_tests::log_model::{SEGMENT, region_len};
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
