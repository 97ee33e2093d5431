//! Many threads, one region.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use daxmap::Region;

use super::Verdict;
use super::subject::Access;
use super::support::{Bench, PAGE, Refusal, contents, pattern, refused, same};
use super::words::StopOnDrop;

const THREADS: u64 = 4;

pub(super) fn disjoint_ranges(bench: &Bench<'_>) -> Verdict {
    // Stripes whose edges share lines and pages.
    const STRIPE: u64 = 1000;
    const ROUNDS: u64 = 60;
    let region = bench.create(THREADS * STRIPE + 13);
    thread::scope(|scope| {
        for id in 0..THREADS {
            let region = &region;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let data = pattern(STRIPE, id * ROUNDS + round);
                    match round % 3 {
                        0 => region.write(id * STRIPE, &data),
                        1 => region.write_flush(id * STRIPE, &data),
                        _ => region
                            .write_flush(id * STRIPE, &data[..501])
                            .and_then(|()| region.write(id * STRIPE + 501, &data[501..])),
                    }
                    .expect("a write inside works");
                    let mut found = vec![0; STRIPE as usize];
                    region.read(id * STRIPE, &mut found).expect("a read inside works");
                    same(&found, &data, "a stripe of its own");
                }
            });
        }
    });
    region.persist(0, region.len()).expect("the region can be persisted");
    let mut expected = vec![0; region.len() as usize];
    for id in 0..THREADS {
        let stripe = (id * STRIPE) as usize..((id + 1) * STRIPE) as usize;
        expected[stripe].copy_from_slice(&pattern(STRIPE, id * ROUNDS + ROUNDS - 1));
    }
    same(&contents(&*region), &expected, "all stripes");
    Verdict::Passed
}

/// Makes the reads count as enough, also when the reader panics.
struct DoneOnDrop<'a>(&'a AtomicU64);

impl Drop for DoneOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }
}

pub(super) fn overlapping_ranges(bench: &Bench<'_>) -> Verdict {
    let region = bench.create(3 * PAGE);
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|id| {
                let (region, reads) = (&region, &reads);
                scope.spawn(move || {
                    let data = vec![id as u8 + 1; 1200];
                    let mut round = 0;
                    while round < 100 || reads.load(Ordering::Relaxed) < 30 {
                        round += 1;
                        // Word-aligned, so that every word belongs to one writer.
                        let offset = 8 * ((round * 7 + id * 13) % 64) + PAGE - 512;
                        region.write_flush(offset, &data).expect("a write inside works");
                    }
                    region.drain().expect("everything can be drained");
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let _done = DoneOnDrop(&reads);
            let mut found = vec![0; 2 * PAGE as usize];
            while !stop.load(Ordering::Relaxed) {
                region.read(0, &mut found).expect("a read inside works");
                for word in found.chunks_exact(8) {
                    let one_writer = word.iter().all(|&byte| byte == word[0]);
                    assert!(one_writer && u64::from(word[0]) <= THREADS, "{word:?}");
                }
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let stop = StopOnDrop(&stop);
        for writer in writers {
            writer.join().expect("writers do not panic");
        }
        drop(stop);
        reader.join().expect("the reader does not panic");
    });
    Verdict::Passed
}

pub(super) fn concurrent_drains(bench: &Bench<'_>) -> Verdict {
    const ROUNDS: u64 = 12;
    let region = bench.create(THREADS * PAGE);
    thread::scope(|scope| {
        for id in 0..THREADS {
            let region = &region;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let data = pattern(100, id ^ round << 8);
                    region.write(id * PAGE + 50, &data).expect("a write inside works");
                    region.flush(id * PAGE + 50, 100).expect("a flush inside works");
                    region.drain().expect("a drain works");
                }
            });
        }
    });
    if let Some(stored) = bench.stored() {
        for id in 0..THREADS {
            let at = (id * PAGE + 50) as usize;
            same(&stored[at..at + 100], &pattern(100, id ^ (ROUNDS - 1) << 8), "a drained write");
        }
    }
    Verdict::Passed
}

/// Threads write and flush, each in its own way, and none drains.
pub(super) fn one_syncs_for_all(bench: &Bench<'_>) -> Verdict {
    const WAYS: [Flushing; 4] = [
        |region, offset, data| region.write_flush(offset, data),
        |region, offset, data| region.write_stream(offset, data),
        |region, offset, data| {
            region.write(offset, data)?;
            region.flush(offset, data.len() as u64)
        },
        |region, offset, data| region.fill_flush(offset, data.len() as u64, 7),
    ];
    let region = bench.create(WAYS.len() as u64 * PAGE);
    for round in 0..8 {
        thread::scope(|scope| {
            for (id, way) in WAYS.iter().enumerate() {
                let region = &region;
                scope.spawn(move || {
                    let data = pattern(1500, round);
                    way(&**region, id as u64 * PAGE + 50, &data).expect("a write inside works");
                });
            }
        });
        region.sync_all().expect("one thread syncs for all");
        let mut expected = pattern(1500, round);
        let Some(stored) = bench.stored() else { continue };
        for id in 0..WAYS.len() {
            if id == WAYS.len() - 1 {
                expected.fill(7);
            }
            let at = id * PAGE as usize + 50;
            same(&stored[at..at + 1500], &expected, "what another thread wrote");
        }
    }
    let reader = bench.open(Access::ReadOnly);
    reader.sync_all().expect("there is nothing to sync");
    region.close().expect("a region can be closed");
    refused("sync_all after close", region.sync_all(), Refusal::Closed);
    Verdict::Passed
}

/// A way to write and flush.
type Flushing = fn(&dyn Region, u64, &[u8]) -> daxmap::Result<()>;
