//! Everything that detection may look at, as text: the fixtures of its unit tests.
//!
//! The output is a sequence of records. A record begins with a line `=== KIND PATH` and its
//! body is the lines up to the next such line:
//!
//! | kind | body |
//! |---|---|
//! | `probe` | `key=value` lines: statx and trial mappings of that path |
//! | `file` | the contents of that file, which anyone may read |
//! | `rootfile` | the contents of that file, which only root may read |
//! | `link` | the target of that symbolic link, as it is stored |
//! | `node` | `block` or `char`, then `major:minor` |
//! | `error` | why the file could not be read |

use crate::mapping;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Directories of links to devices; each device's own directory is walked.
const BUSES: [&str; 3] = ["/sys/bus/nd/devices", "/sys/bus/dax/devices", "/sys/bus/cxl/devices"];

/// What is taken from the directory of a block device. The rest is statistics and tuning.
const BLOCK_ATTRIBUTES: [&str; 24] = [
    "alignment_offset",
    "badblocks",
    "bdi",
    "bcache/state",
    "cache_type",
    "dev",
    "device",
    "dm/name",
    "dm/uuid",
    "loop/autoclear",
    "loop/backing_file",
    "loop/offset",
    "loop/sizelimit",
    "md/level",
    "partition",
    "queue/dax",
    "queue/fua",
    "queue/logical_block_size",
    "queue/physical_block_size",
    "queue/write_cache",
    "ro",
    "size",
    "start",
    "uevent",
];

/// Attributes that are commands or noise.
const NOT_CAPTURED: [&str; 12] = [
    "modalias",
    "power",
    "bind",
    "unbind",
    "nd",
    "dimm",
    "available_slots",
    "wakeup",
    "firmware_node",
    "physical_node",
    "block",
    "msi_bus",
];

/// Prints the probes of `paths`, then every record the kernel's trees give.
pub fn print(paths: &[String]) -> io::Result<()> {
    for path in paths {
        println!("=== probe {path}");
        mapping::print_probe(Path::new(path))?;
    }
    record("/proc/self/mountinfo");
    record("/proc/cmdline");
    record("/proc/sys/kernel/osrelease");
    for log in sorted(Path::new("/proc/fs/jbd2")) {
        // A directory: that it is there says where the log is.
        record(log.join("info"));
    }
    for filesystem in sorted(Path::new("/proc/fs/ext4")) {
        record(filesystem.join("options"));
    }
    for filesystem in sorted(Path::new("/sys/fs/ext4")) {
        if let Ok(task) = fs::read_to_string(filesystem.join("journal_task")) {
            record(filesystem.join("journal_task"));
            record(Path::new("/proc").join(task.trim()).join("comm"));
        }
    }
    for filesystem in sorted(Path::new("/sys/fs/btrfs")) {
        for device in sorted(&filesystem.join("devices")) {
            record(device);
        }
    }
    let mut seen = BTreeSet::new();
    for bus in BUSES {
        for entry in sorted(Path::new(bus)) {
            record(&entry);
            if let Ok(device) = entry.canonicalize() {
                walk(&device, &mut seen);
            }
        }
    }
    for entry in sorted(Path::new("/sys/class/block")) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unused_loop = name.starts_with("loop") && !entry.join("loop/backing_file").exists();
        if !unused_loop {
            block_device(&entry);
        }
    }
    nodes();
    Ok(())
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

/// One file or link.
fn record(path: impl AsRef<Path>) {
    let path = path.as_ref();
    if let Ok(target) = fs::read_link(path) {
        println!("=== link {}\n{}", path.display(), target.display());
        return;
    }
    match fs::read(path) {
        Ok(bytes) => {
            let public = path.metadata().is_ok_and(|m| m.mode() & 0o004 != 0);
            let kind = if public { "file" } else { "rootfile" };
            println!("=== {kind} {}", path.display());
            let text = String::from_utf8_lossy(&bytes);
            print!("{text}");
            if !text.is_empty() && !text.ends_with('\n') {
                println!();
            }
        }
        Err(error) => println!("=== error {}\n{error}", path.display()),
    }
}

/// Attributes and links of a device and of the devices below it.
fn walk(directory: &Path, seen: &mut BTreeSet<PathBuf>) {
    if !seen.insert(directory.to_owned()) {
        return;
    }
    for entry in sorted(directory) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(metadata) = entry.symlink_metadata() else { continue };
        if NOT_CAPTURED.contains(&name.as_str()) {
            continue;
        }
        if metadata.is_dir() {
            walk(&entry, seen);
        } else if metadata.is_symlink() || metadata.mode() & 0o444 != 0 {
            record(&entry);
        }
    }
}

fn block_device(link: &Path) {
    record(link);
    let Ok(directory) = link.canonicalize() else { return };
    for attribute in BLOCK_ATTRIBUTES {
        let path = directory.join(attribute);
        if path.symlink_metadata().is_ok() {
            record(path);
        }
    }
    for disk in sorted(&directory.join("device/scsi_disk")) {
        record(disk.join("cache_type"));
    }
    for relation in ["slaves", "holders"] {
        for entry in sorted(&directory.join(relation)) {
            record(entry);
        }
    }
    if let Ok(number) = fs::read_to_string(directory.join("dev")) {
        record(Path::new("/sys/dev/block").join(number.trim()));
    }
}

/// Device nodes that a path may name.
fn nodes() {
    for directory in ["/dev", "/dev/mapper"] {
        for entry in sorted(Path::new(directory)) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let wanted = ["pmem", "dax", "dm-", "vd"].iter().any(|p| name.starts_with(p));
            if !wanted && directory == "/dev" {
                continue;
            }
            let Ok(metadata) = entry.symlink_metadata() else { continue };
            let number = mapping::device_number(metadata.rdev());
            let kind = match metadata.file_type() {
                t if t.is_block_device() => "block",
                t if t.is_char_device() => "char",
                _ => {
                    record(&entry);
                    continue;
                }
            };
            println!("=== node {}\n{kind} {number}", entry.display());
            if kind == "char" {
                record(Path::new("/sys/dev/char").join(number));
            }
        }
    }
}
