//! What the library says of a path, one fact a line.

use std::path::Path;

use daxmap::probe::{self, HugePages, MapSync, Report};
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
