//! Whether a file can be opened for reading without a trace.
//!
//! Opening a file breaks another's lease for writing on it (fcntl(2), `F_SETLEASE`), also with
//! `O_NONBLOCK`; mapping one is an access, unless it was opened with `O_NOATIME`, which only its owner
//! and root may. So a file is opened only if nobody is known to have a lease on it. `/proc/locks`
//! lists leases (proc(5)), those of processes outside of this process namespace left out; so in any
//! namespace but the first nothing is opened.

use super::sources::Sources;

/// The first process namespace, `PROC_PID_INIT_INO` in include/linux/proc_ns.h.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Whether nobody has a lease or a delegation on the file. If it cannot be told, no.
pub(super) fn is_free_of_leases(sources: &Sources, inode: u64) -> bool {
    let namespace = sources.link_text("/proc/self/ns/pid");
    namespace.as_deref() == Some(FIRST_NAMESPACE)
        && sources.text("/proc/locks").is_some_and(|locks| !is_leased(&locks, inode))
}

/// Lines are like `3: LEASE  ACTIVE    WRITE 1234 fd:01:131 0 EOF` (fs/locks.c `lock_get_status`). The
/// device there is not always that of statx (btrfs), so an inode of another filesystem counts as well.
fn is_leased(locks: &str, inode: u64) -> bool {
    let place = format!(":{inode}");
    locks.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        words.any(|word| word == "LEASE" || word == "DELEG")
            && words.any(|word| word.ends_with(&place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In another process namespace /proc/locks leaves leases out, and without it nothing is known.
    #[test]
    fn only_in_the_first_namespace_is_the_list_whole() {
        for (namespace, locks, inode, free) in [
            (Some(FIRST_NAMESPACE), Some("1: LEASE  ACTIVE  READ 5 08:01:8 0 EOF\n"), 9, true),
            (Some(FIRST_NAMESPACE), Some("1: LEASE  ACTIVE  READ 5 08:01:8 0 EOF\n"), 8, false),
            (Some(FIRST_NAMESPACE), None, 9, false),
            (Some("pid:[4026532201]"), Some(""), 9, false),
            (None, Some(""), 9, false),
        ] {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(root.path().join("proc/self/ns")).unwrap();
            if let Some(namespace) = namespace {
                let link = root.path().join("proc/self/ns/pid");
                std::os::unix::fs::symlink(namespace, link).unwrap();
            }
            if let Some(locks) = locks {
                std::fs::write(root.path().join("proc/locks"), locks).unwrap();
            }
            let found = is_free_of_leases(&Sources::tree(root.path()), inode);
            assert_eq!(found, free, "{namespace:?} {locks:?} {inode}");
        }
    }

    #[test]
    fn leases_are_told_by_inode() {
        let locks = "1: FLOCK  ADVISORY  WRITE 713 fe:00:131 0 EOF\n\
                     2: POSIX  ADVISORY  READ  9 103:02:77 128 128\n\
                     3: LEASE  ACTIVE    WRITE 1234 08:01:131 0 EOF\n\
                     4: DELEG  BREAKING  READ  5 08:01:132 0 EOF\n\
                     4: -> LEASE  ACTIVE  READ  5 259:00:8 0 EOF\n";
        for (inode, leased) in
            [(131, true), (132, true), (8, true), (13, false), (31, false), (77, false), (5, false)]
        {
            assert_eq!(is_leased(locks, inode), leased, "{inode}");
        }
    }
}
