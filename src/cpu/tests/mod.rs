//! What the tests of the copies share: memory, and every kind of processor that this one can
//! stand for.

mod copies;
mod faults;
mod ordering;

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

#[test]
fn the_processor_is_known() {
    let cpu = Cpu::get();
    assert!(cpu.line_size().is_power_of_two() && (16..=2048).contains(&cpu.line_size()));
    assert_eq!(cpu.write_back_lines.is_none(), cpu.write_back() == WriteBack::None);
    let ways = cpu.ways();
    assert!(ways.persist >= cpu.line_size() && ways.flush >= cpu.line_size(), "{ways}");
    println!("{ways} ({})", ways.basis);
    assert!(Fault.to_string().contains("memory fault"));
    if let Some(expected) = emulated() {
        assert_eq!(format!("{}, {}", cpu.write_back(), cpu.line_size()), expected);
    }
}

#[test]
fn a_write_back_and_ways_can_be_asked_for() {
    let best = WriteBack::detect();
    let asked = Ways { persist: 1, flush: 1, ..Cpu::get().ways() };
    let cpu = Cpu::with(best, asked);
    assert_eq!(cpu.write_back(), best);
    if cpu.past.is_some() {
        assert_eq!((cpu.ways().persist, cpu.ways().flush), (1, 2 * cpu.line_size()));
    }
    // What the processor does not have.
    let lacking = if best == WriteBack::DcCvap { WriteBack::Clwb } else { WriteBack::DcCvap };
    assert_eq!(Cpu::with(lacking, asked).write_back(), best);
    if matches!(best, WriteBack::Clwb | WriteBack::ClflushOpt) {
        assert_eq!(Cpu::with(WriteBack::Clflush, asked).write_back(), WriteBack::Clflush);
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

/// The routines for every kind of processor that this one can stand for.
#[cfg(target_arch = "x86_64")]
fn kinds() -> Vec<(arch::Vectors, WriteBack, Cpu)> {
    use arch::Vectors;
    let mut vectors = vec![Vectors::Sse2];
    if std::arch::is_x86_feature_detected!("avx") {
        vectors.push(Vectors::Avx);
    }
    if std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512vl")
    {
        vectors.extend([Vectors::Avx512, Vectors::Wide]);
    }
    // A processor that has one of these has those after it.
    let write_backs = [WriteBack::Clwb, WriteBack::ClflushOpt, WriteBack::Clflush];
    let best = write_backs.iter().position(|w| *w == arch::detect()).unwrap();
    let mut kinds = Vec::new();
    if arch::has_direct() {
        let mut cpu = arch::with(Vectors::Sse2, write_backs[best], true);
        cpu.ways.direct = usize::MAX;
        kinds.push((Vectors::Sse2, write_backs[best], cpu));
    }
    // Of an AMD processor, lines that are written in part.
    let mut cpu = arch::with(Vectors::Sse2, write_backs[best], false);
    cpu.ways.partial_lines = true;
    kinds.push((Vectors::Sse2, write_backs[best], cpu));
    for vectors in vectors {
        for write_back in &write_backs[best..] {
            kinds.push((vectors, *write_back, arch::with(vectors, *write_back, false)));
        }
    }
    kinds
}
