//! Copies bit for bit, on every alignment, on every routine this processor can run.

use super::*;

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

/// This processor's routines, past the caches and not, and those of others.
fn ways_to_move() -> Vec<(String, Cpu)> {
    let mut all = vec![("of this processor".to_owned(), arch::select())];
    #[cfg(target_arch = "x86_64")]
    all.extend(kinds().into_iter().map(|(v, w, cpu)| (format!("{v:?} {w:?}"), cpu)));
    let past: Vec<(String, Cpu)> = {
        let mut again = vec![("past the caches".to_owned(), arch::select())];
        #[cfg(target_arch = "x86_64")]
        again.extend(kinds().into_iter().map(|(v, w, cpu)| (format!("{v:?} {w:?}, past"), cpu)));
        again.into_iter().filter(|(_, cpu)| cpu.past.is_some()).collect()
    };
    all.extend(past.into_iter().map(|(name, mut cpu)| {
        (cpu.ways.flush, cpu.ways.persist) = (1, 1);
        (name, cpu)
    }));
    all
}

#[test]
fn ranges_that_overlap_are_moved_as_they_were() {
    let mut pages = Pages::new(8192);
    let source = payload(4096);
    for (name, cpu) in ways_to_move() {
        for (at, len) in [
            (0, 1),
            (3, 7),
            (8, 64),
            (1, 63),
            (60, 200),
            (64, 512),
            (5, 777),
            (64, 1024),
            (7, 1600),
        ] {
            for by in [0_isize, 1, 7, 8, 63, 64, 65, 200, 511, 900] {
                for (way, by) in [(0, by), (0, -by), (1, by), (1, -by)] {
                    let (from, to) = (1024 + at, (1024_usize + at).checked_add_signed(by).unwrap());
                    let bytes = &mut pages.bytes()[..4096];
                    bytes.copy_from_slice(&source);
                    let mut expected = source.clone();
                    expected.copy_within(from..from + len, to);
                    let base = bytes.as_mut_ptr();
                    // SAFETY: both ranges lie within the pages.
                    let (to, from) = unsafe { (base.add(to), base.add(from)) };
                    // SAFETY: as above.
                    let moved = unsafe {
                        if way == 1 {
                            cpu.move_store(to, from, len)
                        } else if len % 2 == 0 {
                            cpu.move_flush(to, from, len)
                        } else {
                            cpu.move_persist(to, from, len)
                        }
                    };
                    assert_eq!(moved, if way == 1 { Ok(()) } else { written_back(len) });
                    if moved.is_ok() {
                        assert!(pages.bytes()[..4096] == expected, "{name}: {len} at {at} by {by}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_kind_of_fill_sets_exactly_the_range() {
    let mut pages = Pages::new(8192);
    for (name, cpu) in ways_to_move() {
        for offset in [0, 1, 8, 40, 63] {
            for len in (0..140).chain([192, 512, 513, 576, 1000, 1024, 1100, 4000]) {
                for durable in 0..3 {
                    let window = &mut pages.bytes()[..64 + offset + len + 64];
                    window.fill(GUARD);
                    let to = window[64 + offset..].as_mut_ptr();
                    // SAFETY: within the window.
                    let filled = unsafe {
                        match durable {
                            0 => cpu.fill(to, 0x5a, len),
                            1 => cpu.fill_flush(to, 0x5a, len),
                            _ => cpu.fill_persist(to, 0x5a, len),
                        }
                    };
                    assert_eq!(filled, if durable > 0 { written_back(len) } else { Ok(()) });
                    let inside = 64 + offset..64 + offset + len;
                    for (i, byte) in window.iter().enumerate().filter(|_| filled.is_ok()) {
                        let expected = if inside.contains(&i) { 0x5a } else { GUARD };
                        assert_eq!(*byte, expected, "{name}: byte {i} of {len} at {offset}");
                    }
                }
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
