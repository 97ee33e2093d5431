//! The groups: what competes with what, at which sizes.
//!
//! # Safety
//!
//! Every competitor of a group writes to the same region, in the part that its batch was given;
//! offsets are multiples of 64 and end within the span, which is the region's length. `source`
//! is at least as long as the longest operation and aligned to 64.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::Path;

use daxmap::cpu::Cpu;
use daxmap::{AnyRegion, Region};

use super::hand::{self, HANDS};
use super::interleave::{Competitor, Outcome, Plan, run};
use super::libpmem::Libpmem;

/// What every group works with.
pub struct Ground<'a> {
    pub region: &'a AnyRegion,
    pub source: &'a [u8],
    pub libpmem: Option<Libpmem>,
    /// Divides the number of rounds, for a quick look.
    pub hurry: usize,
}

/// Names that the report refers to.
pub const DIRECT: &str = "region";
pub const DIRECT_COPY: &str = "region write_persist";
pub const DYN: &str = "dyn region";
pub const DYN_COPY: &str = "dyn region write_persist";
pub const BARE: &str = "bare asm";
pub const PMEM_PERSIST: &str = "libpmem persist";
pub const PMEM_COPY: &str = "libpmem memcpy_persist";
pub const MEMMAP2: &str = "memmap2 msync";
pub const PMEM_MEMCPY: &str = "memcpy + libpmem persist";
pub const MOVE: &str = "move_persist";
pub const PMEM_MOVE: &str = "libpmem memmove_persist";
pub const FILL: &str = "fill_persist";
pub const PMEM_SET: &str = "libpmem memset_persist";
pub const HAND: &str = "hand: ";
pub const CACHED: &str = "cached";
pub const NON_TEMPORAL: &str = "non-temporal";
pub const ORDERED: &str = "non-temporal, ordered";
pub const PROBE: &str = "probe";
pub const STORES: &str = "stores";

impl Ground<'_> {
    fn base(&self) -> *mut u8 {
        // SAFETY: the slice is dropped at once and only its address is used; nobody else has
        // the region.
        unsafe { self.region.slice_mut(0, self.region.len()) }.expect("mapped").as_mut_ptr()
    }

    fn plan(&self, len: usize) -> Plan {
        let (rounds, ops) = match len {
            0..=127 => (3000, 256),
            128..=511 => (3000, 192),
            512..=2047 => (3000, 128),
            2048..=16383 => (3000, 64),
            16384..=131_071 => (1000, 4),
            131_072..=2_097_151 => (500, 1),
            _ => (100, 1),
        };
        let stride = len.next_multiple_of(64);
        let span = self.region.len() as usize;
        Plan { rounds: (rounds / self.hurry).max(5), ops, stride, len, span }
    }
}

/// `persist` after a store of 8 or 64 bytes, and `write_persist` of the same, on fresh lines.
pub fn persist(ground: &Ground<'_>, len: usize) -> Outcome {
    let plan = ground.plan(len);
    let (base, source) = (ground.base(), ground.source);
    let region = ground.region;
    let through_trait: &dyn Region = black_box(region);
    // Everybody is handed the bytes anew: that alone is two stores, which wait behind the fence.
    let from = move || black_box(&source[..len]);
    // SAFETY: see the module.
    let store = move |at: usize| unsafe {
        if len == 8 {
            hand::store_8(base.add(at), word(from()));
        } else {
            hand::store_64(base.add(at), from().as_ptr());
        }
    };
    // SAFETY: see the module; main has checked for CLWB and AVX.
    let shortest = move |at: usize| unsafe {
        if len == 8 {
            hand::persist_8(base.add(at), word(from()));
        } else {
            hand::persist_64(base.add(at), from().as_ptr());
        }
    };
    let mut competitors = vec![
        each(BARE, plan, shortest),
        each(DIRECT, plan, move |at| {
            store(at);
            region.persist(at as u64, len as u64).expect("persist");
        }),
        each(DIRECT_COPY, plan, move |at| {
            region.write_persist(at as u64, from()).expect("write_persist");
        }),
        each(DYN, plan, move |at| {
            store(at);
            through_trait.persist(at as u64, len as u64).expect("persist");
        }),
        each(DYN_COPY, plan, move |at| {
            through_trait.write_persist(at as u64, from()).expect("write_persist");
        }),
    ];
    if let Some(libpmem) = ground.libpmem {
        competitors.push(each(PMEM_PERSIST, plan, move |at| {
            store(at);
            // SAFETY: see the module.
            unsafe { (libpmem.persist)(base.add(at).cast(), len) };
        }));
        competitors.push(each(PMEM_COPY, plan, move |at| {
            // SAFETY: see the module.
            unsafe {
                (libpmem.memcpy_persist)(base.add(at).cast(), from().as_ptr().cast(), len);
            }
        }));
    }
    run(plan, &mut competitors)
}

/// Durable writes of `len` bytes by everybody.
pub fn durable_write(ground: &Ground<'_>, len: usize) -> Outcome {
    let plan = ground.plan(len);
    let (base, source) = (ground.base(), ground.source);
    let region = ground.region;
    let from = move || black_box(&source[..len]);
    let mut competitors = vec![each(DIRECT_COPY, plan, move |at| {
        region.write_persist(at as u64, from()).expect("write_persist");
    })];
    if let Some(libpmem) = ground.libpmem {
        competitors.push(each(PMEM_COPY, plan, move |at| {
            // SAFETY: see the module.
            unsafe {
                (libpmem.memcpy_persist)(base.add(at).cast(), from().as_ptr().cast(), len);
            }
        }));
        competitors.push(each(PMEM_MEMCPY, plan, move |at| {
            // SAFETY: see the module.
            unsafe {
                libc::memcpy(base.add(at).cast(), from().as_ptr().cast(), len);
                (libpmem.persist)(base.add(at).cast(), len);
            }
        }));
    }
    for hand in HANDS {
        if (hand.available)() {
            competitors.push(each(hand.name, plan, move |at| {
                // SAFETY: see the module; the processor has the instructions.
                unsafe { (hand.copy)(base.add(at), from().as_ptr(), len) };
            }));
        }
    }
    run(plan, &mut competitors)
}

/// The first word of what is to be written.
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// Durable writes at an address and of a length that are multiples of nothing.
pub fn odd(ground: &Ground<'_>, offset: usize, len: usize) -> Outcome {
    let stride = (offset + len).next_multiple_of(64);
    let plan = Plan { stride, len: stride, ..ground.plan(len) };
    let (base, source, region) = (ground.base(), ground.source, ground.region);
    let from = move || black_box(&source[..len]);
    let mut competitors = vec![each(DIRECT_COPY, plan, move |at| {
        region.write_persist((at + offset) as u64, from()).expect("write_persist");
    })];
    if let Some(libpmem) = ground.libpmem {
        competitors.push(each(PMEM_COPY, plan, move |at| {
            // SAFETY: see the module; the stride leaves room for the offset.
            unsafe {
                let to = base.add(at + offset).cast();
                (libpmem.memcpy_persist)(to, from().as_ptr().cast(), len);
            }
        }));
        competitors.push(each(PMEM_MEMCPY, plan, move |at| {
            // SAFETY: as above.
            unsafe {
                let to = base.add(at + offset).cast();
                libc::memcpy(to, from().as_ptr().cast(), len);
                (libpmem.persist)(to, len);
            }
        }));
    }
    run(plan, &mut competitors)
}

/// Moves within the region, up by some bytes: the ranges overlap.
pub fn overlap(ground: &Ground<'_>, by: usize, len: usize) -> Outcome {
    let stride = (by + len).next_multiple_of(64);
    let plan = Plan { stride, len: stride, ..ground.plan(len) };
    let (base, cpu) = (ground.base(), Cpu::get());
    let mut competitors = vec![each(MOVE, plan, move |at| {
        let from = black_box(base.wrapping_add(at));
        // SAFETY: see the module; the stride leaves room for what it moves by.
        unsafe { cpu.move_persist(from.add(by), from, len) }.expect("move");
    })];
    if let Some(libpmem) = ground.libpmem {
        competitors.push(each(PMEM_MOVE, plan, move |at| {
            let from = black_box(base.wrapping_add(at));
            // SAFETY: as above.
            unsafe { (libpmem.memmove_persist)(from.add(by).cast(), from.cast(), len) };
        }));
    }
    run(plan, &mut competitors)
}

/// Sets bytes, durably.
pub fn memset(ground: &Ground<'_>, len: usize) -> Outcome {
    let plan = ground.plan(len);
    let (base, cpu) = (ground.base(), Cpu::get());
    let mut competitors = vec![each(FILL, plan, move |at| {
        // SAFETY: see the module.
        unsafe { cpu.fill_persist(base.add(at), 0x5a, black_box(len)) }.expect("fill");
    })];
    if let Some(libpmem) = ground.libpmem {
        competitors.push(each(PMEM_SET, plan, move |at| {
            // SAFETY: see the module.
            unsafe { (libpmem.memset_persist)(base.add(at).cast(), 0x5a, black_box(len)) };
        }));
    }
    run(plan, &mut competitors)
}

/// memmap2's way to durability, msync of the range, on a memory-backed file: the system call
/// without any device behind it.
pub fn memmap2(ground: &Ground<'_>, len: usize) -> Outcome {
    let plan = ground.plan(len);
    let (region, source) = (ground.region, ground.source);
    // SAFETY: nobody else maps this file, and it keeps its length.
    let mut map = unsafe { memmap2::MmapMut::map_mut(&region.as_fd()) }.expect("mmap");
    let mut competitors = [
        each(DIRECT_COPY, plan, move |at| {
            region.write_persist(at as u64, black_box(&source[..len])).expect("write_persist");
        }),
        each(MEMMAP2, plan, move |at| {
            map[at..at + len].copy_from_slice(black_box(&source[..len]));
            map.flush_range(at, len).expect("msync");
        }),
    ];
    run(plan, &mut competitors)
}

/// Cached stores with write-backs against non-temporal stores, by size; `hot`: on lines that
/// the operation before has just written.
pub fn crossover(ground: &Ground<'_>, len: usize, hot: bool) -> Outcome {
    let plan = ground.plan(len);
    let plan = if hot { Plan { stride: 0, ..plan } } else { plan };
    run(plan, &mut ways(plan, ground.base(), ground.source, len, |_| Cpu::get().fence()))
}

/// What the call through the trait object adds: to a 64-byte `write` without flush on a hot line,
/// where nothing else takes long, and to a `write_persist` of the same.
pub fn trait_object(ground: &Ground<'_>) -> Outcome {
    let plan = Plan { stride: 0, ..ground.plan(64) };
    let (region, source) = (ground.region, ground.source);
    let through_trait: &dyn Region = black_box(region);
    let mut competitors = [
        each(DIRECT, plan, move |at| {
            region.write(at as u64, black_box(&source[..64])).expect("write");
        }),
        each(DYN, plan, move |at| {
            through_trait.write(at as u64, black_box(&source[..64])).expect("write");
        }),
        each(DIRECT_COPY, plan, move |at| {
            region.write_persist(at as u64, black_box(&source[..64])).expect("write_persist");
        }),
        each(DYN_COPY, plan, move |at| {
            through_trait
                .write_persist(at as u64, black_box(&source[..64]))
                .expect("write_persist");
        }),
    ];
    run(plan, &mut competitors)
}

/// As `crossover`, for a range that begins or ends within a line or a word.
pub fn ragged(ground: &Ground<'_>, offset: usize, len: usize) -> Outcome {
    let stride = (offset + len).next_multiple_of(64);
    let plan = Plan { stride, len: stride, ..ground.plan(len) };
    let base = ground.base().wrapping_add(offset);
    run(plan, &mut ways(plan, base, ground.source, len, |_| Cpu::get().fence()))
}

/// As `crossover`, with one fence for sixteen operations; and with a fence after each, as a
/// non-temporal store needs it that other threads are to see in order.
pub fn batch(ground: &Ground<'_>, len: usize) -> Outcome {
    let plan = ground.plan(len);
    let plan = Plan { ops: plan.ops.max(16), ..plan };
    let (base, source, cpu) = (ground.base(), ground.source, Cpu::get());
    let sixteenth = move |at: usize| {
        if at / plan.stride % 16 == 15 {
            cpu.fence();
        }
    };
    let mut competitors = ways(plan, base, source, len, sixteenth);
    competitors.push(each(ORDERED, plan, move |at| {
        // SAFETY: see the module.
        unsafe { cpu.store_non_temporal_flush(base.add(at), source.as_ptr(), len) }.expect("store");
        cpu.fence();
        sixteenth(at);
    }));
    run(plan, &mut competitors)
}

/// As `crossover`, and then every line is read: non-temporal stores leave nothing in the cache.
pub fn read_back(ground: &Ground<'_>, len: usize) -> Outcome {
    let plan = ground.plan(len);
    let base = ground.base();
    let read = move |at: usize| {
        Cpu::get().fence();
        for line in (0..len).step_by(64) {
            // SAFETY: see the module; what was just written is initialised.
            black_box(unsafe { base.add(at + line).read_volatile() });
        }
    };
    run(plan, &mut ways(plan, base, ground.source, len, read))
}

/// What `probe` of a path takes; the region and its lines are not used.
pub fn probe(ground: &Ground<'_>, path: &Path) -> Outcome {
    let plan = Plan { rounds: 50, ops: 1, stride: 0, ..ground.plan(64) };
    let probe = each(PROBE, plan, move |_| {
        black_box(daxmap::probe::probe(black_box(path)).expect("probe"));
    });
    run(plan, &mut [probe])
}

/// Where the caches are in the persistence domain: plain stores against non-temporal ones.
pub fn eadr(ground: &Ground<'_>, len: usize, hot: bool) -> Outcome {
    let plan = ground.plan(len);
    let plan = if hot { Plan { stride: 0, ..plan } } else { plan };
    let (base, source, cpu) = (ground.base(), ground.source, Cpu::get());
    let mut competitors = ways(plan, base, source, len, |_| Cpu::get().fence());
    competitors.remove(0);
    competitors.push(each(STORES, plan, move |at| {
        // SAFETY: see the module.
        unsafe { cpu.store(base.add(at), source.as_ptr(), len) }.expect("store");
        cpu.fence();
    }));
    competitors.push(each("memcpy", plan, move |at| {
        // SAFETY: see the module.
        unsafe { libc::memcpy(base.add(at).cast(), source.as_ptr().cast(), len) };
        cpu.fence();
    }));
    run(plan, &mut competitors)
}

/// The two ways that `cpu` has, each followed by `then`.
fn ways<'a>(
    plan: Plan,
    base: *mut u8,
    source: &'a [u8],
    len: usize,
    then: impl Fn(usize) + Copy + 'a,
) -> Vec<Competitor<'a>> {
    let cpu = Cpu::get();
    vec![
        each(CACHED, plan, move |at| {
            // SAFETY: see the module.
            unsafe { cpu.store_cached_flush(base.add(at), source.as_ptr(), len) }.expect("store");
            then(at);
        }),
        each(NON_TEMPORAL, plan, move |at| {
            // SAFETY: see the module.
            unsafe { cpu.store_non_temporal_flush(base.add(at), source.as_ptr(), len) }
                .expect("store");
            then(at);
        }),
    ]
}

/// A competitor that does one operation at each place of its batch. The loop is in here so that
/// nothing but the operation itself is called through a pointer.
fn each<'a>(name: &str, plan: Plan, mut operation: impl FnMut(usize) + 'a) -> Competitor<'a> {
    Competitor::new(name, move |start, ops| {
        for i in 0..ops {
            operation(start + i * plan.stride);
        }
    })
}
