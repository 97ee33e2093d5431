//! Reads a capture of the guest (`pmem-tests/fixtures/guest-facts`): records that begin with a line
//! `=== KIND PATH`, whose body is the lines up to the next one.

use std::path::Path;

use rustix::fs::FileType;

use super::{EOPNOTSUPP, FakeFile, TempDir};
use crate::probe::mountinfo::Mounts;
use crate::probe::report::MapSync;
use crate::probe::sources::{Sources, parse_number};

/// A capture laid out as a tree, and the files that were probed in it.
pub(super) struct Capture {
    pub(super) root: TempDir,
    pub(super) files: Vec<FakeFile>,
}

pub(super) fn load(name: &str) -> Capture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("pmem-tests/fixtures/guest-facts")
        .join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let root = TempDir::new();
    let mut probed = Vec::new();
    for record in format!("\n{text}").split("\n=== ").skip(1) {
        let (head, body) = record.split_once('\n').unwrap_or((record, ""));
        let (kind, path) = head.split_once(' ').unwrap();
        match kind {
            "file" => root.write(path, body),
            // What only root may read is left out: the probe must do without.
            "rootfile" | "error" => {}
            "link" => root.link(path, body.trim_end()),
            "node" => root.write(path, body.split_once(' ').unwrap().1),
            "probe" => probed.push((path.to_owned(), body.to_owned())),
            other => panic!("unknown record {other}"),
        }
    }
    let sources = Sources::tree(&root.0);
    let mounts = Mounts::of(&sources);
    let files = probed.iter().map(|(path, body)| file(path, body, &mounts)).collect();
    Capture { root, files }
}

fn file(path: &str, body: &str, mounts: &Mounts) -> FakeFile {
    let value = |name: &str| {
        body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let number = |name| parse_number(value(name)).unwrap_or_default();
    let magic = u64::from_str_radix(value("f_type").trim_start_matches("0x"), 16).unwrap_or(0);
    let dax = value("statx_dax") == "1";
    let mut file = FakeFile::new(path, number("st_dev"));
    file.stat.file_type = match value("kind") {
        "block" => FileType::BlockDevice,
        "char" => FileType::CharacterDevice,
        "dir" | "directory" => FileType::Directory,
        _ => FileType::RegularFile,
    };
    file.stat.node = number("st_rdev");
    file.stat.size = value("st_size").parse().unwrap_or(0);
    // The number statx gives is that of the mount the path leads through.
    file.stat.mount_id = mounts.by_path(Path::new(path)).map(|mount| mount.id);
    file.stat.dax = (value("statx_dax_known") == "1").then_some(dax);
    file.map_sync = Some(match value("mmap_shared_validate_sync") {
        "ok" => MapSync::Accepted,
        "EOPNOTSUPP" => MapSync::Refused(EOPNOTSUPP),
        "" => MapSync::NotTried(30),
        other => panic!("{path}: {other}"),
    });
    file.dax_flag = Some(dax);
    file.filesystem = Some((magic, 4096));
    file
}
