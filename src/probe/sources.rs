//! The seam to `/proc` and `/sys`: everything the probe reads there goes through [`Sources`], so
//! that a made-up tree can stand in for the running system.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// A device number, major and minor.
pub(super) type Number = (u32, u32);

/// No sysfs attribute is longer than a page; anything longer is not one.
const ATTRIBUTE_BYTES_MAX: u64 = 64 << 10;
/// A host with a hundred thousand mounts has about 20 MiB of mountinfo.
const TABLE_BYTES_MAX: u64 = 256 << 20;

/// A tree with `/proc`, `/sys` and `/dev`; the real one has the root `/`.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    root: PathBuf,
}

impl Sources {
    /// The running system.
    pub(super) fn system() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// A made-up tree, laid out as below `/`. Block device nodes are regular files that hold
    /// `major:minor`.
    #[cfg(test)]
    pub(super) fn tree(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn bytes(&self, path: &Path, limit: u64) -> Option<Vec<u8>> {
        let file = File::open(self.real(path)).ok()?;
        let mut bytes = Vec::with_capacity(512);
        file.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// A whole table such as mountinfo; empty if it cannot be read.
    pub(super) fn table(&self, path: &Path) -> Vec<u8> {
        self.bytes(path, TABLE_BYTES_MAX).unwrap_or_default()
    }

    /// A sysfs attribute or a short proc file, without the white space around it. `None` if it is
    /// absent, not readable, or not text.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = String::from_utf8(self.bytes(path.as_ref(), ATTRIBUTE_BYTES_MAX)?).ok()?;
        Some(text.trim().to_owned())
    }

    /// An attribute whose bytes are a path: only the line end is taken off.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let mut bytes = self.bytes(path.as_ref(), ATTRIBUTE_BYTES_MAX)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        (!bytes.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
    }

    /// A decimal attribute.
    pub(super) fn number<T: std::str::FromStr>(&self, path: impl AsRef<Path>) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// An address, hexadecimal with `0x`: `resource` of a region or a namespace, which only root may
    /// read.
    pub(super) fn address(&self, path: impl AsRef<Path>) -> Option<u64> {
        u64::from_str_radix(self.text(path)?.strip_prefix("0x")?, 16).ok()
    }

    /// An attribute that is `0` or `1`.
    pub(super) fn flag(&self, path: impl AsRef<Path>) -> Option<bool> {
        match self.text(path)?.as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    /// A `major:minor` attribute (`dev` in sysfs).
    pub(super) fn device(&self, path: impl AsRef<Path>) -> Option<Number> {
        parse_number(&self.text(path)?)
    }

    /// Where a sysfs link leads, as an absolute path in the tree. sysfs links are relative and lead
    /// to real directories, so `..` is resolved in the text alone.
    pub(super) fn link(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let path = path.as_ref();
        let target = std::fs::read_link(self.real(path)).ok()?;
        let mut out = PathBuf::from("/");
        for part in path.parent()?.components().chain(target.components()) {
            match part {
                Component::RootDir => out = PathBuf::from("/"),
                Component::ParentDir => {
                    out.pop();
                }
                Component::Normal(name) => out.push(name),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Some(out)
    }

    /// What a link holds, as it stands.
    pub(super) fn link_text(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = std::fs::read_link(self.real(path.as_ref())).ok()?;
        Some(target.to_str()?.to_owned())
    }

    /// The last part of a link: for `subsystem` and `driver` links, the name.
    pub(super) fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(self.link(path)?.file_name()?.to_string_lossy().into_owned())
    }

    /// Whether a path certainly leads nowhere; false if that cannot be found out.
    pub(super) fn is_absent(&self, path: &Path) -> bool {
        matches!(
            std::fs::symlink_metadata(self.real(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound
        )
    }

    /// The names in a directory, sorted; empty if it cannot be listed.
    pub(super) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        self.listing(path).unwrap_or_default()
    }

    /// The names in a directory, sorted; `None` if it cannot be listed.
    pub(super) fn listing(&self, path: impl AsRef<Path>) -> Option<Vec<String>> {
        let entries = std::fs::read_dir(self.real(path.as_ref())).ok()?;
        let mut names: Vec<_> = entries
            .map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect::<Option<_>>()?;
        names.sort_unstable();
        Some(names)
    }

    /// The directory of a block device.
    pub(super) fn block_directory(&self, number: Number) -> Option<PathBuf> {
        self.device_directory("/sys/dev/block", "/sys/class/block", number)
    }

    /// The directory of a device-DAX instance; that of any other character device where `/sys/dev`
    /// is not masked.
    /// Whether nothing here tells what a character device is: container runtimes mask either.
    pub(super) fn hides_nodes(&self) -> bool {
        ["/sys/dev/char", "/sys/bus/dax/devices"].iter().all(|path| self.names(path).is_empty())
    }

    pub(super) fn char_directory(&self, number: Number) -> Option<PathBuf> {
        self.device_directory("/sys/dev/char", "/sys/bus/dax/devices", number)
    }

    /// By the link with its number; where a container masks those, by its number among all of its
    /// class.
    fn device_directory(&self, numbers: &str, class: &str, number: Number) -> Option<PathBuf> {
        let link = Path::new(numbers).join(format!("{}:{}", number.0, number.1));
        self.link(link).or_else(|| {
            let class = Path::new(class);
            self.names(class).iter().find_map(|name| {
                let directory = class.join(name);
                let is = self.device(directory.join("dev")) == Some(number);
                if is { self.link(directory) } else { None }
            })
        })
    }

    /// The first of the directories that lead to block devices which cannot be listed or has
    /// nothing in it, as where a container runtime masks it.
    pub(super) fn masked(&self) -> Option<&'static Path> {
        ["/sys", "/sys/dev", "/sys/dev/block", "/sys/class", "/sys/class/block", "/sys/devices"]
            .map(Path::new)
            .into_iter()
            .find(|path| self.names(path).is_empty())
    }

    /// The root of a made-up tree.
    pub(super) fn made_up(&self) -> Option<&Path> {
        (self.root != Path::new("/")).then_some(&self.root)
    }

    /// How large the filesystem at `path` is. In a made-up tree, what `path.statfs` says, if anything.
    pub(super) fn filesystem_size(&self, path: &Path) -> Option<FilesystemSize> {
        if let Some(root) = self.made_up() {
            let path = root.join(path.strip_prefix("/").unwrap_or(path));
            path.symlink_metadata().ok()?;
            let blocks = self.number(format!("{}.statfs", path.display()));
            return Some(FilesystemSize {
                blocks: blocks.unwrap_or(1),
                ..FilesystemSize::default()
            });
        }
        let found = rustix::fs::statfs(path).ok()?;
        Some(FilesystemSize::of(&found))
    }

    /// Whether a path leads to a regular file.
    pub(super) fn is_regular_file(&self, path: &Path) -> bool {
        std::fs::symlink_metadata(self.real(path)).is_ok_and(|found| found.is_file())
    }

    /// Block size in bytes of the filesystem mounted on a local mount point.
    pub(super) fn block_size(&self, point: &Path) -> Option<u64> {
        if self.root != Path::new("/") {
            return None;
        }
        let statfs = rustix::fs::statfs(point).ok()?;
        u64::try_from(statfs.f_bsize).ok()
    }

    /// The device number of a block device node such as `/dev/vda1`; `None` for anything else.
    pub(super) fn block_node(&self, path: &Path) -> Option<Number> {
        if !path.is_absolute() {
            return None;
        }
        if self.root != Path::new("/") {
            return self.device(path);
        }
        let metadata = std::fs::metadata(path).ok()?;
        let number = metadata.rdev();
        metadata
            .file_type()
            .is_block_device()
            .then(|| (rustix::fs::major(number), rustix::fs::minor(number)))
    }

    /// The node of a block device of the running system, opened for reading; `None` if it cannot be, or
    /// is another device's.
    pub(super) fn open_block_node(&self, name: &str, number: Number) -> Option<File> {
        let node = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(self.real(&Path::new("/dev").join(name)))
            .ok()?;
        let found = node.metadata().ok()?;
        let device = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
        (found.file_type().is_block_device() && device == number).then_some(node)
    }
}

/// What `statfs` says of a filesystem's size, which does not change while it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FilesystemSize {
    pub(super) block_bytes: u64,
    pub(super) blocks: u64,
    pub(super) files: u64,
}

impl FilesystemSize {
    pub(super) fn of(found: &rustix::fs::StatFs) -> Self {
        // The kernel's numbers are unsigned; their C type differs among architectures.
        #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
        Self {
            block_bytes: found.f_bsize as u64,
            blocks: found.f_blocks as u64,
            files: found.f_files as u64,
        }
    }
}

/// Reads `major:minor`.
pub(super) fn parse_number(text: &str) -> Option<Number> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_of_another_device_is_not_opened() {
        let sources = Sources::system();
        assert!(sources.open_block_node("null", (1, 3)).is_none(), "a character device");
    }

    #[test]
    fn the_size_of_a_filesystem_has_three_parts() {
        let found = rustix::fs::statfs(env!("CARGO_MANIFEST_DIR")).unwrap();
        let size = FilesystemSize::of(&found);
        assert!(size.block_bytes >= 512 && size.blocks > 1, "{size:?}");
        assert_ne!(size, FilesystemSize { files: size.files + 1, ..size });
    }

    /// A name in /dev may be anything, and a FIFO would be waited for.
    #[test]
    fn a_fifo_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let fifo = root.path().join("dev/sda");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(Sources::tree(root.path()).open_block_node("sda", (8, 0)).is_none());
    }
}
