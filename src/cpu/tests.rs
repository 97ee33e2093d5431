//! Copies bit for bit, on every alignment, on every routine this processor can run; faults; and
//! words that are never torn.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

const GUARD: u8 = 0xa5;
#[cfg(target_arch = "x86_64")]
const LINE: usize = arch::LINE_SIZE;

/// Bytes that differ from their neighbours and from the guard.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) + 7) as u8 ^ (i >> 8) as u8).collect()
}

/// Set by `ci/aarch64`: the tests run under QEMU's user-mode emulation, of a processor with this
/// write-back instruction and line size.
fn emulated() -> Option<String> {
    std::env::var("DAXMAP_TEST_QEMU_USER").ok()
}

/// What a write-back of `len` bytes of existing memory returns: an error, not a silent no-op,
/// where the processor has no write-back to persistence.
fn written_back(len: usize) -> Result<(), Fault> {
    if Cpu::get().write_back() == WriteBack::None && len > 0 { Err(Fault) } else { Ok(()) }
}

fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned() as usize
}

#[test]
fn the_processor_is_known() {
    let cpu = Cpu::get();
    assert!(cpu.line_size().is_power_of_two() && (16..=2048).contains(&cpu.line_size()));
    assert_eq!(cpu.write_back_lines.is_none(), cpu.write_back() == WriteBack::None);
    if let Some(expected) = emulated() {
        assert_eq!(format!("{}, {}", cpu.write_back(), cpu.line_size()), expected);
    }
}

/// Page-aligned memory: a plain vector would leave the line alignment to chance.
struct Pages(*mut u8, usize);

impl Pages {
    fn new(len: usize) -> Self {
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        Self(base.cast(), len)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped for writing with this length, borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length.
        unsafe { libc::munmap(self.0.cast(), self.1) };
    }
}

/// Every offset in two lines on both sides, every length up to `max`, guard bytes checked.
fn sweep(max: usize, copy: impl Fn(*mut u8, *const u8, usize)) {
    let source = payload(max + 128);
    let mut pages = Pages::new((max + 512).next_multiple_of(4096));
    for to_offset in 0..64 {
        for from_offset in [0, 1, 3, 7, 8, 17, 32, 63] {
            for len in 0..=max {
                let start = 128 + to_offset;
                let window = &mut pages.bytes()[64..start + len + 64];
                window.fill(GUARD);
                copy(window[start - 64..].as_mut_ptr(), source[from_offset..].as_ptr(), len);
                let end = start - 64 + len;
                assert!(window[..start - 64].iter().all(|b| *b == GUARD), "wrote before the range");
                assert_eq!(window[start - 64..end], source[from_offset..from_offset + len]);
                assert!(window[end..].iter().all(|b| *b == GUARD), "wrote past the range");
            }
        }
    }
}

#[test]
fn store_copies_exactly_the_range_at_every_alignment() {
    // SAFETY: `sweep` passes valid ranges that do not overlap.
    sweep(300, |to, from, len| unsafe { Cpu::get().store(to, from, len) }.unwrap());
}

#[test]
fn load_copies_exactly_the_range_at_every_alignment() {
    // SAFETY: as above.
    sweep(300, |to, from, len| unsafe { Cpu::get().load(to, from, len) }.unwrap());
}

#[test]
fn store_flush_copies_exactly_the_range_by_either_kind_of_store() {
    let cpu = Cpu::get();
    for copy in [Cpu::store_flush, Cpu::store_cached_flush, Cpu::store_non_temporal_flush] {
        sweep(300, |to, from, len| {
            // SAFETY: as above.
            assert_eq!(unsafe { copy(cpu, to, from, len) }, written_back(len));
        });
    }
}

/// The routines for every kind of processor that this one can stand for.
#[cfg(target_arch = "x86_64")]
fn kinds() -> Vec<(arch::Vectors, WriteBack, Cpu)> {
    use arch::Vectors;
    let mut vectors = vec![Vectors::Sse2];
    if std::arch::is_x86_feature_detected!("avx") {
        vectors.push(Vectors::Avx);
    }
    if std::arch::is_x86_feature_detected!("avx512f") {
        vectors.push(Vectors::Avx512);
    }
    // A processor that has one of these has those after it.
    let write_backs = [WriteBack::Clwb, WriteBack::ClflushOpt, WriteBack::Clflush];
    let best = write_backs.iter().position(|w| *w == arch::detect()).unwrap();
    let mut kinds = Vec::new();
    for vectors in vectors {
        for write_back in &write_backs[best..] {
            kinds.push((vectors, *write_back, arch::with(vectors, *write_back, 64)));
        }
    }
    kinds
}

/// A copy of a number of bytes, on some kind of processor.
#[cfg(target_arch = "x86_64")]
type CopyOn<'a> = &'a dyn Fn(&Cpu, *mut u8, *const u8, usize) -> Result<(), Fault>;

#[cfg(target_arch = "x86_64")]
#[test]
fn the_routines_for_other_processors_copy_the_same() {
    // SAFETY: as above, for each of them.
    let copies: [CopyOn<'_>; 4] = unsafe {
        [
            &|cpu, to, from, len| cpu.store(to, from, len),
            &|cpu, to, from, len| cpu.load(to, from, len),
            &|cpu, to, from, len| cpu.store_cached_flush(to, from, len),
            &|cpu, to, from, len| cpu.store_non_temporal_flush(to, from, len),
        ]
    };
    for (vectors, write_back, cpu) in kinds() {
        for (i, copy) in copies.iter().enumerate() {
            // The store and load routines do not depend on the write-back.
            if i == 2 || write_back == arch::detect() {
                println!("{vectors:?} {write_back:?}: copy {i}");
                sweep(200, |to, from, len| copy(&cpu, to, from, len).unwrap());
            }
        }
    }
}

/// Lengths around each step of the unrolled loops, from every word offset of a line.
#[cfg(target_arch = "x86_64")]
#[test]
fn long_non_temporal_copies_end_where_they_should() {
    let source = payload(4096);
    let mut pages = Pages::new(8192);
    for (vectors, _, cpu) in kinds() {
        for offset in (0..64).step_by(4) {
            for len in (0..1600).step_by(4).chain(1600..1620).chain([2048, 3000, 4000]) {
                let window = &mut pages.bytes()[..64 + offset + len + 64];
                window.fill(GUARD);
                let to = window[64 + offset..].as_mut_ptr();
                // SAFETY: within the window.
                unsafe { cpu.store_non_temporal_flush(to, source[3..].as_ptr(), len) }.unwrap();
                assert!(window[..64 + offset].iter().all(|b| *b == GUARD), "{vectors:?}");
                assert_eq!(window[64 + offset..][..len], source[3..][..len], "{vectors:?}");
                assert!(window[64 + offset + len..].iter().all(|b| *b == GUARD), "{vectors:?}");
            }
        }
    }
}

#[test]
fn fill_sets_exactly_the_range() {
    let mut pages = Pages::new(4096 * 4);
    for (offset, len) in [(0, 0), (1, 1), (63, 2), (100, 4096), (4095, 8192), (7, 12000), (64, 64)]
    {
        pages.bytes().fill(GUARD);
        // SAFETY: offset + len lies within the mapping.
        let result = unsafe { Cpu::get().fill_flush(pages.0.add(offset), 0x5a, len) };
        assert_eq!(result, written_back(len));
        for (i, byte) in pages.bytes().iter().enumerate() {
            if (offset..offset + len).contains(&i) && result == Err(Fault) {
                // Where the first write-back failed is not promised.
                continue;
            }
            let expected = if (offset..offset + len).contains(&i) { 0x5a } else { GUARD };
            assert_eq!(*byte, expected, "byte {i} of fill({offset}, {len})");
        }
    }
}

#[test]
fn large_copies_with_every_kind_of_edge() {
    let source = payload(3 << 20);
    let mut pages = Pages::new(4 << 20);
    for (offset, len) in [(0, 1 << 20), (1, 1 << 20), (63, (1 << 20) + 1), (8, 3 << 20), (4, 65536)]
    {
        pages.bytes().fill(GUARD);
        // SAFETY: offset + len lies within both.
        let result = unsafe { Cpu::get().store_flush(pages.0.add(offset), source.as_ptr(), len) };
        assert_eq!(result, written_back(len));
        assert!(pages.bytes()[..offset].iter().all(|b| *b == GUARD));
        assert_eq!(pages.bytes()[offset..offset + len], source[..len]);
        assert!(pages.bytes()[offset + len..].iter().all(|b| *b == GUARD));
        let mut back = vec![0; len];
        // SAFETY: as above.
        unsafe { Cpu::get().load(back.as_mut_ptr(), pages.0.add(offset), len) }.unwrap();
        assert_eq!(back, source[..len]);
    }
}

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
    let len = ORDERED_NON_TEMPORAL_MIN.max(CACHED_DOMAIN_NON_TEMPORAL_MIN);
    let pages = Pages::new(len.next_multiple_of(4096));
    let source = payload(len);
    let cpu = Cpu::get();
    for past_the_cache in [false, true] {
        let len = if past_the_cache { len } else { 64 };
        let ordered = u64::from(past_the_cache && cpu.non_temporal.is_some());
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
    use super::stepper::{Kind, trace};
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
                let written_back = |what: &str, steps: &[super::stepper::Step]| {
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
                let copy = cpu.non_temporal.unwrap();
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

/// A fence went missing after a non-temporal copy elsewhere, for five releases.
#[cfg(target_arch = "x86_64")]
#[test]
fn nothing_is_left_to_do_after_a_durable_copy() {
    use super::stepper::{Kind, trace};
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
    const LEN: usize = ORDERED_NON_TEMPORAL_MIN + 8;
    const SLOT: usize = 4096;
    const SLOTS: u64 = 64;
    let pages = Pages::new(SLOTS as usize * SLOT);
    let base = pages.0 as usize;
    let (flag, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let cpu = Cpu::get();
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

/// A file of `pages` pages in memory, mapped, then cut to `left` pages.
fn cut_file(pages: usize, left: usize) -> Pages {
    let page = page_size();
    // SAFETY: plain system calls; the mapping is of a size the file has at that time.
    unsafe {
        let fd = libc::memfd_create(c"cut".as_ptr(), 0);
        assert!(fd >= 0);
        assert_eq!(libc::ftruncate(fd, (pages * page).cast_signed() as i64), 0);
        let base = libc::mmap(
            std::ptr::null_mut(),
            pages * page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            fd,
            0,
        );
        assert_ne!(base, libc::MAP_FAILED);
        assert_eq!(libc::ftruncate(fd, (left * page).cast_signed() as i64), 0);
        libc::close(fd);
        Pages(base.cast(), pages * page)
    }
}

#[test]
fn a_page_that_is_gone_is_an_error_in_every_routine() {
    if arch::GUARDED.is_empty() {
        // No routine has an error exit, and the guard must not claim otherwise.
        assert!(!guard_faults());
        return;
    }
    assert!(guard_faults());
    // User-mode QEMU checks the mapping in DC CVAP, and does not touch the page.
    let flush_of_nothing = if emulated().is_some() { written_back(1) } else { Err(Fault) };
    let page = page_size();
    let mapping = cut_file(4, 2);
    let cpu = Cpu::get();
    let edge = 2 * page;
    let mut buffer = vec![0_u8; page];
    for len in [1, 8, 64, 100, 256, 1024, 4096] {
        for before in [0, 1, 7, 32, 64] {
            if before >= len {
                continue;
            }
            // SAFETY: within the mapping; what lies past the file raises SIGBUS, which is the
            // point.
            unsafe {
                let at = mapping.0.add(edge - before);
                assert_eq!(cpu.load(buffer.as_mut_ptr(), at, len), Err(Fault));
                assert_eq!(cpu.store(at, buffer.as_ptr(), len), Err(Fault));
                assert_eq!(cpu.store_flush(at, buffer.as_ptr(), len), Err(Fault));
                assert_eq!(cpu.store_persist(at, buffer.as_ptr(), len), Err(Fault));
                assert_eq!(cpu.fill_flush(at, 0, len), Err(Fault));
                assert_eq!(cpu.compare_exchange_u64(mapping.0.add(edge), 0, 1), Err(Fault));
                assert_eq!(cpu.flush(at, len), flush_of_nothing);
                let whole = mapping.0.add(edge - page);
                assert_eq!(cpu.load(buffer.as_mut_ptr(), whole, page), Ok(()));
                let result = cpu.store_flush(whole, buffer.as_ptr(), page);
                assert_eq!(result, written_back(page));
                assert_eq!(cpu.flush(whole, page), written_back(page));
            }
        }
    }
    #[cfg(target_arch = "x86_64")]
    for (vectors, write_back, cpu) in kinds() {
        for len in [1, 7, 8, 31, 64, 100, 256, 600, 1024, 2048] {
            for before in [0, 1, 8, 24, 64, 512, 1000] {
                if before >= len {
                    continue;
                }
                let case = format!("{vectors:?} {write_back:?} {len} bytes, {before} before");
                // SAFETY: as above.
                unsafe {
                    let at = mapping.0.add(edge - before);
                    let from = buffer.as_mut_ptr();
                    assert_eq!(cpu.load(from, at, len), Err(Fault), "{case}");
                    assert_eq!(cpu.store(at, from, len), Err(Fault), "{case}");
                    assert_eq!(cpu.store_cached_flush(at, from, len), Err(Fault), "{case}");
                    assert_eq!(cpu.store_non_temporal_flush(at, from, len), Err(Fault), "{case}");
                    assert_eq!(cpu.flush(at, len), Err(Fault), "{case}");
                }
            }
        }
    }
}

/// A routine that is missing in the handler's table kills the process at its first fault.
#[cfg(target_arch = "x86_64")]
#[test]
fn every_routine_in_use_is_known_to_the_handler() {
    let guarded = |routine: Routine| {
        assert!(arch::GUARDED.iter().any(|known| *known as usize == routine as usize));
    };
    for vectors in [arch::Vectors::Sse2, arch::Vectors::Avx, arch::Vectors::Avx512] {
        for write_back in [WriteBack::Clwb, WriteBack::ClflushOpt, WriteBack::Clflush] {
            let cpu = arch::with(vectors, write_back, 64);
            guarded(cpu.store);
            guarded(cpu.load);
            guarded(cpu.compare_exchange);
            guarded(cpu.non_temporal.unwrap());
            guarded(cpu.non_temporal_masked.unwrap());
            guarded(cpu.store_write_back.unwrap());
            guarded(cpu.write_back_lines.unwrap());
        }
    }
}

/// A copy that went on in words before its region's side was aligned would tear them, and no
/// other test would see it: bytes are the same, and an unaligned access is mostly whole by luck.
/// Here the first whole word lies on a page that is gone, so that a fault shows how far the
/// copy came: to that word, and not one byte less.
#[test]
fn words_begin_where_the_region_is_aligned() {
    if !guard_faults() {
        assert!(arch::GUARDED.is_empty());
        return;
    }
    let cpu = Cpu::get();
    let edge = 2 * page_size();
    for head in 0..8 {
        let mut mapping = cut_file(4, 2);
        let source = payload(head + 8);
        // SAFETY: within the mapping; the fault is the point.
        unsafe {
            let at = mapping.0.add(edge - head);
            assert_eq!(cpu.store(at, source.as_ptr(), head + 8), Err(Fault));
            mapping.1 = edge;
            assert_eq!(mapping.bytes()[edge - head..], source[..head], "store, {head} bytes");
            let mut buffer = [GUARD; 16];
            assert_eq!(cpu.load(buffer.as_mut_ptr(), at, head + 8), Err(Fault));
            assert_eq!(buffer[..head], source[..head], "load, {head} bytes");
            assert_eq!(buffer[head..], [GUARD; 16][head..]);
            mapping.1 = 2 * edge;
        }
    }
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
