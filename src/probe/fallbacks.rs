//! What the library does where a filesystem, a kernel or a sandbox lacks an operation.
//!
//! Each way is tried when it is needed, in this order, and the error of the last one is reported,
//! with its system call and errno. `docs/fallbacks.md` has the same table; a test compares them.

use crate::durability::Durability;

/// One operation, and the ways to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fallback {
    /// What is to be done.
    pub operation: &'static str,
    /// How it is done where everything is there.
    pub first: &'static str,
    /// How it is done where that is missing.
    pub second: &'static str,
    /// How it is done where that is missing too; empty if there is no third way.
    pub third: &'static str,
    /// The most that the level can be with the last of these ways; `None` if it stays what it is.
    pub level: Option<Durability>,
    /// What the last way gives up otherwise; empty if nothing.
    pub gives_up: &'static str,
}

const fn same(operation: &'static str, first: &'static str, second: &'static str) -> Fallback {
    Fallback { operation, first, second, third: "", level: None, gives_up: "" }
}

/// A sync of names on a filesystem without fsync of a directory.
pub(crate) const SYNC_NAMES: Fallback = Fallback {
    level: Some(Durability::Unverified),
    gives_up: "no filesystem says what syncfs keeps of names",
    ..same("make a name durable", "`fsync` of the directory", "`syncfs`")
};

/// All of them.
pub const FALLBACKS: &[Fallback] = &[
    same(
        "follow a link",
        "`openat2`, `RESOLVE_NO_MAGICLINKS`",
        "`openat`, `O_PATH` and `O_NOFOLLOW`, part by part",
    ),
    same(
        "open a file that has a lease",
        "`openat`, `O_NONBLOCK`",
        "again, until the kernel ends the lease",
    ),
    Fallback {
        gives_up: "a crash leaves a file with a temporary name",
        ..same("make a file", "`openat`, `O_TMPFILE`", "`openat`, `O_EXCL`, a temporary name")
    },
    Fallback {
        third: "a temporary name from the beginning",
        ..same("name an open file", "`linkat`, `AT_EMPTY_PATH`", "`linkat` of `/proc/self/fd/N`")
    },
    Fallback {
        third: "look and rename, directory locked",
        gives_up: "a file that another program makes between the two is replaced",
        ..same(
            "take a free name",
            "`linkat`; `renameat2`, `RENAME_NOREPLACE`",
            "`linkat`, then `unlinkat`",
        )
    },
    Fallback {
        third: "`renameat`",
        gives_up: "the name may lead nowhere after a power loss",
        ..same(
            "take a name without a journal",
            "`renameat2`, `RENAME_EXCHANGE`",
            "`linkat` of the old version, then `renameat`",
        )
    },
    same(
        "keep the old version",
        "`renameat2`, `RENAME_EXCHANGE`",
        "`linkat` of the old version, then `renameat`",
    ),
    SYNC_NAMES,
    same(
        "make a name durable, directory not readable or file mounted on its name",
        "`fsync` of the directory",
        "`syncfs`",
    ),
    same("allocate", "`fallocate`", "`pwrite` of zeros"),
    same("find what was never written", "`FS_IOC_FIEMAP`", "zeros are written at the beginning"),
    same("ask for free space", "`fstatvfs`", "space is taken, and given back if it is too little"),
    Fallback {
        gives_up: "`slice` and `writable_mapping` are refused",
        ..same("read", "a shared mapping", "`pread`")
    },
    same("ask for a file's length", "`statx`", "`lseek`"),
    same("start write-back at `flush`", "`sync_file_range`", "the next sync does it"),
    Fallback {
        third: "go without",
        level: Some(Durability::Unverified),
        gives_up: "what a failed sync has left in the cache may be shown",
        ..same(
            "show what the medium has, at an opening",
            "`fadvise`, `cachestat`",
            "pages that stay: written with what they show, `fsync`, if locked",
        )
    },
    same(
        "see what the file in place has",
        "`listxattrat`, `file_getattr`",
        "`openat` of it, `flistxattr`, `ioctl`",
    ),
    Fallback {
        gives_up: "`Draft::not_kept` lists what is not kept",
        ..same("hand attributes on", "`fchown`, `fsetxattr`, `fchmod`, `ioctl`", "go without")
    },
    Fallback {
        gives_up: "the page is written twice",
        ..same(
            "replace a page whole (`PageOptions::kernel`)",
            "`pwritev2`, `RWF_ATOMIC`",
            "a record in the file",
        )
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn row(of: &Fallback) -> String {
        let level = of.level.map_or("the same", Durability::as_str);
        let cell = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        format!(
            "| {} | {} | {} | {} | {level} | {} |",
            of.operation,
            of.first,
            of.second,
            cell(of.third),
            cell(of.gives_up)
        )
    }

    #[test]
    fn the_document_has_the_table() {
        let document = include_str!("../../docs/fallbacks.md");
        let found: Vec<&str> =
            document.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
        let expected: Vec<String> = FALLBACKS.iter().map(row).collect();
        assert_eq!(found, expected, "docs/fallbacks.md should have:\n{}", expected.join("\n"));
    }
}
