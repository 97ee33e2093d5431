//! Each line is written back once and in order, stores that follow stay behind, and words are never
//! torn.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

#[cfg(target_arch = "x86_64")]
const LINE: usize = arch::LINE_SIZE;

#[test]
fn every_line_is_written_back_once_and_none_besides() {
    let pages = Pages::new(1 << 16);
    let source = payload(1 << 16);
    let cpu = Cpu::get();
    for (offset, len) in
        [(0, 1), (0, 64), (63, 2), (1, 64), (128, 640), (8, 4000), (100, 20000), (64, 4096), (0, 0)]
    {
        let lines = match written_back(len) {
            Ok(()) => LineCover::of(offset, len, cpu.line_size()).count() as u64,
            Err(Fault) => 0,
        };
        let before = counts();
        // SAFETY: offset + len lies within the mapping.
        let result = unsafe { cpu.flush(pages.0.add(offset), len) };
        assert_eq!(result, written_back(len));
        assert_eq!(counts().since(before), Counts { write_backs: lines, ..Counts::default() });

        let before = counts();
        // SAFETY: as above.
        let result = unsafe { cpu.store_flush(pages.0.add(offset), source.as_ptr(), len) };
        assert_eq!(result, written_back(len));
        let done = counts().since(before);
        assert_eq!(
            done.write_backs + done.non_temporal_lines,
            lines,
            "store_flush({offset}, {len})"
        );

        let before = counts();
        // SAFETY: as above.
        let result = unsafe { cpu.fill_flush(pages.0.add(offset), 1, len) };
        assert_eq!(result, written_back(len));
        let done = counts().since(before);
        assert_eq!(
            done.write_backs + done.non_temporal_lines,
            lines,
            "fill_flush({offset}, {len})"
        );
        assert_eq!(done.fences, 0);
    }
    let before = counts();
    cpu.fence();
    assert_eq!(counts().since(before), Counts { fences: 1, ..Counts::default() });
}

/// No line both ways, none neither way: the first and the last line of a range that is not made
/// of whole words are where this could go wrong.
#[test]
fn every_line_is_written_one_way_once_whatever_the_edges() {
    type Copy = unsafe fn(&Cpu, *mut u8, *const u8, usize) -> Result<(), Fault>;
    const PERSIST: Copy = Cpu::store_persist;
    const FLUSH: Copy = Cpu::store_flush;
    let pages = Pages::new(8192);
    let source = payload(8192);
    let cpu = Cpu::get();
    for offset in 0..64 {
        for len in (0..270).chain(2040..2120) {
            let lines = match cpu.write_back() {
                WriteBack::None => 0,
                _ => LineCover::of(offset, len, cpu.line_size()).count() as u64,
            };
            for copy in [
                Cpu::store_flush,
                Cpu::store_persist,
                Cpu::store_cached_flush,
                Cpu::store_non_temporal_flush,
            ] {
                let before = counts();
                // SAFETY: offset + len lies within the mapping.
                let copied = unsafe { copy(cpu, pages.0.add(offset), source.as_ptr(), len) };
                assert_eq!(copied, written_back(len));
                let done = counts().since(before);
                assert_eq!(done.write_backs + done.non_temporal_lines, lines, "{offset} + {len}");
                assert_eq!(done.fences, u64::from(std::ptr::fn_addr_eq(copy, PERSIST)));
                let ordered = std::ptr::fn_addr_eq(copy, FLUSH) && done.non_temporal_lines > 0;
                assert_eq!(done.order_fences, u64::from(ordered), "{offset} + {len}");
            }
        }
    }
}

/// What goes past the cache is ordered before what the thread stores later.
#[test]
fn long_copies_and_fills_are_ordered() {
    let cpu = Cpu::get();
    let len = match cpu.past {
        Some(_) => cpu.ways().flush.max(cpu.ways().cached_domain),
        None => 256 << 10,
    };
    let pages = Pages::new(len.next_multiple_of(4096));
    let source = payload(len);
    for past_the_cache in [false, true] {
        let len = if past_the_cache { len } else { 64 };
        let ordered = u64::from(past_the_cache && cpu.past.is_some());
        let before = counts();
        // SAFETY: `len` bytes lie within the mapping.
        let copied = unsafe { cpu.store_flush_cached_domain(pages.0, source.as_ptr(), len) };
        assert_eq!(copied, Ok(()));
        assert_eq!(counts().since(before).order_fences, ordered, "copy of {len} bytes");
        let before = counts();
        // SAFETY: as above.
        let filled = unsafe { cpu.fill_flush(pages.0, 7, len) };
        assert_eq!(filled, written_back(len));
        assert_eq!(counts().since(before).order_fences, ordered, "fill of {len} bytes");
    }
}

/// What the processor is given, not what the counters say: the counters are kept outside of the
/// routines and would not notice a line that a routine leaves out.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_routines_execute_each_write_back_once_and_in_order() {
    use crate::cpu::stepper::{Kind, trace};
    let pages = Pages::new(8192);
    let source = payload(2048);
    for (vectors, write_back, cpu) in kinds() {
        let expected_kind = match write_back {
            WriteBack::Clwb => Kind::Clwb,
            WriteBack::ClflushOpt => Kind::ClflushOpt,
            _ => Kind::Clflush,
        };
        for offset in [0, 1, 8, 23, 60, 63] {
            for len in (0..10).chain([31, 40, 63, 64, 65, 72, 127, 128, 129, 250, 256, 320, 576]) {
                let case = format!("{vectors:?} {write_back:?} {offset} + {len}");
                // SAFETY: within the pages.
                let to = unsafe { pages.0.add(offset) };
                let lines: Vec<usize> = LineCover::of(to as usize, len, LINE).addresses().collect();
                let written_back = |what: &str, steps: &[crate::cpu::stepper::Step]| {
                    assert!(steps.iter().all(|s| s.kind == expected_kind), "{what} {case}");
                    let found: Vec<usize> = steps.iter().map(|s| s.address & !(LINE - 1)).collect();
                    assert_eq!(found, lines, "{what} {case}");
                };
                let copy = cpu.store_write_back.unwrap();
                // SAFETY: as above.
                let steps = trace(|| assert_eq!(unsafe { copy(to, source.as_ptr(), len) }, 0));
                written_back("copy", &steps);
                if write_back == arch::detect() {
                    // SAFETY: as above.
                    let steps = trace(|| unsafe { cpu.flush(to, len) }.unwrap());
                    written_back("flush", &steps);
                }
                if offset % 8 != 0 || len % 8 != 0 || len == 0 {
                    continue;
                }
                let copy = cpu.past.and_then(|past| past.direct).unwrap_or(cpu.past.unwrap().words);
                // SAFETY: as above.
                let steps = trace(|| assert_eq!(unsafe { copy(to, source.as_ptr(), len) }, 0));
                let mut at = to as usize;
                for step in steps {
                    let Kind::NonTemporal(bytes) = step.kind else {
                        panic!("{:?} in {case}", step.kind);
                    };
                    assert_eq!(
                        (step.address, step.address % usize::from(bytes)),
                        (at, 0),
                        "{case}"
                    );
                    at += usize::from(bytes);
                }
                assert_eq!(at, to as usize + len, "{case}");
            }
        }
    }
}

/// As above, of what moves up and of fills: whole lines each once, in their order.
#[cfg(target_arch = "x86_64")]
#[test]
fn moves_and_fills_write_each_line_once() {
    use crate::cpu::stepper::{Kind, Step, trace};
    let mut pages = Pages::new(8192);
    pages.bytes().fill(1);
    for (vectors, write_back, mut cpu) in kinds() {
        for (past, len) in [(false, 320), (false, 1984), (true, 320), (true, 1984)] {
            cpu.ways.flush = if past { 64 } else { usize::MAX };
            let case = format!("{vectors:?} {write_back:?} {past} {len}");
            // SAFETY: within the pages.
            let to = unsafe { pages.0.add(128) };
            let lines: Vec<usize> = (0..len / LINE).map(|i| to as usize + i * LINE).collect();
            let lines_of = |steps: &[Step]| {
                let mut found: Vec<usize> = steps
                    .iter()
                    .filter(|step| step.kind != Kind::Fence)
                    .inspect(|step| {
                        assert_eq!(matches!(step.kind, Kind::NonTemporal(_)), past, "{case}");
                    })
                    .map(|step| step.address & !(LINE - 1))
                    .collect();
                found.dedup();
                found.sort_unstable();
                found
            };
            // SAFETY: within the pages.
            let steps = trace(|| unsafe { cpu.fill_flush(to, 7, len) }.unwrap());
            assert_eq!(lines_of(&steps), lines, "fill {case}");
            assert_eq!(steps.last().unwrap().kind == Kind::Fence, past, "fill {case}");
            // SAFETY: as above.
            let steps = trace(|| unsafe { cpu.move_flush(to, to.sub(8), len) }.unwrap());
            // The stepper does not compute indexed addresses, which the moves past the caches have.
            if past {
                let bytes = steps.iter().map(|step| match step.kind {
                    Kind::NonTemporal(bytes) => usize::from(bytes),
                    _ => 0,
                });
                assert_eq!(bytes.sum::<usize>(), len, "move {case}");
            } else {
                assert_eq!(lines_of(&steps), lines, "move {case}");
            }
            assert_eq!(steps.last().unwrap().kind == Kind::Fence, past, "move {case}");
        }
    }
}

/// A fence went missing after a non-temporal copy elsewhere, for five releases.
#[cfg(target_arch = "x86_64")]
#[test]
fn nothing_is_left_to_do_after_a_durable_copy() {
    use crate::cpu::stepper::{Kind, trace};
    let pages = Pages::new(8192);
    let source = payload(4096);
    let cpu = Cpu::get();
    for (offset, len) in [(0, 8), (0, 64), (3, 100), (8, 200), (0, 4096), (5, 2000)] {
        // SAFETY: within the pages.
        let to = unsafe { pages.0.add(offset) };
        // SAFETY: as above.
        let steps = trace(|| unsafe { cpu.store_persist(to, source.as_ptr(), len) }.unwrap());
        let fences = steps.iter().filter(|s| s.kind == Kind::Fence).count();
        assert_eq!((fences, steps.last().unwrap().kind), (1, Kind::Fence), "{offset} + {len}");
        // SAFETY: as above.
        let steps = trace(|| unsafe { cpu.store_flush(to, source.as_ptr(), len) }.unwrap());
        let past_the_cache = steps.iter().any(|s| matches!(s.kind, Kind::NonTemporal(_)));
        let ordered = steps.last().unwrap().kind == Kind::Fence;
        assert_eq!(past_the_cache, ordered, "{offset} + {len}");
    }
    assert_eq!(trace(|| cpu.fence()).len(), 1);
}

/// Non-temporal stores are overtaken by a later store unless something orders them: another
/// thread that finds the flag must find the bytes. Bounded by time: the threads may have to
/// share a core.
#[test]
fn whoever_sees_a_later_store_sees_the_bytes() {
    // Ends within a line: a line not written to its end stays longest in its buffer.
    const LEN: usize = 2048 + 8;
    const SLOT: usize = 4096;
    const SLOTS: u64 = 64;
    let pages = Pages::new(SLOTS as usize * SLOT);
    let base = pages.0 as usize;
    let (flag, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut cpu = arch::select();
    cpu.ways.flush = cpu.ways.flush.min(LEN);
    let cpu = &cpu;
    let slot = |round: u64| (base + (round % SLOTS) as usize * SLOT) as *mut u8;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let round = flag.load(Ordering::Acquire);
                if round == 0 {
                    continue;
                }
                // The bytes stored last are the first to be missed; a later round may have
                // overwritten them.
                // SAFETY: an aligned word within the mapping, which outlives the scope.
                let found = unsafe { cpu.load_u64(slot(round).add(LEN - 8)) }.unwrap();
                assert!(found >= round, "found {found}, but the flag says {round}");
            }
        });
        for round in 1_u64.. {
            let source = [round; LEN / 8];
            let (to, from) = (slot(round), source.as_ptr().cast());
            // SAFETY: within the mapping.
            let stored = unsafe {
                match round % 3 {
                    0 => cpu.store_flush(to, from, LEN),
                    1 => cpu.store_flush(to.add(LEN - 64), from, 64),
                    _ => cpu.store_persist(to, from, LEN),
                }
            };
            assert_eq!(stored, written_back(LEN));
            flag.store(round, Ordering::Release);
            if round % 64 == 0 && std::time::Instant::now() > until {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Ends the reader of the next test also when the writer fails.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One thread writes words whose eight bytes are equal, another reads them: a torn word would
/// show two values.
#[test]
fn aligned_words_are_never_torn_between_threads() {
    let mut pages = Pages::new(16384);
    pages.bytes().fill(0);
    let cpu = Cpu::get();
    let stop = AtomicBool::new(false);
    let reads = AtomicU64::new(0);
    let base = pages.0 as usize;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0_u8; 4096];
            while !stop.load(Ordering::Relaxed) {
                // From an odd address on, so that the routine aligns itself.
                // SAFETY: within the mapping, which outlives the scope.
                unsafe { cpu.load(buffer.as_mut_ptr(), (base + 3) as *const u8, 4093) }.unwrap();
                for word in buffer[5..4093].chunks_exact(8) {
                    assert!(word.iter().all(|b| *b == word[0]), "torn word {word:?}");
                }
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stop = Raise(&stop);
        let mut value = 0_u8;
        for round in 0_usize.. {
            if reads.load(Ordering::Relaxed) >= 20_000 || round >= 2_000_000 {
                break;
            }
            value = value.wrapping_add(1);
            let source = vec![value; 4096];
            let offset = [0, 1, 4, 7][round % 4];
            let len = 4096 - offset - [0, 3][round % 2];
            // Partial words at the edges take the old value's bytes: make those words whole.
            // SAFETY: within the mapping.
            unsafe {
                let whole = (8 - offset) % 8;
                let result = cpu.store_flush(
                    (base + offset + whole) as *mut u8,
                    source.as_ptr(),
                    (len - whole) & !7,
                );
                assert_eq!(result, written_back(len));
            }
        }
    });
    assert!(reads.load(Ordering::Relaxed) > 0, "the reader never ran");
}
