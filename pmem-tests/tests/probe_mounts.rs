//! The probe where there are thousands of mounts, and odd ones.
//!
//! It keeps away: time that grows with the square of the mounts, a table of all mounts read for one
//! path, a mount of which the kernel says one thing and its table another.
//!
//! Needs root, and fails without it: `cargo test -p pmem-tests --test probe_mounts`.
//!
//! # Safety
//!
//! One system call without a safe form, which is given a number and no buffer.
#![allow(unsafe_code)]

mod scratch_mounts;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use daxmap::probe::{self, Prober};
use scratch_mounts::{image, mounted, run, with_mounts};

/// More than a probe reads beside the table, and less than the table of 3,000 mounts.
const LITTLE_BYTES: u64 = 64 << 10;

fn mount_memory(path: &Path) {
    fs::create_dir(path).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", path, "tmpfs", flags, None).unwrap();
}

/// Bytes that this thread has read so far, by all of its calls (proc(5), `rchar`).
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// Whether the kernel tells all of one mount, and this process may ask: statmount(2) answers a number
/// that no mount has with `ENOENT`, and is complete from Linux 6.15 on.
fn kernel_tells_of_one() -> bool {
    const NOBODY: u32 = 1 << 30;
    let request: [u32; 6] = [24, 0, NOBODY, NOBODY, 0, 0];
    // SAFETY: the kernel reads 24 bytes; there is no mount of that number, and so nothing is written.
    let answer = unsafe { libc::syscall(457, request.as_ptr(), std::ptr::null::<u8>(), 0, 0) };
    assert_eq!(answer, -1);
    let is_asked = std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    is_asked && (parts.next(), parts.next()) >= (Some(6), Some(15))
}

/// A host with thousands of containers.
#[test]
fn many_mounts_take_time_in_proportion() {
    with_mounts(|at| {
        let memory = at.join("memory");
        mount_memory(&memory);
        let time = || {
            let mut times: Vec<_> = (0..3)
                .map(|_| {
                    let begun = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                    let prober = Prober::new();
                    let mounts = prober.mounts().unwrap();
                    assert!(mounts.iter().all(|point| prober.probe(point).is_ok()));
                    let ended = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                    let passed = Duration::try_from(ended)
                        .unwrap()
                        .saturating_sub(Duration::try_from(begun).unwrap());
                    (passed, mounts.len())
                })
                .collect();
            times.sort_unstable();
            times[0]
        };
        let mut made = 0;
        let mut reach = |count: usize| {
            while made < count {
                mount_memory(&memory.join(format!("{made}")));
                made += 1;
            }
            time()
        };
        let (few, many) = (reach(750), reach(3000));
        println!("every mount: {:?} for {}, {:?} for {}", few.0, few.1, many.0, many.1);
        // Four times as many; with the square it would be sixteen times the time.
        assert!(many.0 < few.0 * 8, "{few:?} {many:?}");
        one_path_reads_little(&memory);
    });
}

/// The table of all of them is not read for one path, nor twice for several.
fn one_path_reads_little(memory: &Path) {
    let last = memory.join("2999");
    let median = |what: &dyn Fn()| {
        let mut times: Vec<_> = (0..51)
            .map(|_| {
                let begun = Instant::now();
                what();
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let table = fs::read("/proc/thread-self/mountinfo").unwrap().len() as u64;
    let bare = median(&|| drop(fs::read("/proc/thread-self/mountinfo").unwrap()));
    let one = median(&|| drop(probe::probe(&last).unwrap()));
    println!("one of 3,000: {one:?}; a bare reading of the table: {bare:?}");

    let before = bytes_read();
    let prober = Prober::new();
    let report = prober.probe(&last).unwrap();
    let read = bytes_read() - before;
    assert_eq!(report.mount.unwrap().point, last);
    if kernel_tells_of_one() {
        assert!(read < LITTLE_BYTES, "{read} bytes for one path; the table has {table}");
    } else {
        println!("this kernel does not tell all of one mount");
    }
    for path in [memory, &memory.join("1"), &memory.join("2"), &last] {
        prober.probe(path).unwrap();
    }
    prober.mounts().unwrap();
    prober.probe(&last).unwrap();
    let read = bytes_read() - before;
    assert!(table <= read && read < table + LITTLE_BYTES, "{read} bytes of a table of {table}");
}

/// Whatever the kernel says of one mount, its line in the table says: of odd names, options in all the
/// orders of the kernel, parts of filesystems, and filesystems of programs.
#[test]
fn a_mount_is_the_same_with_and_without_the_table() {
    with_mounts(|at| {
        let odd = at.join("a b,c\\d\t\u{e4}");
        mount_memory(&odd);
        for name in ["lower", "upper", "work", "over"] {
            fs::create_dir(odd.join(name)).unwrap();
        }
        let ext4 = mounted(at, "ext4", &["mkfs.ext4", "-q", "-F"], "noatime,sync,nobarrier");
        let btrfs = mounted(at, "btrfs", &["mkfs.btrfs", "-q"], "lazytime,nosuid,noexec");
        let [part, only] = ["part", "only"].map(|name| at.join(name));
        let image = image(at, "xfs", &["mkfs.xfs", "-q"]);
        for directory in [&part, &only, &btrfs.join("sub"), &ext4.join("sub")] {
            fs::create_dir(directory).unwrap();
        }
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mount = |words: &[&str]| run("mount", words);
        mount(&["--bind", &text(&ext4.join("sub")), &text(&part)]);
        mount(&["-o", "remount,bind,ro,strictatime,nodev", &text(&part)]);
        mount(&["-o", "loop,ro,norecovery,nodiratime", &text(&image), &text(&only)]);
        // Paths relative to the working directory of mount(8), without their odd parts.
        let script = "cd \"$0\" && mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work,xino=on \
                      'odd source' over";
        run("sh", &["-c", script, &text(&odd)]);
        let pooled = at.join("pooled");
        fs::create_dir(&pooled).unwrap();
        run("mergerfs", &[&text(&btrfs.join("sub")), &text(&pooled)]);

        let prober = Prober::new();
        let mut compared = 0;
        let points = [odd.clone(), odd.join("over"), ext4, btrfs, part, only, pooled.clone()];
        let alone: Vec<_> = points.iter().map(|point| prober.probe(point).unwrap().mount).collect();
        prober.mounts().unwrap();
        for (point, alone) in points.iter().zip(alone) {
            let alone = alone.unwrap();
            assert_eq!(&alone.point, point);
            assert_eq!(prober.probe(point).unwrap().mount.unwrap(), alone);
            compared += 1;
        }
        assert_eq!(compared, points.len());
        run("umount", &[&text(&pooled)]);
    });
}
