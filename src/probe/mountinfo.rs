//! The mount table, `/proc/thread-self/mountinfo`.
//!
//! Format: proc(5). Fields are separated by one space each; a space, tab, line end or backslash
//! inside a field is written as a backslash and three octal digits (`fs/proc_namespace.c`,
//! `mangle_path` in `fs/seq_file.c`). A mount may have an empty source, which shows as two spaces.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::report::Mount;
use super::sources::{Number, Sources, parse_number};

/// The mounts this process sees, in the order in which they were made.
///
/// The table is read when it is first asked for something. The first look-up by number parses one line
/// of it; whatever needs more, and every later look-up, parses all of it once and keeps where to find
/// what.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// Where the table is.
    sources: Option<Sources>,
    table: OnceCell<Vec<u8>>,
    /// A mount was looked for by its number.
    asked: Cell<bool>,
    all: OnceCell<All>,
}

/// The whole table, and where to find what in it.
#[derive(Debug, Default)]
struct All {
    mounts: Vec<Mount>,
    by_id: HashMap<u64, usize>,
    /// Of the root of the filesystem on the device, if there is one.
    by_device: HashMap<Number, usize>,
    /// Of several on one point the last, which hides the others.
    by_point: HashMap<PathBuf, usize>,
}

impl All {
    fn parse(table: &[u8]) -> Self {
        let mut all = Self::default();
        for mount in table.split(|&byte| byte == b'\n').filter_map(parse_line) {
            let at = all.mounts.len();
            all.by_id.entry(mount.id).or_insert(at);
            all.by_point.insert(mount.point.clone(), at);
            let first = *all.by_device.entry(mount.device).or_insert(at);
            let is_root = |mount: &Mount| mount.root == Path::new("/");
            if is_root(&mount) && all.mounts.get(first).is_some_and(|first| !is_root(first)) {
                all.by_device.insert(mount.device, at);
            }
            all.mounts.push(mount);
        }
        all
    }
}

impl Mounts {
    /// The table of the thread that first asks, which may be in a mount namespace of its own; a
    /// `/proc` older than that (Linux 3.17) has only that of the process.
    pub(super) fn of(sources: &Sources) -> Self {
        Self { sources: Some(sources.clone()), ..Self::default() }
    }

    /// A table that is given; a line that cannot be understood is left out.
    #[cfg(test)]
    pub(super) fn parse(table: &[u8]) -> Self {
        Self { table: OnceCell::from(table.to_vec()), ..Self::default() }
    }

    fn table(&self) -> &[u8] {
        self.table.get_or_init(|| {
            let Some(sources) = &self.sources else { return Vec::new() };
            let table = sources.table(Path::new("/proc/thread-self/mountinfo"));
            if table.is_empty() {
                return sources.table(Path::new("/proc/self/mountinfo"));
            }
            table
        })
    }

    /// Whether the table was read. It is what was mounted then, and stays so.
    pub(super) fn is_read(&self) -> bool {
        self.table.get().is_some()
    }

    /// Whether there is no table.
    pub(super) fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    fn all(&self) -> &All {
        self.all.get_or_init(|| All::parse(self.table()))
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Mount> {
        self.all().mounts.iter()
    }

    /// The mount with this number (`STATX_MNT_ID`).
    pub(super) fn by_id(&self, id: u64) -> Option<Mount> {
        if self.asked.replace(true) || self.all.get().is_some() {
            let all = self.all();
            return all.mounts.get(*all.by_id.get(&id)?).cloned();
        }
        let begin = format!("{id} ");
        let mut lines = self.table().split(|&byte| byte == b'\n');
        parse_line(lines.find(|line| line.starts_with(begin.as_bytes()))?)
    }

    /// A mount of the filesystem on this device, the one of its root if there is one.
    pub(super) fn by_device(&self, number: Number) -> Option<&Mount> {
        let all = self.all();
        all.mounts.get(*all.by_device.get(&number)?)
    }

    /// The mount that an absolute path without symbolic links lies in: the longest mount point
    /// that is a prefix of it, and of several on one point the last, which hides the others.
    pub(super) fn by_path(&self, path: &Path) -> Option<&Mount> {
        let all = self.all();
        all.mounts.get(path.ancestors().find_map(|point| all.by_point.get(point).copied())?)
    }
}

/// The value of `name=value` among mount options.
pub(super) fn option<'a>(mount: &'a Mount, name: &str) -> Option<&'a str> {
    mount.options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
}

/// Whether an option stands there as it is.
pub(super) fn has_option(mount: &Mount, name: &str) -> bool {
    mount.options.iter().any(|option| option == name)
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let _parent = fields.next()?;
    let device = parse_number(std::str::from_utf8(fields.next()?).ok()?)?;
    let root = unescape_path(fields.next()?);
    let point = unescape_path(fields.next()?);
    let mount_options = fields.next()?;
    // Any number of optional fields, closed by a lone hyphen.
    fields.find(|field| *field == b"-")?;
    let filesystem = unescape_text(fields.next()?);
    let source = unescape_text(fields.next()?);
    let super_options = fields.next().unwrap_or_default();
    if point.as_os_str().is_empty() || filesystem.is_empty() {
        return None;
    }

    let mut options: Vec<String> = Vec::new();
    for option in split_options(mount_options).chain(split_options(super_options)) {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    Some(Mount { id, point, root, filesystem, source, options, device })
}

/// The options of a list. A comma inside a value is escaped, so they are separated first.
pub(super) fn split_options(list: &[u8]) -> impl Iterator<Item = String> {
    list.split(|&byte| byte == b',').filter(|option| !option.is_empty()).map(unescape_text)
}

/// Undoes the octal escapes. A backslash without three octal digits after it stands for itself.
fn unescape(field: &[u8]) -> Vec<u8> {
    let octal = |byte: u8| (b'0'..=b'7').contains(&byte).then(|| u16::from(byte - b'0'));
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [a, b, c, after @ ..] if *first == b'\\' => {
                let number = || Some(octal(*a)? * 64 + octal(*b)? * 8 + octal(*c)?);
                number().and_then(|number| u8::try_from(number).ok()).map(|byte| (byte, after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, tail));
        out.push(byte);
        rest = after;
    }
    out
}

fn unescape_path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

fn unescape_text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(line: &str) -> Mount {
        let mounts = Mounts::parse(line.as_bytes());
        assert_eq!(mounts.iter().count(), 1, "{line}");
        mounts.iter().next().unwrap().clone()
    }

    #[test]
    fn a_device_is_known_by_the_first_mount_of_its_root() {
        let by_device = |roots: &[&str]| {
            let line =
                |(n, root): (usize, &&str)| format!("{n} 0 8:1 {root} /{n} rw - ext4 /dev/x rw\n");
            let table: String = roots.iter().enumerate().map(line).collect();
            Mounts::parse(table.as_bytes()).by_device((8, 1)).map(|mount| mount.id)
        };
        for (roots, expected) in [
            (&["/a", "/b"][..], 0),
            (&["/a", "/", "/b"], 1),
            (&["/", "/a"], 0),
            (&["/", "/"], 0),
            (&["/a", "/", "/"], 1),
        ] {
            assert_eq!(by_device(roots), Some(expected), "{roots:?}");
        }
    }

    #[test]
    fn a_line_without_a_point_or_a_type_is_left_out() {
        for (point, kind, count) in [("/m", "ext4", 1), ("", "ext4", 0), ("/m", "", 0)] {
            let line = format!("1 0 8:1 / {point} rw - {kind} /dev/x rw");
            assert_eq!(Mounts::parse(line.as_bytes()).iter().count(), count, "{line}");
        }
    }

    #[test]
    fn a_table_is_read_when_it_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let path = root.path().join("proc/self/mountinfo");
        std::fs::write(path, "1 0 8:1 / / rw - ext4 /dev/x rw\n").unwrap();
        let mounts = Mounts::of(&Sources::tree(root.path()));
        assert!(!mounts.is_read());
        assert!(!mounts.is_empty() && mounts.is_read());
    }

    #[test]
    fn optional_fields_of_any_number() {
        for optional in ["", "shared:1 ", "shared:1 master:2 ", "propagate_from:3 unbindable "] {
            let mount =
                one(&format!("36 35 98:0 /a /b rw,noatime {optional}- ext4 /dev/x rw,sync"));
            assert_eq!(mount.id, 36);
            assert_eq!(mount.device, (98, 0));
            assert_eq!(mount.root, Path::new("/a"));
            assert_eq!(mount.point, Path::new("/b"));
            assert_eq!(mount.filesystem, "ext4");
            assert_eq!(mount.source, "/dev/x");
            assert_eq!(mount.options, ["rw", "noatime", "sync"]);
        }
    }

    #[test]
    fn escapes() {
        let mount = one(r"1 0 0:1 / /mnt/a\040b\011c\012d\134e rw - 9p host\040share rw,x=a\054b");
        assert_eq!(mount.point, Path::new("/mnt/a b\tc\nd\\e"));
        assert_eq!(mount.source, "host share");
        assert_eq!(mount.options, ["rw", "x=a,b"]);
        assert_eq!(unescape(br"\04 \9 \777 \"), br"\04 \9 \777 \");
    }

    #[test]
    fn empty_source_and_missing_super_options() {
        let mount = one("1 0 0:1 / /mnt ro - tmpfs  rw");
        assert_eq!(
            (mount.source.as_str(), mount.options.as_slice()),
            ("", ["ro".into(), "rw".into()].as_slice())
        );
        assert!(has_option(&mount, "ro"));
        assert_eq!(one("1 0 0:1 / /mnt ro - tmpfs none").options, ["ro"]);
    }

    #[test]
    fn malformed_lines_are_left_out() {
        let table =
            b"\n1 0 0:1 / /a rw - ext4 /dev/a rw\nnonsense\n2 0 zero:1 / /b rw - ext4 s rw\n\
            3 0 0:1 / /c rw shared:1 ext4 s rw\n4 0 0:1 / /d rw - xfs /dev/d rw\n5 0 0:1";
        let points: Vec<_> = Mounts::parse(table).iter().map(|m| m.point.clone()).collect();
        assert_eq!(points, [Path::new("/a"), Path::new("/d")]);
    }

    #[test]
    fn a_long_line_is_read_whole() {
        let lower = (0..4000).map(|i| format!("/lower/{i}")).collect::<Vec<_>>().join(":");
        let mount = one(&format!(
            "1 0 0:9 / /m rw - overlay overlay rw,lowerdir={lower},upperdir=/up,workdir=/w"
        ));
        assert_eq!(option(&mount, "upperdir"), Some("/up"));
        assert_eq!(option(&mount, "lowerdir").map(str::len), Some(lower.len()));
    }

    #[test]
    fn the_last_mount_on_a_point_hides_the_others() {
        let mounts = Mounts::parse(
            b"1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /m rw - xfs b rw\n3 1 8:3 / /m rw - btrfs c rw\n\
              4 1 8:4 / /mm rw - ext4 d rw",
        );
        let id = |path: &str| mounts.by_path(Path::new(path)).unwrap().id;
        assert_eq!([id("/x"), id("/m/f"), id("/mm"), id("/m")], [1, 3, 4, 3]);
    }

    #[test]
    fn by_device_prefers_the_root_of_the_filesystem() {
        let mounts = Mounts::parse(b"1 0 8:1 /sub /a rw - ext4 a rw\n2 0 8:1 / /b rw - ext4 a rw");
        assert_eq!(mounts.by_device((8, 1)).unwrap().id, 2);
        assert!(mounts.by_device((8, 2)).is_none());
    }

    /// The first look-up reads one line, the second the whole table: both say the same.
    #[test]
    fn by_number_with_and_without_the_whole_table() {
        let table = b"1 0 8:1 / / rw - ext4 a rw\n12 1 8:2 / /m rw - xfs b rw\n2 1 8:3 / /n rw - btrfs c rw";
        for id in [1, 2, 12, 3, 0] {
            let mounts = Mounts::parse(table);
            let first = mounts.by_id(id);
            assert!(mounts.all.get().is_none(), "one mount costs one line");
            assert_eq!(mounts.by_id(id), first, "{id}");
            assert!(mounts.all.get().is_some(), "many mounts cost one reading");
            assert_eq!(first.map(|mount| mount.id), [1, 2, 12].contains(&id).then_some(id));
        }
        assert!(Mounts::parse(b"").is_empty() && !Mounts::parse(table).is_empty());
    }

    fn escape(bytes: &[u8]) -> String {
        let parts: Vec<_> = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
        parts.concat()
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(table in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Mounts::parse(&table).iter().count();
        }

        #[test]
        fn nearly_right_lines_are_survived(line in r"[0-9]{0,3} [0-9:]{0,6} [0-9]{0,2}:?[0-9]{0,2} [/a\\ ]{0,9} [a-z, -]{0,30} [- a-z=,\\0-7]{0,40}") {
            let _ = Mounts::parse(line.as_bytes()).iter().count();
        }

        #[test]
        fn what_was_escaped_reads_back(name in proptest::collection::vec(1_u8.., 1..40)) {
            let point: Vec<u8> = [b"/", name.as_slice()].concat();
            let line = format!("7 1 8:1 / {} rw - ext4 /dev/a rw", escape(&point));
            prop_assert_eq!(one(&line).point, PathBuf::from(OsString::from_vec(point)));
        }
    }
}
