//! Was the file closed in order, and has nobody changed it since? Then what the page cache shows of it
//! is on the medium, and can stay.
//!
//! A region that is closed without an error leaves a mark with its file, an extended attribute. It
//! names the boot, the file, and how the last write left it:
//!
//! | what | what it keeps out |
//! |---|---|
//! | the boot, `/proc/sys/kernel/random/boot_id` | a mark from before the kernel last started |
//! | device and inode | a copy of the file, attributes and all |
//! | length and time of the last change | who has written since, and may have failed to sync |
//!
//! The mark is taken away by the next opening for writing, before anything is written: a process that
//! is killed leaves none. It needs no sync, for it is worth nothing to a kernel that has not kept it.
//!
//! The time of the last change is exact where the kernel keeps multigrain times (Linux 6.13, ext4,
//! xfs, btrfs). Before, a write within the same tick of the clock (4 ms) goes unnoticed.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use rustix::fs::{self, Stat, XattrFlags};
use rustix::io::Errno;

use super::calls;
use super::identity::Driver;

/// The attribute's name. A file that takes the place of another does not inherit it.
pub(crate) const MARK: &str = "user.daxmap.closed";

/// What is written.
pub(super) struct Mark(String);

/// Longer than any mark.
const MARK_MAX: usize = 256;

/// This boot, as the kernel names it; `None` where it cannot be asked.
fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    BOOT.get_or_init(read).as_deref().map(str::trim).filter(|boot| !boot.is_empty())
}

/// What the mark of such a file says, closed in such a boot.
fn mark(boot: &str, found: &Stat) -> Mark {
    Mark(format!(
        "1 {boot} {} {} {} {} {}",
        found.st_dev, found.st_ino, found.st_size, found.st_mtime, found.st_mtime_nsec
    ))
}

/// The mark of the file as it is now. None on a filesystem whose inode numbers do not tell files
/// apart, and in memory, where there is nothing to be read anew.
pub(super) fn current(fd: BorrowedFd<'_>) -> Option<Mark> {
    let driver = Driver::of(fd).ok()?;
    if !driver.numbers_files() || driver.is_memory() {
        return None;
    }
    Some(mark(boot()?, &calls::fstat(fd).ok()?))
}

/// Leaves the mark with a file that has been synced since the mark was made: whatever was written
/// before is on the medium, and whatever was written after makes it another file. Where there are no
/// extended attributes, the next opening drops what is cached.
pub(super) fn leave(fd: BorrowedFd<'_>, mark: &Mark) {
    let _ = fs::fsetxattr(fd, MARK, mark.0.as_bytes(), XattrFlags::empty());
}

/// Whether the file is as a region that was closed in this boot has left it.
pub(super) fn is_there(fd: BorrowedFd<'_>) -> bool {
    read(fd).is_some_and(|found| current(fd).is_some_and(|mark| mark.0.as_bytes() == found))
}

/// The same, for who is going to write: takes the mark away. False if that cannot be done.
pub(super) fn take(fd: BorrowedFd<'_>) -> bool {
    let Some(found) = read(fd) else { return false };
    let mark = current(fd);
    fs::fremovexattr(fd, MARK).is_ok() && mark.is_some_and(|mark| mark.0.as_bytes() == found)
}

fn read(fd: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let mut found = [0; MARK_MAX];
    match fs::fgetxattr(fd, MARK, &mut found) {
        Ok(len) => Some(found[..len].to_vec()),
        // Not one of ours: to be taken away all the same.
        Err(Errno::RANGE) => Some(Vec::new()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn file() -> File {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all_at(&[7; 8192], 0).unwrap();
        file.sync_all().unwrap();
        file
    }

    fn put(file: &File, mark: &[u8]) {
        fs::fsetxattr(file, MARK, mark, XattrFlags::empty()).unwrap();
    }

    fn leave_current(file: &File) {
        leave(file.as_fd(), &current(file.as_fd()).unwrap());
    }

    #[test]
    fn a_mark_is_believed_once() {
        let file = file();
        assert!(!is_there(file.as_fd()) && !take(file.as_fd()), "nobody has closed it");
        leave_current(&file);
        assert!(is_there(file.as_fd()) && is_there(file.as_fd()), "a reader takes nothing away");
        assert!(take(file.as_fd()));
        assert!(!is_there(file.as_fd()) && !take(file.as_fd()), "it was taken");
    }

    #[test]
    fn whatever_has_changed_a_mark_of_before_is_not_believed() {
        let file = file();
        let changes: [(&str, &dyn Fn()); 3] = [
            ("a write", &|| file.write_all_at(&[8], 0).unwrap()),
            ("the length", &|| file.set_len(9000).unwrap()),
            ("the length back", &|| file.set_len(8192).unwrap()),
        ];
        for (what, change) in changes {
            leave_current(&file);
            // The clock of kernels without multigrain times.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change();
            assert!(!is_there(file.as_fd()), "{what}");
            assert!(!take(file.as_fd()), "{what}");
            assert_eq!(read(file.as_fd()), None, "{what}: taken away nevertheless");
        }
    }

    #[test]
    fn a_mark_of_another_boot_or_file_or_maker_is_not_believed() {
        let (file, other) = (file(), file());
        let boot = boot().unwrap();
        let own = fs::fstat(&file).unwrap();
        let but = |change: &dyn Fn(&mut Stat)| {
            let mut found = fs::fstat(&file).unwrap();
            change(&mut found);
            mark(boot, &found).0
        };
        let of_another = fs::fstat(&other).unwrap();
        put(&file, mark(boot, &own).0.as_bytes());
        assert!(take(file.as_fd()));
        for wrong in [
            mark("7bd0e3a2-0000-4000-8000-000000000000", &own).0,
            mark(boot, &of_another).0,
            but(&|found| found.st_dev += 1),
            but(&|found| found.st_size += 1),
            but(&|found| found.st_mtime += 1),
            but(&|found| found.st_mtime_nsec ^= 1),
            String::new(),
            "x".repeat(300),
        ] {
            put(&file, wrong.as_bytes());
            assert!(!is_there(file.as_fd()) && !take(file.as_fd()), "{wrong}");
            assert_eq!(read(file.as_fd()), None);
        }
    }

    #[test]
    fn memory_has_no_mark() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        assert!(current(file.as_fd()).is_none());
    }
}
