//! The probe over trees that are not there: captures of an emulated NVDIMM guest, and made-up ones
//! for what no guest can show.

mod bad_memory;
mod caps;
mod capture;
mod devices;
mod guest;
mod layers;
mod memory;
mod nmem;
mod predictions;
mod reasons;
mod remedies;
mod tree;
mod write_cache;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::FileType;

use super::extents::Extent;
use super::gather::Question;
use super::mountinfo::Mounts;
use super::report::{MapSync, Mount, Report};
use super::sources::{FilesystemSize, Number, Sources};
use super::subject::{HandedOn, Stat, Subject};
use crate::cpu::WriteBack;

const EOPNOTSUPP: i32 = 95;

/// A directory that goes with the value.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("daxmap-probe-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file that answers as it is told.
#[derive(Clone, Debug)]
struct FakeFile {
    path: PathBuf,
    missing: bool,
    stat: Stat,
    map_sync: Option<MapSync>,
    filesystem: Option<(u64, u64)>,
    dax_flag: Option<bool>,
    extents: Option<Vec<Extent>>,
    btrfs_uuid: Option<String>,
    writable: bool,
    hands_on: Option<HandedOn>,
    inline: bool,
    size: FilesystemSize,
    write_back: WriteBack,
}

impl FakeFile {
    /// A regular file on this device, refused by the trial mapping as on a disk.
    fn new(path: &str, device: Number) -> Self {
        Self {
            path: PathBuf::from(path),
            missing: false,
            stat: Stat {
                file_type: FileType::RegularFile,
                device,
                node: (0, 0),
                size: 64 << 20,
                mount_id: None,
                dax: Some(false),
                encrypted: false,
                inode: 12,
                blocks: 128 << 10,
            },
            map_sync: Some(MapSync::Refused(EOPNOTSUPP)),
            filesystem: Some((0xef53, 4096)),
            dax_flag: Some(false),
            extents: None,
            btrfs_uuid: None,
            writable: false,
            hands_on: Some(HandedOn::default()),
            inline: false,
            size: FilesystemSize { blocks: 1, ..FilesystemSize::default() },
            write_back: WriteBack::Clwb,
        }
    }

    /// A regular file that the trial mapping accepts, in one aligned extent.
    fn dax(path: &str, device: Number) -> Self {
        let mut file = Self::new(path, device);
        file.stat.dax = Some(true);
        file.map_sync = Some(MapSync::Accepted);
        file.extents = Some(vec![Extent { logical: 0, physical: 256 << 20, len: 64 << 20 }]);
        file
    }

    fn directory(path: &str, device: Number) -> Self {
        let mut file = Self::new(path, device);
        file.stat.file_type = FileType::Directory;
        file
    }

    fn node(path: &str, file_type: FileType, node: Number) -> Self {
        let mut file = Self::new(path, (0, 6));
        file.stat.file_type = file_type;
        file.stat.node = node;
        file
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn probe(&self, root: &TempDir) -> Report {
        let question = Question {
            path: &self.path,
            missing: self.missing,
            page_size: 4096,
            write_back: self.write_back,
        };
        let sources = Sources::tree(&root.0);
        super::inspect(&sources, &Mounts::of(&sources), self, question)
    }
}

impl Subject for FakeFile {
    fn stat(&self) -> Stat {
        self.stat
    }

    fn mount(&self) -> Option<Mount> {
        None
    }

    fn dax_now(&self) -> Option<bool> {
        Some(self.map_sync == Some(MapSync::Accepted))
    }

    fn map_sync(&self, len: usize) -> Option<MapSync> {
        assert!(len.is_power_of_two() && len >= 4096);
        assert!(
            matches!(self.stat.file_type, FileType::RegularFile | FileType::CharacterDevice),
            "nothing else is ever mapped"
        );
        self.map_sync
    }

    fn hands_on(&self) -> Option<HandedOn> {
        self.hands_on
    }

    fn is_inline(&self) -> bool {
        self.inline
    }

    fn filesystem(&self) -> Option<(u64, u64)> {
        self.filesystem
    }

    fn filesystem_size(&self) -> Option<FilesystemSize> {
        Some(self.size)
    }

    fn is_open_for_writing(&self) -> bool {
        self.writable
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }

    fn dax_flag(&self) -> Option<bool> {
        self.dax_flag
    }

    fn extents(&self) -> Option<Vec<Extent>> {
        self.extents.clone()
    }

    fn btrfs_uuid(&self) -> Option<String> {
        self.btrfs_uuid.clone()
    }
}

/// The codes of a report's reasons, in order.
fn codes(report: &Report) -> Vec<&'static str> {
    report.reasons.iter().map(|reason| reason.code.as_str()).collect()
}

#[test]
fn storage_leaves_out_interfaces_and_single_files() {
    let root = TempDir::new();
    root.write(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:5 / /proc rw - proc proc rw\n\
         3 1 0:6 / /dev rw - devtmpfs dev rw\n4 3 0:7 / /dev/shm rw - tmpfs tmpfs rw\n\
         5 3 0:8 / /dev/shm rw - tmpfs tmpfs rw\n6 1 8:1 /hosts /etc/hosts rw - ext4 /dev/sda1 rw\n\
         7 1 8:1 /data /srv/a\\040b rw - ext4 /dev/sda1 rw\n8 1 0:9 /x /net rw - nfs4 s:/x rw\n\
         9 1 0:10 / /sys/fs/cgroup rw - cgroup2 none rw\n",
    );
    let sources = Sources::tree(&root.0);
    let mounts = Mounts::of(&sources);
    let asked = std::cell::RefCell::new(Vec::new());
    let found = super::storage(&mounts, |point| {
        asked.borrow_mut().push(point.to_owned());
        point == Path::new("/etc/hosts")
    });
    assert_eq!(found, ["/", "/dev/shm", "/net", "/srv/a b"].map(PathBuf::from));
    assert!(!asked.borrow().contains(&PathBuf::from("/net")), "a server is not asked");
}
