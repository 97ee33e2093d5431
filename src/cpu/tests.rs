//! Copies bit for bit, on every alignment, on every routine this processor can run; faults; and
//! words that are never torn.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

const GUARD: u8 = 0xa5;

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
fn store_flush_copies_exactly_the_range_on_both_sides_of_the_crossover() {
    sweep(300, |to, from, len| {
        // SAFETY: as above.
        assert_eq!(unsafe { Cpu::get().store_flush(to, from, len) }, written_back(len));
    });
    if let Some(non_temporal) = Cpu::get().non_temporal {
        sweep(700, |to, from, len| {
            if len >= 128 {
                // SAFETY: as above, and at least two lines.
                unsafe { Cpu::get().store_non_temporal(non_temporal, to, from, len) }.unwrap();
            } else {
                // SAFETY: as above.
                unsafe { Cpu::get().store(to, from, len) }.unwrap();
            }
        });
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_routines_for_older_processors_copy_the_same() {
    let sse2 = arch::sse2();
    // SAFETY: as above; every x86-64 processor has SSE2.
    sweep(300, |to, from, len| unsafe { sse2.store(to, from, len) }.unwrap());
    // SAFETY: as above.
    sweep(300, |to, from, len| unsafe { sse2.load(to, from, len) }.unwrap());
    sweep(500, |to, from, len| {
        if len >= 128 {
            // SAFETY: as above, and at least two lines.
            unsafe { sse2.store_non_temporal(sse2.non_temporal.unwrap(), to, from, len) }.unwrap();
        } else {
            // SAFETY: as above.
            unsafe { sse2.store_flush(to, from, len) }.unwrap();
        }
    });
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
    {
        let sse2 = arch::sse2();
        // SAFETY: as above.
        unsafe {
            let at = mapping.0.add(edge);
            assert_eq!(sse2.load(buffer.as_mut_ptr(), at, 64), Err(Fault));
            assert_eq!(sse2.store(at, buffer.as_ptr(), 64), Err(Fault));
            assert_eq!(sse2.store_flush(at, buffer.as_ptr(), 2048), Err(Fault));
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
