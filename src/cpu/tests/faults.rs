//! Pages that are gone.

use super::*;

fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned() as usize
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
                    assert_eq!(cpu.fill_flush(at, 0, len), Err(Fault), "{case}");
                    assert_eq!(cpu.fill(at, 0, len), Err(Fault), "{case}");
                    assert_eq!(cpu.move_flush(at, from, len), Err(Fault), "{case}");
                    let mut large = arch::with(vectors, write_back, false);
                    large.ways.flush = 1;
                    assert_eq!(large.fill_flush(at, 0, len), Err(Fault), "{case}");
                    // Up, within the mapping.
                    assert_eq!(cpu.move_flush(at, at.sub(1), len), Err(Fault), "{case}");
                    assert_eq!(large.move_flush(at, at.sub(1), len), Err(Fault), "{case}");
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
    use arch::Vectors;
    let guarded = |routine: Routine| {
        assert!(arch::GUARDED.iter().any(|known| *known as usize == routine as usize));
    };
    for vectors in [Vectors::Sse2, Vectors::Avx, Vectors::Avx512, Vectors::Wide] {
        for write_back in [WriteBack::Clwb, WriteBack::ClflushOpt, WriteBack::Clflush] {
            let cpu = arch::with(vectors, write_back, true);
            guarded(cpu.store);
            guarded(cpu.load);
            guarded(cpu.store_down.unwrap());
            guarded(cpu.fill.unwrap());
            guarded(cpu.compare_exchange);
            let past = cpu.past.unwrap();
            guarded(past.words);
            guarded(past.direct.unwrap());
            guarded(past.down);
            guarded(past.fill);
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
