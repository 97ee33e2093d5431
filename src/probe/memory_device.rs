//! The devices of a memory region: which they are, how they are, and how often each lost power
//! before it had saved what it held.

use std::path::PathBuf;

/// One memory device (an NVDIMM, a CXL memory device) that holds a part of a region.
///
/// Every field is what the kernel says; `None` is "not said", never "in order".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryDevice {
    /// Kernel name: `nmem0`. Numbered as the devices were found, so it may change at a boot.
    pub name: String,
    /// Who speaks for it: `nfit` (ACPI), `papr` (POWER), `cxl`; empty if none of them does.
    pub family: String,
    /// Its serial number or the like: the same at every boot, in every slot. `nfit/id`, `cxl/id`,
    /// and on POWER the unit's GUID in the device tree.
    pub identity: Option<String>,
    /// The words of `nfit/flags` or `papr/flags`, as the kernel writes them: `not_armed`,
    /// `save_fail`, ... Empty: nothing is wrong. `None`: not readable, or the family has none (CXL).
    pub flags: Option<Vec<String>>,
    /// How often it lost power before everything that counted as persistent was saved.
    pub dirty_shutdown: Option<u64>,
    /// Whether it can be accessed; `None` if it has no security commands, or does not say.
    pub security: Option<Security>,
    /// True if its security state cannot be changed until it is powered off.
    pub frozen: bool,
    /// What should be there to judge the device and could not be read.
    pub unread: Vec<PathBuf>,
}

/// The security state of a memory device, from the best to the worst for what lies on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Security {
    /// No passphrase is set.
    Disabled,
    /// A passphrase is set, and it was given.
    Unlocked,
    /// A state that this version does not know.
    Unknown,
    /// A passphrase is set, and it was not given: the memory cannot be accessed.
    Locked,
    /// The memory is being overwritten: nothing on it stays.
    Erasing,
}

impl Security {
    /// The stable name: `disabled`, `unlocked`, `locked`, `erasing`, `unknown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Unlocked => "unlocked",
            Self::Locked => "locked",
            Self::Erasing => "erasing",
            Self::Unknown => "unknown",
        }
    }
}
