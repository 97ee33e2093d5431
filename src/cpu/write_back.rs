//! Which write-back instruction this processor has.

use std::fmt;
use std::sync::OnceLock;

use super::arch;

/// The instruction that writes a cache line back towards persistence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(clippy::doc_markdown)]
pub enum WriteBack {
    /// x86 CLWB: writes back, may keep the line (SDM vol. 2, cpuid 7.EBX bit 24).
    Clwb,
    /// x86 CLFLUSHOPT: writes back and evicts (cpuid 7.EBX bit 23).
    ClflushOpt,
    /// x86 CLFLUSH: writes back, evicts, and is ordered with other CLFLUSHes (cpuid 1.EDX bit 19).
    Clflush,
    /// Arm DC CVADP: to the point of deep persistence.
    DcCvadp,
    /// Arm DC CVAP: to the point of persistence.
    DcCvap,
    /// No instruction known to reach persistence: mappings cannot be made durable by the CPU.
    None,
}

impl WriteBack {
    /// The name used in reports and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clwb => "clwb",
            Self::ClflushOpt => "clflushopt",
            Self::Clflush => "clflush",
            Self::DcCvadp => "dc cvadp",
            Self::DcCvap => "dc cvap",
            Self::None => "none",
        }
    }

    /// The best instruction this processor offers, found once per process.
    #[must_use]
    pub fn detect() -> Self {
        // Without `Cpu`, which may have to measure.
        static FOUND: OnceLock<WriteBack> = OnceLock::new();
        *FOUND.get_or_init(arch::detect)
    }
}

impl fmt::Display for WriteBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::WriteBack;

    #[test]
    fn names_are_those_of_the_manuals() {
        let all = [
            WriteBack::Clwb,
            WriteBack::ClflushOpt,
            WriteBack::Clflush,
            WriteBack::DcCvadp,
            WriteBack::DcCvap,
            WriteBack::None,
        ];
        let names = all.map(|instruction| format!("{instruction:>10}"));
        let padded =
            ["      clwb", "clflushopt", "   clflush", "  dc cvadp", "   dc cvap", "      none"];
        assert_eq!(names, padded);
    }
}
