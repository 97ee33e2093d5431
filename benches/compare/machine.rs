//! Which machine this is, and one core of it to stay on.

#![allow(unsafe_code)]

use std::fs::read_to_string;

use super::libpmem::Libpmem;
use super::stepper::{Kind, trace};

pub fn describe() {
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(": ").map_or("unknown", |(_, value)| value).to_owned()
    };
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "machine: {}, {} cores, Linux {}",
        super::processors::processor(),
        std::thread::available_parallelism().map_or(0, usize::from),
        kernel.trim(),
    );
    let flags = field("flags");
    let has = |flag: &&str| flags.split(' ').any(|f| f == *flag);
    let of_interest = ["clwb", "clflushopt", "avx", "avx512f", "movdir64b", "hypervisor"];
    let present: Vec<&str> = of_interest.into_iter().filter(has).collect();
    println!("processor has: {}", present.join(" "));
    println!("memory: DRAM, emulated persistent memory. These are NOT persistent-memory results.");
    let ways = daxmap::cpu::Cpu::get().ways();
    println!("daxmap: copies past the caches from these sizes on: {ways} ({})", ways.basis);
}

/// What libpmem executes, seen by stepping through it.
pub fn describe_libpmem(libpmem: &Result<Libpmem, String>) {
    let libpmem = match libpmem {
        Ok(libpmem) => libpmem,
        Err(why) => {
            println!("libpmem: NOT COMPARED, cannot be loaded (package libpmem1): {why}");
            return;
        }
    };
    let source = vec![1_u8; 8192];
    let mut target = vec![0_u8; 8192];
    let aligned = target.as_ptr().align_offset(64);
    let to = target[aligned..].as_mut_ptr();
    let summary = |steps: Vec<super::stepper::Step>| {
        let mut kinds: Vec<(Kind, usize)> = Vec::new();
        for step in steps {
            match kinds.iter_mut().find(|(kind, _)| *kind == step.kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((step.kind, 1)),
            }
        }
        let words = kinds.iter().map(|(kind, count)| match kind {
            Kind::NonTemporal(bytes) => format!("{count} x {bytes}-byte non-temporal"),
            kind => format!("{count} x {}", format!("{kind:?}").to_lowercase()),
        });
        words.collect::<Vec<_>>().join(", ")
    };
    for len in [64_usize, 256, 1024] {
        // SAFETY: both buffers have that many bytes.
        let copied = trace(|| unsafe {
            (libpmem.memcpy_persist)(to.cast(), source.as_ptr().cast(), len);
        });
        // SAFETY: as above.
        let persisted = trace(|| unsafe { (libpmem.persist)(to.cast(), len) });
        let (copied, persisted) = (summary(copied), summary(persisted));
        println!("libpmem, {len} B: memcpy_persist {copied}; persist {persisted}");
    }
}

/// Stays on one core, the last that this process may use: a migration in the middle of a batch
/// would cost more than what is measured.
pub fn pin() {
    // SAFETY: a cpu_set_t of zeros is the empty set; the calls get its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, &raw mut set) != 0 {
            return;
        }
        let cores = 0..libc::CPU_SETSIZE as usize;
        if let Some(last) = cores.rev().find(|core| libc::CPU_ISSET(*core, &set)) {
            libc::CPU_ZERO(&mut set);
            libc::CPU_SET(last, &mut set);
            if libc::sched_setaffinity(0, size, &raw const set) == 0 {
                println!("pinned to core {last}");
            }
        }
    }
}
