//! What instructions mean for durability, and what a trace of them adds up to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use iced_x86::{FlowControl, Instruction, Mnemonic};

use super::trace::{Step, Trace};

/// What an instruction is to persistence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CLWB, CLFLUSHOPT, CLFLUSH.
    WriteBack,
    /// SFENCE.
    StoreFence,
    /// A store past the cache.
    NonTemporal,
    /// Another fence, a locked or a serialising instruction: it orders too, and costs.
    OtherOrder,
    /// A way into the kernel.
    SystemCall,
    /// Everything else.
    Plain,
}

pub fn kind(instruction: &Instruction) -> Kind {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Clwb | M::Clflushopt | M::Clflush => Kind::WriteBack,
        M::Sfence => Kind::StoreFence,
        M::Maskmovdqu
        | M::Vmaskmovdqu
        | M::Movnti
        | M::Movntdq
        | M::Movntps
        | M::Movntpd
        | M::Movntq
        | M::Vmovntdq
        | M::Vmovntps
        | M::Vmovntpd
        | M::Movdir64b => Kind::NonTemporal,
        M::Mfence
        | M::Lfence
        | M::Cpuid
        | M::Serialize
        | M::Rdtscp
        | M::Wbinvd
        | M::Wbnoinvd
        | M::Iretq => Kind::OtherOrder,
        // XCHG with memory locks without a prefix (SDM vol. 2).
        M::Xchg if instruction.op_kinds().any(|op| op == iced_x86::OpKind::Memory) => {
            Kind::OtherOrder
        }
        _ if instruction.has_lock_prefix() => Kind::OtherOrder,
        M::Syscall | M::Sysenter => Kind::SystemCall,
        _ if instruction.flow_control() == FlowControl::Interrupt => Kind::SystemCall,
        _ => Kind::Plain,
    }
}

/// A trace, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times each line of the region was written back, by its number.
    pub written_back: BTreeMap<u64, u64>,
    /// Lines stored through the cache and not written back since.
    pub dirty: BTreeSet<u64>,
    /// Lines written back that nothing had been stored to.
    pub clean_write_backs: BTreeSet<u64>,
    /// Bytes of the region that were stored to, by offset.
    pub stored: BTreeSet<u64>,
    /// Bytes of the region stored past the cache; a masked store counts as a whole.
    pub non_temporal_bytes: u64,
    pub store_fences: u64,
    pub other_order: u64,
    pub system_calls: u64,
    /// Stores and write-backs of the region after the last fence.
    pub after_fence: u64,
    /// Write-backs and non-temporal stores of anything but the region.
    pub elsewhere: u64,
    pub instructions: usize,
}

const LINE: u64 = 64;

impl Tally {
    pub fn of(trace: &Trace) -> Self {
        let mut tally = Self { instructions: trace.steps.len(), ..Self::default() };
        for step in &trace.steps {
            match kind(&step.instruction) {
                Kind::StoreFence => {
                    tally.store_fences += 1;
                    tally.after_fence = 0;
                }
                Kind::OtherOrder => tally.other_order += 1,
                Kind::SystemCall => tally.system_calls += 1,
                Kind::WriteBack => tally.write_back(step, trace),
                Kind::NonTemporal => tally.store(step, trace, true),
                Kind::Plain => tally.store(step, trace, false),
            }
        }
        tally
    }

    fn write_back(&mut self, step: &Step, trace: &Trace) {
        let Some(at) = step.touches.iter().find(|at| trace.region.contains(at)) else {
            self.elsewhere += 1;
            return;
        };
        let line = (at - trace.region.start) / LINE;
        *self.written_back.entry(line).or_default() += 1;
        if !self.dirty.remove(&line) {
            self.clean_write_backs.insert(line);
        }
        self.after_fence += 1;
    }

    fn store(&mut self, step: &Step, trace: &Trace, past_the_cache: bool) {
        let in_region = |(at, _): &&(u64, usize)| trace.region.contains(at);
        let mut stores = step.writes.iter().filter(in_region).peekable();
        if past_the_cache && stores.peek().is_none() {
            self.elsewhere += 1;
        }
        for &(at, bytes) in stores {
            let from = at - trace.region.start;
            let bytes = from..from + bytes as u64;
            if past_the_cache {
                self.non_temporal_bytes += bytes.end - bytes.start;
            } else {
                self.dirty.extend(bytes.start / LINE..=(bytes.end - 1) / LINE);
            }
            self.stored.extend(bytes);
            self.after_fence += 1;
        }
    }

    pub fn write_backs(&self) -> u64 {
        self.written_back.values().sum()
    }

    /// What is wrong with a trace of one durable update; empty if nothing.
    pub fn faults(&self, expected: &Expected) -> Vec<String> {
        let mut faults = Vec::new();
        let mut compare = |what: &str, found: u64, expected: u64| {
            if found != expected {
                faults.push(format!("{what}: {found}, not {expected}"));
            }
        };
        compare("store fences", self.store_fences, 1);
        compare("other fences, locked or serialising instructions", self.other_order, 0);
        compare("system calls", self.system_calls, 0);
        compare("stores or write-backs after the fence", self.after_fence, 0);
        compare("write-backs or non-temporal stores elsewhere", self.elsewhere, 0);
        let missing = expected.stored.clone().filter(|at| !self.stored.contains(at)).count();
        compare("bytes not stored", missing as u64, 0);
        if expected.past_the_cache {
            compare("lines through the cache", self.dirty.len() as u64 + self.write_backs(), 0);
        }
        if expected.eadr {
            compare("write-backs", self.write_backs(), 0);
            return faults;
        }
        compare("lines stored and not written back", self.dirty.len() as u64, 0);
        for (line, times) in &self.written_back {
            compare(&format!("write-backs of line {line}"), *times, 1);
        }
        let flushed: BTreeSet<u64> = expected.flushed.iter().copied().collect();
        if self.clean_write_backs != flushed {
            let found = &self.clean_write_backs;
            faults.push(format!("write-backs without a store: {found:?}, not {flushed:?}"));
        }
        faults
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:4} instructions: {} write-backs, {} bytes past the cache, {} lines left in it, \
             {} store fences, {} other fences or locked, {} system calls, {} stores after the fence",
            self.instructions,
            self.write_backs(),
            self.non_temporal_bytes,
            self.dirty.len(),
            self.store_fences,
            self.other_order,
            self.system_calls,
            self.after_fence,
        )
    }
}

/// What a case must do. By which stores is the library's choice, and the processor's.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Bytes of the region that must be stored, by offset.
    pub stored: Range<u64>,
    /// Lines written back for a store made earlier, by number.
    pub flushed: Vec<u64>,
    /// No byte may go through the cache.
    pub past_the_cache: bool,
    /// The caches are in the persistence domain: no write-back.
    pub eadr: bool,
}
