//! What instructions mean for durability, and what a trace of them adds up to.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use iced_x86::{FlowControl, Instruction, Mnemonic};

use super::trace::Trace;

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
        M::Movnti
        | M::Movntdq
        | M::Movntps
        | M::Movntpd
        | M::Movntq
        | M::Vmovntdq
        | M::Vmovntps
        | M::Vmovntpd => Kind::NonTemporal,
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
    /// Bytes of the region stored past the cache.
    pub non_temporal_bytes: u64,
    /// Bytes of the region stored through the cache.
    pub stored_bytes: u64,
    pub store_fences: u64,
    pub other_order: u64,
    pub system_calls: u64,
    /// Stores and write-backs of the region after the last fence.
    pub after_fence: u64,
    /// Write-backs and non-temporal stores of anything but the region.
    pub elsewhere: u64,
    pub instructions: usize,
}

impl Tally {
    pub fn of(trace: &Trace) -> Self {
        let mut tally = Self { instructions: trace.steps.len(), ..Self::default() };
        for step in &trace.steps {
            let kind = kind(&step.instruction);
            let stored = bytes_in(&step.writes, &trace.region);
            let touched = step.touches.iter().find(|at| trace.region.contains(at));
            match kind {
                Kind::StoreFence => {
                    tally.store_fences += 1;
                    tally.after_fence = 0;
                }
                Kind::OtherOrder => tally.other_order += 1,
                Kind::SystemCall => tally.system_calls += 1,
                Kind::WriteBack => match touched {
                    Some(at) => {
                        let line = (at - trace.region.start) / 64;
                        *tally.written_back.entry(line).or_default() += 1;
                        tally.after_fence += 1;
                    }
                    None => tally.elsewhere += 1,
                },
                Kind::NonTemporal if stored == 0 => tally.elsewhere += 1,
                Kind::NonTemporal => tally.non_temporal_bytes += stored,
                Kind::Plain => {}
            }
            if stored > 0 {
                tally.after_fence += 1;
                if kind != Kind::NonTemporal {
                    tally.stored_bytes += stored;
                }
            }
        }
        tally
    }

    pub fn write_backs(&self) -> u64 {
        self.written_back.values().sum()
    }

    /// What is wrong with a trace that must make these lines and bytes durable; empty if nothing.
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
        compare("bytes past the cache", self.non_temporal_bytes, expected.non_temporal_bytes);
        compare("bytes through the cache", self.stored_bytes, expected.stored_bytes);
        compare("write-backs", self.write_backs(), expected.write_backs.len() as u64);
        for line in &expected.write_backs {
            let times = self.written_back.get(line).copied().unwrap_or(0);
            compare(&format!("write-backs of line {line}"), times, 1);
        }
        faults
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:4} instructions, {} write-backs, {} bytes past the cache, {} through it, {} store \
             fences, {} other fences or locked, {} system calls, {} region accesses after the fence",
            self.instructions,
            self.write_backs(),
            self.non_temporal_bytes,
            self.stored_bytes,
            self.store_fences,
            self.other_order,
            self.system_calls,
            self.after_fence,
        )
    }
}

/// What a case must do, exactly.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Lines of the region, by number, each written back once.
    pub write_backs: Vec<u64>,
    pub non_temporal_bytes: u64,
    pub stored_bytes: u64,
}

fn bytes_in(writes: &[(u64, usize)], region: &Range<u64>) -> u64 {
    writes.iter().filter(|(at, _)| region.contains(at)).map(|(_, bytes)| *bytes as u64).sum()
}
