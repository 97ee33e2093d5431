//! The backends of this machine, each put through the conformance suite.

use std::io::Write as _;

use daxmap::{Backend, Durability, Emulation, Granularity, Options};
use pmem_tests::conformance::{Facts, FileSubject, MemorySubject, Subject, Verdict, run};
use pmem_tests::passthrough::Habits;
use pmem_tests::scratch::{self, Directory, Filesystem};

/// A directory of the build for temporary files.
const HERE: &str = env!("CARGO_TARGET_TMPDIR");

pub const PAGE_CACHE: Facts = Facts {
    backend: Backend::PageCache,
    durability: Durability::Fsync,
    granularity: Granularity::Page,
    emulated: false,
    len_unit: 1,
    guarded: true,
    writable_views: false,
};

pub const SERVER: Facts = Facts { durability: Durability::Unverified, ..PAGE_CACHE };

pub const VOLATILE: Facts = Facts {
    backend: Backend::Volatile,
    durability: Durability::ProcessOnly,
    granularity: Granularity::Byte,
    emulated: false,
    len_unit: 1,
    guarded: true,
    writable_views: true,
};

pub const ADR: Facts = Facts { granularity: Granularity::CacheLine, emulated: true, ..VOLATILE };

pub const EADR: Facts = Facts { emulated: true, ..VOLATILE };

/// Checks whose question does not arise on the page cache.
const NOT_ON_PAGE_CACHE: &[&str] = &["first_stores", "flush_of_gone_page", "failed_deep_flush"];

/// Checks whose question does not arise where stores go into memory.
const NOT_IN_MEMORY: &[&str] =
    &["drain_of_shortened_file", "failed_sync", "no_drain_without_sync", "failed_deep_flush"];

/// As above, and a flush touches no memory either.
const NOT_WITHOUT_LINES: &[&str] = &[
    "flush_of_gone_page",
    "drain_of_shortened_file",
    "failed_sync",
    "no_drain_without_sync",
    "sync_all_waits",
    "failed_deep_flush",
];

fn passes(subject: &dyn Subject, not_applicable: &[&str]) {
    // Without the guard, the kernel copies in and out of a mapping.
    let facts = subject.facts();
    let kernel_copies = !facts.guarded && facts.backend != Backend::PageCache;
    let mut expected: Vec<&str> = not_applicable.to_vec();
    if kernel_copies {
        expected.insert(0, "written_words_whole");
    }
    let outcomes = run(subject);
    let mut failed = 0;
    let mut left_out = Vec::new();
    for outcome in &outcomes {
        match &outcome.verdict {
            Verdict::Passed => continue,
            Verdict::Failed(_) => failed += 1,
            Verdict::NotApplicable(_) => left_out.push(outcome.check),
        }
        println!("{}: {outcome}", subject.name());
    }
    let slowest = outcomes.iter().max_by_key(|outcome| outcome.took).expect("there are checks");
    println!("{}: slowest {} with {:?}", subject.name(), slowest.check, slowest.took);
    println!(
        "{}: {} checks, {failed} failed, {} not applicable",
        subject.name(),
        outcomes.len(),
        left_out.len()
    );
    assert_eq!(failed, 0, "{}: checks failed, listed above", subject.name());
    assert_eq!(left_out, expected, "{}: not applicable", subject.name());
}

fn options(guard: bool) -> Options {
    Options::new().fault_guard(guard)
}

pub fn build_directory(guard: bool) {
    let directory = Directory::new(HERE);
    let report = daxmap::probe::probe(directory.path()).expect("the directory can be probed");
    let filesystem = report.mount.map(|mount| mount.filesystem).unwrap_or_default();
    // Whatever the checkout lies on: known filesystems are held to what is known of them.
    let (facts, left_out) = match filesystem.as_str() {
        "ext4" | "xfs" | "btrfs" => (PAGE_CACHE, NOT_ON_PAGE_CACHE),
        "overlay" => (SERVER, NOT_ON_PAGE_CACHE),
        "tmpfs" => (VOLATILE, NOT_WITHOUT_LINES),
        other => panic!("the build directory lies on {other}: say here what is known of it"),
    };
    let name = format!("build directory ({filesystem})");
    passes(
        &FileSubject::new(
            &name,
            directory.path(),
            options(guard),
            Facts { guarded: guard, ..facts },
        ),
        left_out,
    );
}

fn looped(kind: &str, guard: bool) {
    looped_with(kind, kind, "", guard);
}

fn looped_with(name: &str, kind: &str, mount_options: &str, guard: bool) {
    let filesystem = Filesystem::looped_with(HERE, kind, 400 << 20, mount_options);
    let subject = FileSubject::new(
        name,
        filesystem.path(),
        options(guard),
        Facts { guarded: guard, ..PAGE_CACHE },
    );
    passes(&subject, NOT_ON_PAGE_CACHE);
}

fn looped_writable(kind: &str, guard: bool) {
    let filesystem = Filesystem::looped(HERE, kind, 400 << 20);
    let subject = FileSubject::new(
        &format!("{kind}, writable mapping"),
        filesystem.path(),
        options(guard).writable_mapping(true),
        Facts { guarded: guard, writable_views: true, ..PAGE_CACHE },
    );
    passes(&subject, NOT_ON_PAGE_CACHE);
}

pub fn ext4_writable_mapping(guard: bool) {
    looped_writable("ext4", guard);
}

pub fn xfs_writable_mapping(guard: bool) {
    looped_writable("xfs", guard);
}

pub fn ext4(guard: bool) {
    looped("ext4", guard);
}

pub fn ext4_data_journal(guard: bool) {
    looped_with("ext4 data=journal", "ext4", "data=journal", guard);
}

pub fn ext4_nodelalloc(guard: bool) {
    looped_with("ext4 nodelalloc", "ext4", "nodelalloc", guard);
}

/// Where the kernel has it. A kernel without it says so under the test's name.
pub fn f2fs(guard: bool) {
    if scratch::kernel_has("f2fs") {
        looped("f2fs", guard);
    } else {
        println!("f2fs: not in this kernel (/proc/filesystems, modprobe): not tested");
        let _ = std::io::stderr().write_all(b"f2fs is not in this kernel: not tested\n");
    }
}

pub fn fuse(guard: bool) {
    let filesystem = Filesystem::fuse(HERE);
    let facts = Facts { guarded: guard, ..SERVER };
    passes(&FileSubject::new("FUSE", filesystem.path(), options(guard), facts), NOT_ON_PAGE_CACHE);
}

pub fn fuse_without_links(guard: bool) {
    let habits = Habits { no_links: true, no_rename_flags: true, ..Habits::default() };
    let filesystem = Filesystem::fuse_with(HERE, habits);
    let facts = Facts { guarded: guard, ..SERVER };
    let name = "FUSE without links";
    passes(&FileSubject::new(name, filesystem.path(), options(guard), facts), NOT_ON_PAGE_CACHE);
}

pub fn exfat(guard: bool) {
    let filesystem = Filesystem::exfat(HERE, 400 << 20);
    let facts = Facts { guarded: guard, ..SERVER };
    let name = "exfat by FUSE";
    passes(&FileSubject::new(name, filesystem.path(), options(guard), facts), NOT_ON_PAGE_CACHE);
}

pub fn xfs(guard: bool) {
    looped("xfs", guard);
}

pub fn btrfs(guard: bool) {
    looped("btrfs", guard);
}

pub fn overlay(guard: bool) {
    let below = Filesystem::looped(HERE, "ext4", 64 << 20);
    let overlay = Filesystem::overlay(below.path());
    let subject = FileSubject::new(
        "overlay",
        overlay.path(),
        options(guard),
        Facts { guarded: guard, ..PAGE_CACHE },
    );
    passes(&subject, NOT_ON_PAGE_CACHE);
}

fn on_tmpfs(name: &str, options: Options, facts: Facts, left_out: &[&str]) {
    let tmpfs = Filesystem::tmpfs(HERE, 64 << 20);
    passes(&FileSubject::new(name, tmpfs.path(), options, facts), left_out);
}

pub fn tmpfs(guard: bool) {
    on_tmpfs("tmpfs", options(guard), Facts { guarded: guard, ..VOLATILE }, NOT_WITHOUT_LINES);
}

pub fn emulated_adr(guard: bool) {
    on_tmpfs(
        "emulated ADR",
        options(guard).emulate(Emulation::Adr),
        Facts { guarded: guard, ..ADR },
        NOT_IN_MEMORY,
    );
}

pub fn emulated_eadr(guard: bool) {
    on_tmpfs(
        "emulated eADR",
        options(guard).emulate(Emulation::Eadr),
        Facts { guarded: guard, ..EADR },
        NOT_WITHOUT_LINES,
    );
}

pub fn in_memory(guard: bool) {
    let subject =
        MemorySubject::new("memory", options(guard), Facts { guarded: guard, ..VOLATILE });
    passes(&subject, NOT_WITHOUT_LINES);
}

pub fn in_memory_emulated_adr(guard: bool) {
    let options = options(guard).emulate(Emulation::Adr);
    passes(
        &MemorySubject::new("memory, emulated ADR", options, Facts { guarded: guard, ..ADR }),
        NOT_IN_MEMORY,
    );
}

/// One test for each backend.
macro_rules! on_every_backend {
    (guard: $guard:literal) => {
        common::on_every_backend! { $guard;
            build_directory, ext4, ext4_data_journal, ext4_nodelalloc, ext4_writable_mapping,
            xfs, xfs_writable_mapping, btrfs, f2fs, fuse, fuse_without_links, exfat, overlay, tmpfs, emulated_adr,
            emulated_eadr,
            in_memory, in_memory_emulated_adr,
        }
    };
    ($guard:literal; $($backend:ident,)*) => {
        $(
            #[test]
            fn $backend() {
                common::$backend($guard);
            }
        )*
    };
}
pub(crate) use on_every_backend;
