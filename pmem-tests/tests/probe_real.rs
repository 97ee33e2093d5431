//! The probe on this machine's own filesystems, and on some it makes for the purpose.
//!
//! Those that mount need root, and fail without it: `cargo test -p pmem-tests --test probe_real`.

mod scratch_mounts;

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use daxmap::probe::{self, MapSync, Report, Target};
use daxmap::{Backend, Durability, Granularity, Operation, PersistenceDomain};
use scratch_mounts::{
    Scratch, cached_pages, has_lease, image, memfd, mounted, run, take_lease, with_mounts,
};

fn probed(path: &Path) -> Report {
    probe::probe(path).unwrap_or_else(|error| panic!("{error}"))
}

fn codes(report: &Report) -> Vec<&'static str> {
    report.reasons.iter().map(|reason| reason.code.as_str()).collect()
}

fn errno_of(error: &daxmap::Error) -> Option<i32> {
    error.raw_os_error()
}

/// A new file with some bytes in it.
fn file_in(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("file");
    fs::write(&path, [0x5a; 8192]).unwrap();
    path
}

fn is_page_cache(report: &Report, durability: Durability) {
    assert_eq!(report.backend, Backend::PageCache, "{report:#?}");
    assert_eq!(report.granularity, Granularity::Page);
    assert_eq!(report.durability, durability, "{report:#?}");
    assert_eq!(report.persistence_domain, PersistenceDomain::None);
}

#[test]
fn file_directory_and_missing_name_agree() {
    let scratch = Scratch::new();
    let file = probed(&file_in(scratch.path()));
    let directory = probed(scratch.path());
    let missing = probed(&scratch.path().join("not yet"));
    assert_eq!(
        [file.target, directory.target, missing.target],
        [Target::File, Target::Directory, Target::Missing]
    );
    assert!(matches!(file.map_sync, MapSync::Accepted | MapSync::Refused(_)));
    assert!(matches!(directory.map_sync, MapSync::Predicted(_)));
    for other in [&directory, &missing] {
        assert_eq!(file.durability, other.durability);
        assert_eq!(file.backend, other.backend);
        assert_eq!(file.mount, other.mount);
        assert_eq!(file.device, other.device);
    }
    assert!(!file.read_only);
    assert!(file.verdict_sentence().ends_with('.'));
}

#[test]
fn shared_memory_is_volatile() {
    let directory = Path::new("/dev/shm");
    let path = directory.join(format!("daxmap-probe-{}", std::process::id()));
    fs::write(&path, b"x").unwrap();
    let report = probe::probe(&path);
    fs::remove_file(&path).unwrap();
    let report = report.unwrap();
    assert_eq!(report.filesystem.as_deref(), Some("tmpfs"));
    assert_eq!((report.backend, report.granularity), (Backend::Volatile, Granularity::Byte));
    assert_eq!(report.durability, Durability::ProcessOnly);
    assert_eq!(report.map_sync, MapSync::Refused(libc::EOPNOTSUPP));
    assert_eq!(codes(&report), ["memory-backed"]);
}

#[test]
fn descriptors_of_every_kind() {
    let scratch = Scratch::new();
    let path = file_in(scratch.path());
    let expected = probed(&path);
    let nameless = OpenOptions::new()
        .write(true)
        .read(true)
        .custom_flags(libc::O_TMPFILE)
        .open(scratch.path())
        .unwrap();
    let write_only = OpenOptions::new().append(true).open(&path).unwrap();
    let path_only = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
    let removed = File::open(&path).unwrap();
    for file in [&nameless, &write_only, &path_only] {
        let report = probe::probe_file(file.as_fd(), &path).unwrap();
        assert_eq!(report.target, Target::File);
        assert_eq!(report.map_sync, expected.map_sync, "{file:?}");
        assert_eq!(report.durability, expected.durability);
        assert_eq!(report.device, expected.device);
    }
    fs::remove_file(&path).unwrap();
    let report = probe::probe_file(removed.as_fd(), &path).unwrap();
    assert_eq!(report.durability, expected.durability, "the descriptor counts, not the path");

    let report = probe::probe_file(memfd().as_fd(), Path::new("memfd")).unwrap();
    assert_eq!((report.target, report.backend), (Target::File, Backend::Volatile));
    assert_eq!(report.durability, Durability::ProcessOnly);
    assert!(report.mount.is_none());
}

#[test]
fn a_fifo_and_other_nodes_are_not_opened() {
    let scratch = Scratch::new();
    let fifo = scratch.path().join("fifo");
    run("mkfifo", &[fifo.to_str().unwrap()]);
    for path in [fifo.as_path(), Path::new("/dev/null"), Path::new("/proc/version")] {
        let begun = Instant::now();
        let report = probed(path);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(report.target, Target::Other, "{}", path.display());
        assert_eq!(codes(&report), ["not-a-regular-file"]);
        assert_eq!(report.durability, Durability::ProcessOnly);
    }
}

#[test]
fn paths_that_lead_nowhere_are_one_clear_error() {
    let scratch = Scratch::new();
    let file = file_in(scratch.path());
    for (path, errno) in [
        (scratch.path().join("no/such/file"), libc::ENOENT),
        (file.join("below a file"), libc::ENOTDIR),
        (std::path::PathBuf::new(), libc::ENOENT),
        (scratch.path().join("no/.."), libc::ENOENT),
    ] {
        let error = probe::probe(&path).unwrap_err();
        assert_eq!(error.operation(), Operation::Probe);
        assert_eq!(errno_of(&error), Some(errno), "{error}");
        assert_eq!(error.path(), Some(path.as_path()));
    }
}

#[test]
fn links_lead_to_what_they_name() {
    let scratch = Scratch::new();
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink("later/file", &link).unwrap();
    let error = probe::probe(&link).unwrap_err();
    assert!(error.to_string().contains("link"), "{error}");
    fs::create_dir(scratch.path().join("later")).unwrap();
    assert_eq!(probed(&link).target, Target::Missing);
    file_in(&scratch.path().join("later"));
    assert_eq!(probed(&link).target, Target::File);
    let circle = scratch.path().join("circle");
    std::os::unix::fs::symlink("circle", &circle).unwrap();
    let error = probe::probe(&circle).unwrap_err();
    assert_eq!(errno_of(&error), Some(libc::ELOOP));
}

#[test]
fn probing_changes_nothing() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    let path = file_in(scratch.path());
    // An access time before the last change is what relatime would bring up to date.
    run("touch", &["-a", "-d", "2001-01-01", path.to_str().unwrap()]);
    let state = || {
        let found = fs::metadata(&path).unwrap();
        (found.atime(), found.mtime(), found.ctime(), found.ctime_nsec(), found.size())
    };
    let before = state();
    probed(&path);
    probed(scratch.path());
    probed(&scratch.path().join("new"));
    assert_eq!(state(), before);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

/// Times, leases and page cache of a file are as they were, whoever owns it, where every access
/// counts.
#[test]
fn a_probe_leaves_no_trace() {
    use std::os::unix::fs::MetadataExt;
    with_mounts(|at| {
        for (kind, mkfs) in [
            ("ext4", &["mkfs.ext4", "-q", "-F"][..]),
            ("xfs", &["mkfs.xfs", "-q"]),
            ("btrfs", &["mkfs.btrfs", "-q"]),
        ] {
            let point = mounted(at, kind, mkfs, "strictatime");
            let path = file_in(&point);
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
            let open = || {
                let flags = libc::O_NOATIME;
                OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path).unwrap()
            };
            let file = open();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            assert_eq!(cached_pages(&file), 0, "{kind}");
            let times = |path: &Path| {
                let found = fs::metadata(path).unwrap();
                let seconds = [found.atime(), found.mtime(), found.ctime()];
                (seconds, [found.atime_nsec(), found.mtime_nsec(), found.ctime_nsec()])
            };
            let before = (times(&path), times(&point));
            let probe_all = || {
                for path in [path.clone(), point.clone(), point.join("new")] {
                    let report = probed(&path);
                    assert!(!codes(&report).contains(&"permission-denied"), "{report:#?}");
                    assert!(!matches!(report.map_sync, MapSync::NotTried(_)), "{report:#?}");
                }
                probe::probe_file(file.as_fd(), &path).unwrap();
            };
            probe_all();
            assert_eq!((times(&path), times(&point)), before, "{kind}");
            assert_eq!(cached_pages(&file), 0, "{kind}");
            take_lease(&file);
            probe_all();
            assert!(has_lease(&file), "{kind}");
            assert_eq!((times(&path), times(&point)), before, "{kind}");
            drop(file);
            run("umount", &[point.to_str().unwrap()]);
        }
    });
}

/// ext4 keeps a small file in its inode, if it may, and when that file grows, a power loss can take
/// back what was synced.
#[test]
fn a_file_in_its_inode_is_unverified() {
    with_mounts(|at| {
        let make = ["mkfs.ext4", "-q", "-F", "-O", "inline_data"];
        let point = mounted(at, "ext4", &make, "");
        let level = probed(at).durability;
        let small = point.join("small");
        fs::write(&small, b"sixty bytes at most").unwrap();
        let file = File::open(&small).unwrap();
        for report in [probed(&small), probe::probe_file(file.as_fd(), &small).unwrap()] {
            assert_eq!(report.durability, Durability::Unverified);
            assert!(report.reasons[0].text.contains("inline_data"), "{}", report.reasons[0]);
        }
        assert_eq!(probed(&file_in(&point)).durability, level);
        let required = daxmap::Options::new().require(level);
        let refused = required.open(&small).unwrap_err();
        assert!(refused.to_string().contains("inline_data"), "{refused}");
        // What is made here is allocated before anything is written into it.
        for len in [1, 20, 4096] {
            let path = point.join(format!("region{len}"));
            let region = required.clone().len(len).create(&path).unwrap();
            assert_eq!(daxmap::Region::durability(&region), level);
            drop(region);
            assert_eq!(probed(&path).durability, level, "{len}");
        }
    });
}

/// What the mount table does not show, because it is the filesystem's own default.
#[test]
fn barriers_that_are_off_by_default_are_noticed() {
    with_mounts(|at| {
        let image = image(at, "ext4", &["mkfs.ext4", "-q", "-F"]);
        run("tune2fs", &["-o", "nobarrier", image.to_str().unwrap()]);
        let point = at.join("point");
        fs::create_dir(&point).unwrap();
        run("mount", &["-o", "loop", image.to_str().unwrap(), point.to_str().unwrap()]);
        let report = probed(&point);
        assert!(!report.mount.as_ref().unwrap().options.contains(&"nobarrier".to_owned()));
        assert_eq!(report.durability, Durability::Unverified);
        assert_eq!(codes(&report)[0], "no-barrier");
        run("mount", &["-o", "remount,barrier", point.to_str().unwrap()]);
        assert!(!codes(&probed(&point)).contains(&"no-barrier"));
    });
}

#[test]
fn mounts_are_where_files_can_be() {
    let mounts = probe::mounts().unwrap();
    assert!(mounts.iter().any(|point| point == Path::new("/")));
    assert!(!mounts.iter().any(|point| point == Path::new("/proc")));
    assert!(mounts.is_sorted());
    for point in &mounts {
        assert!(probe::probe(point).is_ok(), "{}", point.display());
    }
}

#[test]
fn one_path_takes_less_than_two_milliseconds() {
    let scratch = Scratch::new();
    let path = file_in(scratch.path());
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let begun = Instant::now();
            probed(&path);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("probe of one path: median {:?}, p99 {:?}", times[100], times[198]);
    assert!(times[100] < Duration::from_millis(2), "median {:?}", times[100]);
}

#[test]
fn filesystems_in_images() {
    with_mounts(|at| {
        for (mkfs, filesystem) in [
            (&["mkfs.ext4", "-q", "-F"][..], "ext4"),
            (&["mkfs.xfs", "-q"][..], "xfs"),
            (&["mkfs.btrfs", "-q"][..], "btrfs"),
        ] {
            let point = mounted(at, filesystem, mkfs, "");
            let report = probed(&file_in(&point));
            is_page_cache(&report, probed(at).durability);
            assert_eq!(report.filesystem.as_deref(), Some(filesystem));
            assert_eq!(report.map_sync, MapSync::Refused(libc::EOPNOTSUPP));
            assert_eq!(report.mount.as_ref().unwrap().point, point);
            let device = report.device.as_ref().unwrap();
            assert_eq!(device.kind, "loop");
            assert_eq!(device.backing_file, Some(at.join(format!("{filesystem}.image"))));
            assert_eq!(device.backing_mount.as_deref(), probed(at).mount.as_ref());
            assert!(codes(&report).contains(&"no-dax-device"));
            run("umount", &[point.to_str().unwrap()]);
        }
    });
}

#[test]
fn a_btrfs_subvolume_finds_its_device() {
    with_mounts(|at| {
        let point = mounted(at, "btrfs", &["mkfs.btrfs", "-q"], "");
        let subvolume = point.join("sub");
        run("btrfs", &["subvolume", "create", subvolume.to_str().unwrap()]);
        for path in [file_in(&subvolume), subvolume.clone(), subvolume.join("new")] {
            let report = probed(&path);
            assert_eq!(report.mount.as_ref().unwrap().point, point, "{}", path.display());
            assert_eq!(report.device.as_ref().unwrap().kind, "loop");
            assert_eq!(report.durability, probed(at).durability);
        }
        // Mounted by itself, it is another mount with another number.
        let own = at.join("own");
        fs::create_dir(&own).unwrap();
        let source = run("findmnt", &["-n", "-o", "SOURCE", point.to_str().unwrap()]);
        run("mount", &["-o", "subvol=sub", source.trim(), own.to_str().unwrap()]);
        let report = probed(&own.join("file"));
        assert_eq!(report.mount.as_ref().unwrap().root, Path::new("/sub"));
        assert_eq!(report.device.as_ref().unwrap().kind, "loop");
    });
}

#[test]
fn xfs_that_gave_dax_up() {
    with_mounts(|at| {
        let point = mounted(at, "xfs", &["mkfs.xfs", "-q"], "dax=always");
        let report = probed(&file_in(&point));
        assert!(report.mount.as_ref().unwrap().options.contains(&"dax=never".to_owned()));
        assert_eq!(codes(&report), ["no-dax-device", "xfs-fell-back-to-dax-never"]);
    });
}

#[test]
fn a_mount_without_barriers_is_unverified() {
    with_mounts(|at| {
        let point = mounted(at, "ext4", &["mkfs.ext4", "-q", "-F"], "nobarrier");
        let report = probed(&file_in(&point));
        is_page_cache(&report, Durability::Unverified);
        assert_eq!(codes(&report)[0], "no-barrier");
    });
}

/// A level is granted to a loop device only over a file that has all of its blocks, and only if that
/// is the file that was set up.
#[test]
fn a_loop_device_over_a_file_with_holes_is_unverified() {
    with_mounts(|at| {
        let below = probed(at).durability;
        let image = image(at, "disk", &["mkfs.ext4", "-q", "-F"]);
        let point = at.join("point");
        fs::create_dir(&point).unwrap();
        let [from, to] = [&image, &point].map(|path| path.to_str().unwrap());
        run("mount", &["-o", "loop", from, to]);
        assert_eq!(probed(&point).durability, below, "{:#?}", probed(&point).caps);

        // Another file on that path, as in another mount namespace.
        let other = at.join("other");
        run("cp", &["--sparse=never", from, other.to_str().unwrap()]);
        run("mount", &["--bind", other.to_str().unwrap(), from]);
        let report = probed(&point);
        run("umount", &[from]);
        assert_eq!(report.durability, Durability::Unverified);
        assert!(report.reasons[0].text.contains("is not that file here"), "{}", report.reasons[0]);
        assert_eq!(probed(&point).durability, below);

        let hole = ["--punch-hole", "-o", "200MiB", "-l", "1MiB", from];
        run("fallocate", &hole);
        let report = probed(&point);
        assert_eq!(report.durability, Durability::Unverified);
        assert!(report.reasons[0].text.contains("has holes"), "{}", report.reasons[0]);
        run("fallocate", &["-l", "320MiB", from]);
        assert_eq!(probed(&point).durability, below);
    });
}

/// The kernel leaves out every flush of a device whose write cache is called off.
#[test]
fn a_loop_device_without_flushes_is_unverified() {
    with_mounts(|at| {
        let point = mounted(at, "ext4", &["mkfs.ext4", "-q", "-F"], "");
        let source = run("findmnt", &["-n", "-o", "SOURCE", point.to_str().unwrap()]);
        let name = source.trim().trim_start_matches("/dev/");
        let cache = format!("/sys/block/{name}/queue/write_cache");
        let level = probed(&point).durability;
        fs::write(&cache, "write through").unwrap();
        let report = probed(&point);
        fs::write(&cache, "write back").unwrap();
        assert_eq!(report.durability, Durability::Unverified);
        assert!(
            report.reasons[0].text.contains("was set to write through"),
            "{:?}",
            report.reasons
        );
        assert_eq!(probed(&point).durability, level);
    });
}

/// An ext4 with its journal on another device is no better than that device.
#[test]
fn an_external_journal_is_found() {
    with_mounts(|at| {
        let memory = at.join("memory");
        fs::create_dir(&memory).unwrap();
        run("mount", &["-t", "tmpfs", "tmpfs", memory.to_str().unwrap()]);
        let journal = memory.join("journal");
        File::create(&journal).unwrap().set_len(64 << 20).unwrap();
        let attach = |path: &Path| {
            run("losetup", &["--find", "--show", path.to_str().unwrap()]).trim().to_owned()
        };
        let log = attach(&journal);
        let image = image(at, "files", &["mkfs.ext4", "-q", "-F"]);
        let files = attach(&image);
        let point = at.join("point");
        fs::create_dir(&point).unwrap();
        let check = || {
            run("mke2fs", &["-q", "-O", "journal_dev", "-b", "4096", &log]);
            run(
                "mke2fs",
                &["-q", "-F", "-t", "ext4", "-b", "4096", "-J", &format!("device={log}"), &files],
            );
            run("fallocate", &["-l", "320MiB", image.to_str().unwrap()]);
            run("mount", &[&files, point.to_str().unwrap()]);
            let report = probed(&point);
            run("umount", &[point.to_str().unwrap()]);
            report
        };
        let report = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        run("losetup", &["--detach", &files]);
        run("losetup", &["--detach", &log]);
        let report = report.unwrap();
        assert_eq!(report.durability, Durability::ProcessOnly, "{:#?}", report.caps);
        let name = log.trim_start_matches("/dev/");
        let said = report.caps.iter().find(|cap| cap.layer == probe::Layer::Log).unwrap();
        assert_eq!(said.evidence, format!("the log of ext4 is on {name}"));
    });
}

/// What is remembered of a mount, by the process, is not used again when the mount has changed.
#[test]
fn a_mount_that_loses_its_barriers_is_noticed_by_the_next_draft() {
    with_mounts(|at| {
        let point = mounted(at, "ext4", &["mkfs.ext4", "-q", "-F"], "");
        let barriers = |name: &str| {
            let draft = daxmap::Options::new().len(4096).draft(point.join(name));
            let draft = draft.unwrap_or_else(|error| panic!("{error}"));
            !codes(draft.report()).contains(&"no-barrier")
        };
        assert!(barriers("one") && barriers("two"));
        run("mount", &["-o", "remount,nobarrier", point.to_str().unwrap()]);
        assert!(!barriers("three"));
        run("mount", &["-o", "remount,barrier", point.to_str().unwrap()]);
        assert!(barriers("four"));
    });
}

#[test]
fn bind_mounts_and_read_only_mounts() {
    with_mounts(|at| {
        let [inner, bind] = ["in ner", "bi nd"].map(|name| at.join(name));
        fs::create_dir(&inner).unwrap();
        fs::create_dir(&bind).unwrap();
        let path = file_in(&inner);
        let [from, to] = [&inner, &bind].map(|path| path.to_str().unwrap());
        run("mount", &["--bind", from, to]);
        let report = probed(&bind.join("file"));
        assert_eq!(report.mount.as_ref().unwrap().point, bind);
        assert!(report.mount.as_ref().unwrap().root.ends_with("in ner"));
        assert_eq!(report.device, probed(&path).device);
        assert!(!report.read_only);
        run("mount", &["-o", "remount,bind,ro", to]);
        let report = probed(&bind.join("file"));
        assert!(report.read_only && codes(&report).contains(&"read-only"));
        assert!(!probed(&path).read_only);
        assert!(report.verdict_sentence().contains("Nothing can be written"));
    });
}

#[test]
fn overlay_is_as_good_as_its_upper() {
    with_mounts(|at| {
        let memory = at.join("memory");
        fs::create_dir(&memory).unwrap();
        run("mount", &["-t", "tmpfs", "tmpfs", memory.to_str().unwrap()]);
        let disk = mounted(at, "ext4", &["mkfs.ext4", "-q", "-F"], "");
        for (base, durability) in
            [(&disk, probed(&disk).durability), (&memory, Durability::ProcessOnly)]
        {
            let [lower, upper, work, point] =
                ["lower", "upper", "work", "merged"].map(|name| base.join(name));
            for directory in [&lower, &upper, &work, &point] {
                fs::create_dir(directory).unwrap();
            }
            let options = format!(
                "lowerdir={},upperdir={},workdir={}",
                lower.display(),
                upper.display(),
                work.display()
            );
            run("mount", &["-t", "overlay", "overlay", "-o", &options, point.to_str().unwrap()]);
            let report = probed(&file_in(&point));
            assert_eq!(report.filesystem.as_deref(), Some("overlay"));
            assert_eq!(report.upper.as_ref().unwrap().point, *base);
            is_page_cache(&report, durability);
            is_page_cache(&probed(&point), durability);
            assert!(!codes(&report).contains(&"layer-unverified"), "{report:#?}");
            assert!(!codes(&report).contains(&"filesystem-without-dax"));
            if base == &memory {
                continue;
            }
            // In the lower layer, until it is opened for writing.
            let old = point.join("old");
            fs::write(&old, b"x").unwrap();
            run("umount", &[point.to_str().unwrap()]);
            fs::rename(upper.join("old"), lower.join("old")).unwrap();
            run("mount", &["-t", "overlay", "overlay", "-o", &options, point.to_str().unwrap()]);
            assert_eq!(probed(&old).durability, Durability::Unverified);
            let report = |options: &OpenOptions| {
                let file = options.open(&old).unwrap();
                probe::probe_file(file.as_fd(), &old).unwrap().durability
            };
            assert_eq!(report(OpenOptions::new().read(true)), Durability::Unverified);
            assert_eq!(report(OpenOptions::new().append(true)), durability);
            assert_eq!(probed(&old).durability, durability, "it was copied up");
            let required = daxmap::Options::new().len(4096).require(durability);
            let region = required.create(point.join("region")).unwrap();
            assert_eq!(daxmap::Region::durability(&region), durability);
        }
    });
}

#[test]
fn a_loop_device_on_memory_is_memory() {
    with_mounts(|at| {
        let memory = at.join("memory");
        fs::create_dir(&memory).unwrap();
        run("mount", &["-t", "tmpfs", "tmpfs", memory.to_str().unwrap()]);
        let point = mounted(&memory, "ext4", &["mkfs.ext4", "-q", "-F"], "");
        let report = probed(&file_in(&point));
        is_page_cache(&report, Durability::ProcessOnly);
        assert_eq!(codes(&report), ["memory-backed", "no-dax-device"]);
        // The same of the device node, which is not opened for it.
        let source = run("findmnt", &["-n", "-o", "SOURCE", point.to_str().unwrap()]);
        let node = probed(Path::new(source.trim()));
        assert_eq!((node.target, node.durability), (Target::BlockDevice, Durability::ProcessOnly));
        assert_eq!(node.mount.unwrap().point, point);
    });
}

#[test]
fn partitions_lead_to_their_disk() {
    with_mounts(|at| {
        let image = image(at, "disk", &["mkfs.ext4", "-q", "-F"]);
        let device = run("losetup", &["--find", "--show", image.to_str().unwrap()]);
        let device = device.trim();
        let check = || {
            run("addpart", &[device, "1", "2048", "8192"]);
            let number = fs::read_to_string(format!(
                "/sys/block/{0}/{0}p1/dev",
                device.trim_start_matches("/dev/")
            ))
            .unwrap();
            let (major, minor) = number.trim().split_once(':').unwrap();
            let node = at.join("partition");
            run("mknod", &[node.to_str().unwrap(), "b", major, minor]);
            probed(&node)
        };
        let report = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        let _ = Command::new("delpart").args([device, "1"]).status();
        run("losetup", &["--detach", device]);
        let found = report.unwrap().device.unwrap();
        assert_eq!((found.kind.as_str(), found.start), ("partition", Some(1 << 20)));
        assert_eq!(found.below[0].kind, "loop");
        assert_eq!(found.below[0].backing_file.as_deref(), Some(image.as_path()));
    });
}
