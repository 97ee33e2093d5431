//! Appends to a file: the log, a log by hand, and okaywal, by 1 and by 16 threads.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Barrier, Condvar, Mutex};
use std::time::Instant;

use daxmap::Options;
use daxmap::log::LogOptions;
use okaywal::{LogVoid, WriteAheadLog};

use crate::{median, ratio};

const LEN: u64 = 64 << 20;
const RECORD: usize = 64;

/// A preallocated file that threads append to: who finds no sync running writes what all have
/// brought, with one pwrite and one fdatasync; the others wait.
struct ByHand {
    file: File,
    state: Mutex<State>,
    synced: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Bytes brought, and bytes durable, ever.
    brought: u64,
    durable: u64,
    running: bool,
}

impl ByHand {
    fn create(path: &Path) -> Self {
        let file = File::options().write(true).create_new(true).open(path).expect("create");
        for at in (0..LEN).step_by(1 << 20) {
            file.write_all_at(&vec![0; 1 << 20], at).expect("write");
        }
        file.sync_all().expect("fsync");
        Self { file, state: Mutex::default(), synced: Condvar::new() }
    }

    fn append(&self, payload: &[u8]) {
        let mut state = self.state.lock().unwrap();
        let check = crc32fast::hash(payload);
        state.waiting.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        state.waiting.extend_from_slice(&check.to_le_bytes());
        state.waiting.extend_from_slice(payload);
        state.brought += 8 + payload.len() as u64;
        let mine = state.brought;
        while state.durable < mine {
            if state.running {
                state = self.synced.wait(state).unwrap();
                continue;
            }
            state.running = true;
            let bytes = std::mem::take(&mut state.waiting);
            let (from, to) = (state.durable % (LEN / 2), state.brought);
            drop(state);
            self.file.write_all_at(&bytes, from).expect("pwrite");
            self.file.sync_data().expect("fdatasync");
            state = self.state.lock().unwrap();
            state.durable = to;
            state.running = false;
            self.synced.notify_all();
        }
    }
}

/// Appends per second of so many threads, `each` times.
fn threads<W: FnMut()>(count: usize, each: usize, worker: impl Fn() -> W + Sync) -> f64 {
    let barrier = Barrier::new(count + 1);
    let began = std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let mut append = worker();
                append();
                barrier.wait();
                for _ in 0..each {
                    append();
                }
            });
        }
        let began = Instant::now();
        barrier.wait();
        began
    });
    (count * each) as f64 / began.elapsed().as_secs_f64()
}

pub fn run(directory: &Path, rounds: usize) {
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    let options = LogOptions::new().region(Options::new().len(LEN)).segment_bytes(4 << 20);
    let log = options.create(directory.path().join("log")).expect("a log");
    println!("== {}: {}", directory.path().display(), log.region().report().verdict_sentence());
    let hand = ByHand::create(&directory.path().join("hand"));
    let peer = WriteAheadLog::recover(directory.path().join("okaywal"), LogVoid).expect("okaywal");
    for (count, each) in [(1, 100), (16, 100)] {
        let (mut ours, mut by_hand, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            log.release_up_to(log.last()).expect("released");
            ours.push(threads(count, each, || {
                let mut writer = log.writer();
                move || {
                    writer.append(&[7; RECORD]).expect("appended");
                }
            }));
            by_hand.push(threads(count, each, || || hand.append(&[7; RECORD])));
            theirs.push(threads(count, each, || {
                || {
                    let mut entry = peer.begin_entry().expect("an entry");
                    entry.write_chunk(&[7; RECORD]).expect("written");
                    entry.commit().expect("committed");
                }
            }));
        }
        println!(
            "  {count:2} producers of {RECORD} B: log {:.0}/s, by hand {:.0}/s, okaywal {:.0}/s",
            median(&mut ours.clone()),
            median(&mut by_hand.clone()),
            median(&mut theirs.clone()),
        );
        println!(
            "     => time of log / by hand {:.2} (target <= 1.10); log / okaywal {:.2} (target >= 1.5)",
            ratio(&by_hand, &ours),
            ratio(&ours, &theirs),
        );
    }
    peer.shutdown().expect("okaywal ends");
}
