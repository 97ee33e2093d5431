//! The machine a measurement was made on, and whether its clock means anything.

use std::fs;

/// What a reader of the figures needs to know. No host names.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu: String,
    /// Processors this process may run on.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// Architecture, as the kernel calls it.
    pub architecture: String,
    /// The hypervisor's signature in cpuid, if it shows one.
    pub hypervisor: Option<String>,
    /// The kernel's clock source.
    pub clock_source: Option<String>,
    /// Processes that ran or waited for a disk on average in the last minute.
    pub load: Option<f64>,
    /// Why times here are not results, if they are not.
    pub times_withheld: Option<&'static str>,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let uname = rustix::system::uname();
        let signature = signature();
        Self {
            cpu: cpu_model(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
                .unwrap_or("unknown")
                .to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: uname.release().to_string_lossy().into_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            hypervisor: signature
                .map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()),
            clock_source: fs::read_to_string(
                "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            )
            .ok()
            .map(|text| text.trim().to_owned()),
            load: load(&fs::read_to_string("/proc/loadavg").unwrap_or_default()),
            times_withheld: withhold_times(signature),
        }
    }

    /// True if others used so much of it that times are those of a busy machine.
    pub fn is_busy(&self) -> bool {
        self.load.is_some_and(|load| load > self.cpus as f64 / 2.0)
    }
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let value =
        |line: &'static str| cpuinfo.lines().find(|found| found.starts_with(line))?.split_once(':');
    value("model name").or_else(|| value("CPU part")).map(|(_, model)| model.trim())
}

fn load(loadavg: &str) -> Option<f64> {
    loadavg.split_ascii_whitespace().next()?.parse().ok()
}

/// Decides by the hypervisor's signature whether times are withheld, and why.
///
/// QEMU without hardware virtualisation (TCG) translates each instruction: clwb and sfence cost
/// next to nothing there, system calls a great deal, and neither says anything about hardware.
pub fn withhold_times(signature: Option<[u8; 12]>) -> Option<&'static str> {
    (signature.as_ref() == Some(b"TCGTCGTCGTCG"))
        .then_some("the processor is emulated by QEMU TCG; its times are not those of any hardware")
}

/// Leaf 0x40000000 of cpuid, which processors leave to hypervisors; valid if leaf 1 says that there
/// is one (ECX bit 31).
#[cfg(target_arch = "x86_64")]
fn signature() -> Option<[u8; 12]> {
    use std::arch::x86_64::__cpuid;
    if __cpuid(1).ecx & (1 << 31) == 0 {
        return None;
    }
    let leaf = __cpuid(0x4000_0000);
    let mut signature = [0; 12];
    for (bytes, register) in signature.chunks_exact_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        bytes.copy_from_slice(&register.to_le_bytes());
    }
    Some(signature)
}

/// Other architectures have no such leaf.
#[cfg(not(target_arch = "x86_64"))]
fn signature() -> Option<[u8; 12]> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcg_withholds_times_and_hardware_does_not() {
        assert!(withhold_times(Some(*b"TCGTCGTCGTCG")).is_some());
        assert_eq!(withhold_times(Some(*b"KVMKVMKVM\0\0\0")), None);
        assert_eq!(withhold_times(Some(*b"Microsoft Hv")), None);
        assert_eq!(withhold_times(None), None);
    }

    #[test]
    fn the_model_name_of_either_architecture() {
        let x86 = "processor\t: 0\nmodel name\t: A Processor 7: fast\nflags\t: fpu\n";
        assert_eq!(cpu_model(x86), Some("A Processor 7: fast"));
        assert_eq!(cpu_model("processor\t: 0\nCPU part\t: 0xd0c\n"), Some("0xd0c"));
        assert_eq!(cpu_model(""), None);
    }

    #[test]
    fn a_machine_is_busy_when_half_of_it_is_in_use() {
        let busy = |cpus, load| Machine { cpus, load, ..Machine::here() }.is_busy();
        assert!(!busy(8, None) && !busy(8, Some(0.0)) && !busy(8, Some(4.0)));
        assert!(busy(8, Some(4.1)) && busy(8, Some(30.0)) && busy(1, Some(0.6)));
    }

    /// The kernel has asked the processor too.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_hypervisor_shows_a_signature() {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
        let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
        let flags = flags.next().unwrap();
        let shown = signature();
        assert_eq!(
            shown.is_some(),
            flags.split_ascii_whitespace().any(|flag| flag == "hypervisor")
        );
        assert!(shown.is_none_or(|bytes| bytes[0].is_ascii_graphic()), "{shown:?}");
    }

    #[test]
    fn the_load_of_the_last_minute() {
        assert_eq!(load("9.13 6.65 4.02 12/146 22362\n"), Some(9.13));
        assert_eq!(load(""), None);
    }
}
