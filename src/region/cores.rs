//! How does one thread wait for what the other threads of the process flushed?
//!
//! A fence orders the write-backs of its own core alone (SDM vol. 2, SFENCE; Arm ARM, DSB). So the
//! other cores have to fence.
//!
//! # x86-64: the kernel makes them
//!
//! membarrier(2), `MEMBARRIER_CMD_PRIVATE_EXPEDITED`. Take a thread that flushed, on core A, before
//! the call in happens-before order:
//!
//! - A still runs a thread of this process. The kernel interrupts A and waits until A has run
//!   `ipi_mb` (`membarrier_private_expedited`, kernel/sched/membarrier.c, by
//!   `smp_call_function_many` with `wait`), which is `smp_mb`: an instruction with a LOCK prefix
//!   (`__smp_mb`, arch/x86/include/asm/barrier.h). Such an instruction orders the write-backs that
//!   A issued before it as SFENCE does (SDM vol. 2, CLWB and CLFLUSHOPT). It also empties A's
//!   write-combining buffers, where non-temporal stores wait, as does the interrupt itself (SDM vol.
//!   3, "Methods of Caching Available", write combining).
//! - A does not. Then A has switched to another thread since, which takes the lock of its run queue,
//!   by an instruction with a LOCK prefix, after the last instruction of the flushing thread
//!   (`__schedule`, kernel/sched/core.c). A thread that moved to another core has been switched
//!   from A as well. That the kernel sees the switch is what membarrier itself relies on: full
//!   barriers at its start and end, and in the scheduler.
//! - A is the caller's core. The caller fences.
//!
//! Where the kernel has no membarrier (before Linux 4.14, a seccomp filter), each writer fences
//! after its own write-backs, from the opening on. If a filter comes later, the call fails: nobody can say
//! what the other cores have done.
//!
//! # AArch64: each writer fences
//!
//! The kernel's `smp_mb` is DMB there, and completes no DC CVAP: only DSB does (Arm ARM, "Ordering
//! and completion of data and instruction cache instructions"). So each writer has its own DSB after
//! its write-backs, and nothing is left to wait for.
//!
//! Threads of other processes are not covered, nor are those of a forked child.

use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, membarrier};

/// How the write-backs of other threads come to be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherCores {
    /// Whoever waits has the kernel interrupt them.
    Interrupted,
    /// Each has fenced when its flush returns.
    Fenced,
}

impl OtherCores {
    /// Settles it for a region that is opened.
    pub(super) fn arrange() -> Self {
        if cfg!(target_arch = "x86_64")
            && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
        {
            Self::Interrupted
        } else {
            Self::Fenced
        }
    }

    /// Returns once every write-back that another thread issued before, in happens-before order, is
    /// ordered as by a fence of its own.
    pub(super) fn wait(self) -> Result<(), Errno> {
        if self == Self::Fenced {
            return Ok(());
        }
        match membarrier(MembarrierCommand::PrivateExpedited) {
            // Not registered: a process that was made by clone(2) in a way that leaves it out.
            Err(Errno::PERM) => {
                membarrier(MembarrierCommand::RegisterPrivateExpedited)?;
                membarrier(MembarrierCommand::PrivateExpedited)
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_interrupts_other_cores_and_no_other_processor_is_trusted_to() {
        let arranged = OtherCores::arrange();
        if cfg!(target_arch = "x86_64") {
            assert_eq!(arranged, OtherCores::Interrupted);
        } else {
            assert_eq!(arranged, OtherCores::Fenced);
        }
        assert_eq!(arranged.wait(), Ok(()));
    }
}
