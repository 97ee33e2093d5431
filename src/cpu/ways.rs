//! From how many bytes on a copy goes past the caches, and why.
//!
//! By stores and write-backs, or by stores past the caches: which one is faster depends on the size
//! and on the processor. Either is right at every size; only time is at stake. What is known of a
//! processor is in a table beside its routines; where that knows nothing, the ways are measured, once
//! in a process and for 2 ms at most.
//!
//! `DAXMAP_COPIES` in the environment decides instead, so that runs can be compared: `table`,
//! `measure`, or a list as [`Ways`] prints it, such as `persist=512,flush=2048`.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::mm;

use super::{Cpu, arch};

/// The longest that a measurement takes.
const BUDGET: Duration = Duration::from_millis(2);

/// Where the sizes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Basis {
    /// Measured by the authors on a processor of this kind.
    Table(&'static str),
    /// Measured by this process, on memory of its own.
    Measured {
        /// How long it took, in microseconds.
        micros: u32,
    },
    /// `DAXMAP_COPIES`.
    Asked,
    /// Nothing is known, and nothing was measured: sizes that are bad nowhere.
    Unknown,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(kind) => write!(f, "table, {kind}"),
            Self::Measured { micros } => write!(f, "measured in {micros} us"),
            Self::Asked => f.write_str("DAXMAP_COPIES"),
            Self::Unknown => f.write_str("nothing is known of this processor"),
        }
    }
}

/// Sizes in bytes from which on copies go another way. `usize::MAX`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ways {
    /// A copy that is fenced at once ([`Cpu::store_persist`]) goes past the caches.
    pub persist: usize,
    /// One that is not ([`Cpu::store_flush`]) goes past the caches, and is ordered before what the
    /// thread stores later.
    pub flush: usize,
    /// The same where the caches are in the persistence domain.
    pub cached_domain: usize,
    /// What goes past the caches does so by MOVDIR64B up to this size, by vectors above; 0 without
    /// MOVDIR64B.
    pub direct: usize,
    /// A line that is written in part goes past the caches too if its words are whole.
    pub partial_lines: bool,
    /// Where these sizes come from.
    pub basis: Basis,
}

impl Ways {
    /// Sizes that are bad nowhere. `cached_domain` is chosen by measurement (`benches/compare`,
    /// group `eadr`): from here on stores past the caches win on lines that are in them too. 256 KiB
    /// take 15 instead of 22 us on fresh lines and 13 instead of 20 on cached ones; for 64 KiB it is
    /// 3.0 instead of 5.1 us, but 2.9 instead of 2.3. And `flush`: in a batch of sixteen, 4 KiB take
    /// 271 instead of 291 ns with the order; 2 KiB take 183 instead of 133 in a batch, but 184 instead
    /// of 277 alone.
    pub(super) const UNKNOWN: Self = Self {
        persist: 512,
        flush: 2048,
        cached_domain: 256 << 10,
        direct: 0,
        partial_lines: false,
        basis: Basis::Unknown,
    };

    /// Everything by way of the caches.
    #[cfg_attr(target_arch = "x86_64", expect(dead_code, reason = "for the other processors"))]
    pub(super) const CACHED: Self = Self {
        persist: usize::MAX,
        flush: usize::MAX,
        cached_domain: usize::MAX,
        direct: 0,
        partial_lines: false,
        basis: Basis::Table("no stores past the caches"),
    };

    /// The ways of this processor.
    pub(super) fn choose(cpu: &Cpu) -> Self {
        if cpu.past.is_none() {
            return cpu.ways;
        }
        let known = || arch::known().unwrap_or_else(|| measure(cpu).unwrap_or(Self::UNKNOWN));
        let ways = match std::env::var("DAXMAP_COPIES").as_deref() {
            Err(_) => known(),
            Ok("table") => arch::known().unwrap_or(Self::UNKNOWN),
            Ok("measure") => measure(cpu).unwrap_or(Self::UNKNOWN),
            // What cannot be read is as if it were not there; `Basis` shows it.
            Ok(list) => Self::parse(list).unwrap_or_else(known),
        };
        // Shorter ranges need not have a whole line, and would be ordered for nothing.
        Self { flush: ways.flush.max(2 * cpu.line_size), ..ways }
    }

    /// A list as it is printed; what is not named is as in [`UNKNOWN`](Self::UNKNOWN).
    fn parse(list: &str) -> Option<Self> {
        let mut ways = Self { basis: Basis::Asked, ..Self::UNKNOWN };
        for item in list.split(',') {
            let (name, value) = item.trim().split_once('=')?;
            let size = || match value {
                "never" => Some(usize::MAX),
                number => number.parse().ok(),
            };
            match name {
                "persist" => ways.persist = size()?,
                "flush" => ways.flush = size()?,
                "cached-domain" => ways.cached_domain = size()?,
                "direct" => ways.direct = size()?,
                "partial-lines" => ways.partial_lines = value.parse().ok()?,
                _ => return None,
            }
        }
        Some(ways)
    }
}

impl fmt::Display for Ways {
    /// A list that `DAXMAP_COPIES` accepts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = [
            ("persist", self.persist),
            ("flush", self.flush),
            ("cached-domain", self.cached_domain),
            ("direct", self.direct),
        ];
        for (name, size) in sizes {
            match size {
                usize::MAX => write!(f, "{name}=never,")?,
                size => write!(f, "{name}={size},")?,
            }
        }
        write!(f, "partial-lines={}", self.partial_lines)
    }
}

/// Private memory to measure on, the lines of which are handed out once each.
struct Lines {
    base: *mut u8,
    at: usize,
}

impl Lines {
    const BYTES: usize = 2 << 20;

    /// `None` if there is no memory for it.
    fn new() -> Option<Self> {
        let flags = mm::MapFlags::PRIVATE | mm::MapFlags::POPULATE;
        let protection = mm::ProtFlags::READ | mm::ProtFlags::WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let base = unsafe {
            mm::mmap_anonymous(std::ptr::null_mut(), Self::BYTES, protection, flags).ok()?
        };
        // SAFETY: mapped, a multiple of the page size.
        unsafe { arch::evict(base.cast(), Self::BYTES) };
        Some(Self { base: base.cast(), at: 0 })
    }

    /// `len` bytes that nobody had, a multiple of a line.
    fn take(&mut self, len: usize) -> Option<*mut u8> {
        let end = self.at.checked_add(len).filter(|end| *end <= Self::BYTES)?;
        let taken = self.base.wrapping_add(self.at);
        self.at = end;
        Some(taken)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and no pointer into it is left.
        _ = unsafe { mm::munmap(self.base.cast(), Self::BYTES) };
    }
}

/// The sizes that are tried.
const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 2048, 4096];
/// Fewer rounds than this say nothing.
const ROUNDS_MIN: usize = 5;
/// Another way must be so much faster to be taken: 5 %.
const CLEARLY: f64 = 0.95;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Stores and write-backs, each copy with its fence.
    Cached,
    Vectors,
    Direct,
    /// Stores and write-backs, one fence for the batch.
    CachedBatch,
}

/// Waits until what was stored before is where it belongs. SFENCE orders stores and lets everything
/// else go on: a clock that is read after it shows 9 ns for what takes 120 in a row.
fn settle() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// Times every way at every size on lines of its own, and chooses.
fn measure(cpu: &Cpu) -> Option<Ways> {
    let begin = Instant::now();
    let past = cpu.past?;
    let source = [0x5a_u8; SIZES[SIZES.len() - 1]];
    let mut lines = Lines::new()?;
    let mut ways = vec![Way::Cached, Way::Vectors, Way::CachedBatch];
    ways.extend(past.direct.map(|_| Way::Direct));
    let mut times = vec![vec![Vec::new(); SIZES.len()]; ways.len()];
    let mut one = |way: Way, size: usize| -> Option<f64> {
        // Stores past the caches are fast until their buffers are full.
        let copies = if size > 512 { 4 } else { 12 };
        let to = lines.take(copies * size)?;
        settle();
        let start = Instant::now();
        for copy in 0..copies {
            let (to, from) = (to.wrapping_add(copy * size), source.as_ptr());
            // SAFETY: lines of `lines`, which nobody else has; the source is as long as the
            // largest size. Whole lines, as the routines ask.
            unsafe {
                match (way, past.direct) {
                    (Way::Vectors, _) => _ = (past.words)(to, from, size),
                    (Way::Direct, Some(direct)) => _ = direct(to, from, size),
                    _ => _ = cpu.store_cached_flush(to, from, size),
                }
            }
            if way != Way::CachedBatch || copy + 1 == copies {
                arch::fence();
            }
        }
        settle();
        Some(start.elapsed().as_secs_f64())
    };
    let mut rounds = 0;
    'rounds: while begin.elapsed() < BUDGET {
        for (i, size) in SIZES.into_iter().enumerate() {
            for turn in 0..ways.len() {
                let which = (turn + rounds) % ways.len();
                let Some(time) = one(ways[which], size) else { break 'rounds };
                times[which][i].push(time);
            }
        }
        rounds += 1;
    }
    if rounds < ROUNDS_MIN {
        return None;
    }
    let mut median = |way: Way, size: usize| {
        let which = ways.iter().position(|known| *known == way);
        which.map_or(f64::INFINITY, |which| {
            let times = &mut times[which][size];
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
    };
    let table = std::array::from_fn(|size| Times {
        cached: median(Way::Cached, size),
        batch: median(Way::CachedBatch, size),
        vectors: median(Way::Vectors, size),
        direct: median(Way::Direct, size),
    });
    let micros = u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
    Some(Ways { basis: Basis::Measured { micros }, ..decide(&table) })
}

/// What a batch of one size took, each way. Infinite: there is no such way.
#[derive(Clone, Copy)]
struct Times {
    cached: f64,
    batch: f64,
    vectors: f64,
    direct: f64,
}

/// The sizes from which on a way is clearly faster, at each larger one too.
fn decide(times: &[Times; SIZES.len()]) -> Ways {
    let from = |better: &dyn Fn(&Times) -> bool| {
        let count = times.iter().rev().take_while(|times| better(times)).count();
        // If not even the largest, four times as large.
        SIZES.get(SIZES.len() - count).copied().unwrap_or(4 * SIZES[SIZES.len() - 1])
    };
    let persist = from(&|t| t.vectors.min(t.direct) < CLEARLY * t.cached);
    let flush = from(&|t| t.vectors.min(t.direct) < CLEARLY * t.batch);
    let by_direct = SIZES.iter().zip(times).filter(|(size, _)| **size >= persist);
    let direct = by_direct.take_while(|(_, t)| t.direct < CLEARLY * t.vectors).last();
    Ways { persist, flush, direct: direct.map_or(0, |(size, _)| *size), ..Ways::UNKNOWN }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Times = Times { cached: 9.0, batch: 9.0, vectors: 9.0, direct: f64::INFINITY };

    #[test]
    fn what_is_printed_can_be_asked_for() {
        let all = Ways {
            persist: 64,
            flush: usize::MAX,
            cached_domain: 7,
            direct: 256,
            partial_lines: true,
            basis: Basis::Asked,
        };
        for ways in [all, Ways { basis: Basis::Asked, ..Ways::UNKNOWN }] {
            assert_eq!(Ways::parse(&ways.to_string()), Some(ways), "{ways}");
        }
        assert_eq!(Ways::parse("persist=8").unwrap().persist, 8);
        for wrong in ["", "persist", "persist=", "persist=-1", "persist=1,x=2", "partial-lines=1"] {
            assert_eq!(Ways::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_way_is_taken_from_where_it_is_faster_at_every_larger_size() {
        let mut times = [SLOW; SIZES.len()];
        assert_eq!(decide(&times), Ways { persist: 16384, flush: 16384, ..Ways::UNKNOWN });
        // One size alone is an accident; a little is none.
        times[1].vectors = 1.0;
        times[6].vectors = 8.6;
        assert_eq!(decide(&times).persist, 16384);
        times[5].vectors = 8.0;
        times[6].vectors = 8.0;
        assert_eq!(decide(&times), Ways { persist: 2048, flush: 2048, ..Ways::UNKNOWN });
        times[5].batch = 4.0;
        assert_eq!(decide(&times).flush, 4096);
        for time in &mut times {
            time.vectors = 1.0;
        }
        assert_eq!(decide(&times).persist, 64);
        assert_eq!(decide(&times).direct, 0);
        times[0].direct = 0.5;
        times[1].direct = 0.5;
        assert_eq!(decide(&times).direct, 128);
        // Direct alone is better than the caches.
        times[0].vectors = 10.0;
        assert_eq!(decide(&times).persist, 64);
    }

    #[test]
    fn a_measurement_is_short_and_says_what_it_took() {
        let cpu = Cpu::get();
        let begin = Instant::now();
        let measured = measure(cpu);
        let Some(ways) = measured else {
            return assert!(cpu.past.is_none() || begin.elapsed() > BUDGET);
        };
        assert!(cpu.past.is_some());
        let Basis::Measured { micros } = ways.basis else { panic!("{:?}", ways.basis) };
        assert!(u128::from(micros) <= begin.elapsed().as_micros());
        assert!(SIZES.contains(&ways.persist) || ways.persist == 16384, "{ways}");
        assert!(ways.direct == 0 || cpu.past.unwrap().direct.is_some(), "{ways}");
    }
}
