//! What the library says of a path, one fact a line.

use std::path::Path;

use daxmap::probe::{self, BadMemory, HugePages, MapSync, Report};
use daxmap::{Durability, Options, Region};

/// Prints the report of a path.
pub(crate) fn print(path: &Path) -> daxmap::Result<()> {
    print_report(&probe::probe(path)?);
    Ok(())
}

/// Creates a region of `len` bytes, writes a line of it durably, and prints the report it has.
pub(crate) fn create(path: &Path, len: u64) -> daxmap::Result<()> {
    let region = Options::new().len(len).create(path)?;
    region.write_persist(64, b"created in the guest")?;
    print_report(region.report());
    println!("region_backend={}", region.backend());
    println!("region_durability={}", region.durability());
    println!("region_granularity={}", region.granularity());
    println!("region_emulated={}", region.is_emulated());
    region.close()
}

/// Asks for the strongest level and prints what comes of it; the file must not be made.
pub(crate) fn require(path: &Path) -> daxmap::Result<()> {
    println!("path={}", path.display());
    match Options::new().len(1 << 20).require(Durability::PowerFail).create(path) {
        Ok(region) => {
            println!("required={}", region.durability());
            region.close()
        }
        Err(error) => {
            println!("refused={error}");
            println!("left_behind={}", path.exists());
            Ok(())
        }
    }
}

/// Prints what is known to be bad of a path.
pub(crate) fn print_bad(path: &Path) -> daxmap::Result<()> {
    probe::probe(path)?.bad_memory().iter().for_each(print_bad_memory);
    Ok(())
}

/// The same of all persistent memory.
pub(crate) fn print_all_bad() -> daxmap::Result<()> {
    probe::bad_memory()?.iter().for_each(print_bad_memory);
    Ok(())
}

fn print_bad_memory(bad: &BadMemory) {
    println!("path=bad:{}", bad.name.display());
    println!("kind={}", bad.kind.as_str());
    println!("mounted={}", bad.mount.as_ref().map_or(String::new(), |at| at.display().to_string()));
    let ranges: Vec<_> = bad.ranges.iter().map(|r| format!("{}-{}", r.start, r.end)).collect();
    println!("ranges={}", ranges.join(" "));
    println!("is_complete={}", bad.is_complete);
    let devices = bad.regions.iter().flat_map(|region| &region.devices);
    println!("held_by={}", devices.map(|held| held.name.as_str()).collect::<Vec<_>>().join(" "));
    println!("scrubbed={}", bad.regions.iter().any(|region| region.scrubs.is_some()));
    println!("notes={}", bad.notes.join("; "));
    println!("remedy={}", bad.remedy.as_ref().map_or(String::new(), ToString::to_string));
}

fn print_report(report: &Report) {
    println!("path={}", report.path.display());
    if let Some(mount) = &report.mount {
        println!("filesystem={}", mount.filesystem);
        println!("mount_point={}", mount.point.display());
    }
    if let Some(device) = &report.device {
        println!("device={}", device.name);
    }
    if let Some(namespace) = &report.namespace {
        println!("namespace={}", namespace.mode);
    }
    let providers: Vec<&str> = report.regions.iter().map(|r| r.provider.as_str()).collect();
    println!("providers={}", providers.join(" "));
    println!("statx_dax={}", report.statx_dax.map_or("unknown".to_owned(), |dax| dax.to_string()));
    match report.map_sync {
        MapSync::Accepted => println!("map_sync=accepted"),
        MapSync::Refused(errno) => println!("map_sync=refused {errno}"),
        MapSync::Predicted(yes) => println!("map_sync=predicted {yes}"),
        MapSync::NotTried(errno) => println!("map_sync=not tried {errno}"),
        other => println!("map_sync={other:?}"),
    }
    println!("persistence_domain={}", report.persistence_domain);
    println!("backend={}", report.backend);
    println!("durability={}", report.durability);
    println!("granularity={}", report.granularity);
    println!("write_back={}", report.write_back);
    println!("read_only={}", report.read_only);
    println!(
        "huge_pages={}",
        match report.huge_pages {
            HugePages::Possible { .. } => "possible",
            HugePages::Misaligned { .. } => "misaligned",
            HugePages::NotApplicable => "not applicable",
            _ => "unknown",
        }
    );
    let bad: Vec<String> =
        report.bad_ranges.iter().map(|range| format!("{}-{}", range.start, range.end)).collect();
    println!("bad_ranges={}", bad.join(" "));
    println!("bad_ranges_known={}", report.bad_ranges_known);
    for device in report.regions.iter().flat_map(|region| &region.devices) {
        println!(
            "{}={} flags={} unsafe_shutdowns={} security={}",
            device.name,
            device.identity.as_deref().unwrap_or("none"),
            device.flags.as_ref().map_or("none".to_owned(), |flags| flags.join("+")),
            device.dirty_shutdown.map_or("none".to_owned(), |count| count.to_string()),
            device.security.map_or("none", daxmap::probe::Security::as_str),
        );
    }
    let codes: Vec<&str> = report.reasons.iter().map(|reason| reason.code.as_str()).collect();
    println!("reasons={}", codes.join(" "));
    for reason in &report.reasons {
        println!("reason={reason}");
    }
}
