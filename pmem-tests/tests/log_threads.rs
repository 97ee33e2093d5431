//! Real threads at one log: what each appended is there, in its order, and readers beside them see
//! every Lsn in turn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use daxmap::log::{LogOptions, Lsn};
use daxmap::{Emulation, Options};

const THREADS: u64 = 4;
const EACH: u64 = 500;

fn at_once(region: Options) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = directory.path().join("log");
    let options = LogOptions::new().region(region).segment_bytes(64 << 10);
    let log = options.create(&path).expect("created");
    let done = AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reader = log.reader(Lsn::FIRST).expect("nothing is released");
            let mut lsns = Vec::new();
            loop {
                // Before the last look.
                let over = done.load(Ordering::Acquire);
                while let Some(record) = reader.next_record().expect("no damage") {
                    lsns.push(record.lsn.get());
                }
                if over {
                    return lsns;
                }
            }
        });
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let log = &log;
                scope.spawn(move || {
                    let mut writer = log.writer();
                    let mut last = Lsn::ZERO;
                    for number in 0..EACH {
                        let lsn = writer.append(&(thread << 32 | number).to_le_bytes());
                        let lsn = lsn.expect("appended");
                        assert!(lsn > last);
                        last = lsn;
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("no panic");
        }
        done.store(true, Ordering::Release);
        reader.join().expect("no panic")
    });
    assert!(read.into_iter().eq(1..=THREADS * EACH), "every Lsn in turn");
    drop(log);
    let log = options.open(&path).expect("opened");
    assert_eq!((log.recovery().records, log.recovery().missing), (THREADS * EACH, 0));
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for record in log.reader(Lsn::FIRST).expect("nothing is released") {
        let (_, payload) = record.expect("no damage");
        let word = u64::from_le_bytes(payload.try_into().expect("eight bytes"));
        let number = next.entry(word >> 32).or_default();
        assert_eq!(word & 0xffff_ffff, *number);
        *number += 1;
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), vec![EACH; THREADS as usize]);
}

#[test]
fn threads_append_to_the_page_cache() {
    at_once(Options::new().len(4 << 20));
}

#[test]
fn threads_append_to_lines() {
    let directory = std::path::Path::new("/dev/shm");
    assert!(directory.is_dir(), "tmpfs is needed");
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    let log = LogOptions::new()
        .region(Options::new().len(4 << 20).emulate(Emulation::Adr))
        .segment_bytes(64 << 10)
        .create(directory.path().join("log"))
        .expect("created");
    let seen = std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                let mut writer = log.writer();
                for number in 0..EACH {
                    writer.append(&(thread << 32 | number).to_le_bytes()).expect("appended");
                }
            });
        }
        let mut reader = log.reader(Lsn::FIRST).expect("nothing is released");
        let mut seen = 0;
        while seen < THREADS * EACH {
            if let Some(record) = reader.next_record().expect("no damage") {
                assert_eq!(record.lsn.get(), seen + 1);
                seen += 1;
            }
        }
        seen
    });
    assert_eq!(seen, THREADS * EACH);
}

/// A forked child writes nothing into its parent's log, and waits for nothing there.
#[test]
fn a_forked_child_neither_appends_nor_waits() {
    for (parent, region) in [
        (env!("CARGO_TARGET_TMPDIR"), Options::new()),
        ("/dev/shm", Options::new().emulate(Emulation::Adr)),
    ] {
        let directory = tempfile::tempdir_in(parent).expect("a directory");
        let path = directory.path().join("log");
        let options = LogOptions::new().region(region.len(4 << 20));
        let log = options.create(&path).expect("created");
        log.append(b"before").expect("appended");
        let ticket = log.submit([b"submitted"]).expect("submitted");
        #[allow(unsafe_code)]
        // SAFETY: no other thread has a lock that the child takes, and it leaves by _exit.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                let large = vec![1; 100_000];
                let refused = log.append(b"child").is_err()
                    && log.append(&large).is_err()
                    && log.submit([&large]).is_err()
                    && log.submit([b"child"]).is_err()
                    && (ticket.is_durable() || ticket.wait().is_err());
                libc::_exit(i32::from(!refused));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        }
        assert_eq!(ticket.wait().expect("durable"), Lsn::new(2)..Lsn::new(3));
        assert_eq!(log.append(b"after").expect("appended"), Lsn::new(3));
        log.abandon();
        let log = options.open(&path).expect("opened");
        let found: Vec<_> =
            log.reader(Lsn::ZERO).unwrap().map(|record| record.unwrap().1).collect();
        assert_eq!(found, [&b"before"[..], b"submitted", b"after"]);
    }
}
