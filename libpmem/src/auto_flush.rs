//! Whether a power failure flushes the caches (eADR), for every NVDIMM region of the machine.

use std::io;
use std::path::Path;

/// The NVDIMM bus in sysfs.
const DEVICES: &str = "/sys/bus/nd/devices";

/// 1 if there are regions and each names `cpu_cache` as its persistence domain, 0 if one does not or
/// there is none, -1 if one cannot be read.
pub(crate) fn of_every_region() -> i32 {
    in_devices(Path::new(DEVICES))
}

fn in_devices(devices: &Path) -> i32 {
    if !devices.is_dir() {
        return 0;
    }
    let Ok(entries) = devices.read_dir() else { return -1 };
    let mut all = 0;
    for entry in entries {
        let Ok(entry) = entry else { return -1 };
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if !is_link || !entry.file_name().to_string_lossy().contains("region") {
            continue;
        }
        match of_region(&entry.path()) {
            Ok(true) => all = 1,
            Ok(false) => return 0,
            Err(_) => return -1,
        }
    }
    all
}

/// Absent evidence is no evidence: a region without a named domain is not eADR.
fn of_region(region: &Path) -> io::Result<bool> {
    match std::fs::read(region.join("persistence_domain")) {
        Ok(domain) if domain.ends_with(b"\n") => Ok(domain == b"cpu_cache\n"),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_region_has_to_name_the_caches() {
        let root = std::env::temp_dir().join(format!("daxmap-libpmem-{}", std::process::id()));
        let devices = root.join("devices");
        fs::create_dir_all(&devices).unwrap();
        assert_eq!(in_devices(&root.join("none")), 0);
        assert_eq!(in_devices(&devices), 0);
        let region = |name: &str, domain: Option<&str>| {
            let at = root.join("real").join(name);
            fs::create_dir_all(&at).unwrap();
            if let Some(domain) = domain {
                fs::write(at.join("persistence_domain"), domain).unwrap();
            }
            let _ = symlink(&at, devices.join(name));
        };
        // A device that is no region has no say.
        region("nmem0", Some("memory_controller\n"));
        assert_eq!(in_devices(&devices), 0);
        region("region0", Some("cpu_cache\n"));
        assert_eq!(in_devices(&devices), 1);
        region("region1", Some(""));
        assert_eq!(in_devices(&devices), -1);
        region("region1", Some("memory_controller\n"));
        assert_eq!(in_devices(&devices), 0);
        region("region1", Some("cpu_cache\n"));
        assert_eq!(in_devices(&devices), 1);
        // A region of RAM (e820) names none.
        region("region2", None);
        assert_eq!(in_devices(&devices), 0);
        fs::remove_dir_all(&root).unwrap();
    }
}
