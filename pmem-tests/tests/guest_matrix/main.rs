//! What the library finds, and does, on every kind of persistent memory the guest can emulate:
//! {ADR, eADR, domain absent, e820, virtio-pmem} x {ext4, xfs} x {dax=always, inode, never}, and
//! the odd ones. For each the report field by field, the backend chosen, and the conformance
//! suite where a region opens.
//!
//! It keeps away: eADR decided for the whole machine, MAP_SYNC on RAM taken for durable, a
//! partition or device-mapper device that loses its region, a DAX attribute taken for MAP_SYNC.

mod foretold;
mod records;

use std::fmt::Write as _;

use pmem_tests::guest::{Guest, Persistence};
use records::{REFUSED, run};

/// One kind of memory, as `/dev/pmem0`.
struct Backing {
    guest: Guest,
    /// Shell line that makes `/dev/pmem0` of it.
    setup: &'static str,
    provider: &'static str,
    domain: &'static str,
    /// Whether MAP_SYNC is granted where DAX is on, with what level and granularity then.
    map_sync: bool,
    dax_level: &'static str,
    dax_granularity: &'static str,
    /// Level through the page cache.
    cached_level: &'static str,
    /// Reason that the memory itself gives, if any.
    reason: &'static str,
}

fn nvdimm(persistence: Persistence) -> Guest {
    Guest::new().persistence(persistence).nvdimm("512M")
}

fn adr() -> Backing {
    Backing {
        guest: nvdimm(Persistence::MemoryController),
        setup: "mkpmem fsdax namespace0.0",
        provider: "ACPI.NFIT",
        domain: "memory_controller",
        map_sync: true,
        dax_level: "PowerFail",
        dax_granularity: "cache_line",
        cached_level: "Fsync",
        reason: "",
    }
}

/// One configuration to mount and look at.
#[derive(Clone, Copy)]
struct Config {
    filesystem: &'static str,
    mode: &'static str,
    /// Sets the DAX flag of the directory before the file is made in it.
    flagged: bool,
}

const CONFIGS: [Config; 8] = {
    const fn config(filesystem: &'static str, mode: &'static str, flagged: bool) -> Config {
        Config { filesystem, mode, flagged }
    }
    [
        config("ext4", "always", false),
        config("ext4", "inode", false),
        config("ext4", "inode", true),
        config("ext4", "never", false),
        config("xfs", "always", false),
        config("xfs", "inode", false),
        config("xfs", "inode", true),
        config("xfs", "never", false),
    ]
};

impl Config {
    fn directory(self) -> String {
        let flagged = if self.flagged { "-flagged" } else { "" };
        format!("/mnt/{}-{}{flagged}", self.filesystem, self.mode)
    }

    fn dax(self) -> bool {
        self.mode == "always" || self.flagged
    }
}

fn check(backing: &Backing) {
    let mut script = format!("{}\n", backing.setup);
    for config in CONFIGS {
        let directory = config.directory();
        let (backend, level, granularity) = expected(backing, config);
        let flag = if config.flagged {
            format!("xfs_io -c 'chattr +x' {directory}/d\n")
        } else {
            String::new()
        };
        // The flag of a directory is passed on to what is made in it.
        let _ = write!(
            script,
            "mkfs-dax {} /dev/pmem0 {directory} dax={}\n\
             mkdir {directory}/d\n{flag}\
             ./guest create {directory}/d/file 8388608\n\
             ./guest report {directory}/d/missing {directory}/d\n\
             ./guest require {directory}/d/required\n\
             ./guest conformance {directory}/d {backend} {level} {granularity}\n\
             umount {directory}\n",
            config.filesystem, config.mode
        );
    }
    let guest = backing.guest.clone();
    let records = run(guest, &script);
    for config in CONFIGS {
        verify(backing, config, &records);
    }
}

fn expected(backing: &Backing, config: Config) -> (&'static str, &'static str, &'static str) {
    if config.dax() && backing.map_sync {
        ("fsdax", backing.dax_level, backing.dax_granularity)
    } else {
        ("page_cache", backing.cached_level, "page")
    }
}

fn verify(backing: &Backing, config: Config, records: &records::Records) {
    let directory = config.directory();
    let file = format!("{directory}/d/file");
    let (backend, level, granularity) = expected(backing, config);
    let sync = backend == "fsdax";
    // By default xfs aligns nothing to 2 MiB, ext4 everything.
    let huge_pages = match (sync, config.filesystem) {
        (false, _) => "not applicable",
        (true, "ext4") => "possible",
        (true, _) => "misaligned",
    };
    let why_not = match (config.mode, config.flagged) {
        ("never", _) => "mounted-dax-never",
        ("inode", false) => "dax-inode-without-flag",
        _ if huge_pages == "misaligned" => "huge-pages-misaligned",
        _ => "",
    };
    let reasons = [backing.reason, why_not].join(" ");
    records.expect(
        &file,
        &[
            ("filesystem", config.filesystem),
            ("mount_point", &directory),
            ("device", "pmem0"),
            ("providers", backing.provider),
            ("statx_dax", if config.dax() { "true" } else { "false" }),
            ("map_sync", if sync { "accepted" } else { REFUSED }),
            ("persistence_domain", backing.domain),
            ("backend", backend),
            ("durability", level),
            ("granularity", granularity),
            ("write_back", "clwb"),
            ("read_only", "false"),
            ("huge_pages", huge_pages),
            ("bad_ranges", ""),
            ("reasons", reasons.trim()),
            ("region_backend", backend),
            ("region_durability", level),
            ("region_granularity", granularity),
            ("region_emulated", "false"),
        ],
    );
    // A name that is not there yet, and its directory, foretell what the file got.
    for path in [format!("{directory}/d/missing"), format!("{directory}/d")] {
        foretold::expect_foretold(records, &path, &file);
    }
    let required = format!("{directory}/d/required");
    if level == "PowerFail" {
        records.expect(&required, &[("required", "PowerFail")]);
    } else {
        records.expect(&required, &[("left_behind", "false")]);
        let refused = records.get(&required, "refused");
        let levels = format!("PowerFail was required, {level} is available");
        assert!(refused.contains(&levels) && refused.contains("remedy"), "{refused}");
    }
    records.expect_conformance(&format!("{directory}/d"));
}

#[test]
fn adr_memory() {
    check(&adr());
}

#[test]
fn eadr_memory() {
    check(&Backing {
        guest: nvdimm(Persistence::CpuCache),
        domain: "cpu_cache",
        dax_granularity: "byte",
        ..adr()
    });
}

#[test]
fn memory_without_a_persistence_domain() {
    check(&Backing {
        guest: nvdimm(Persistence::Absent),
        domain: "unknown",
        dax_level: "Unverified",
        cached_level: "Unverified",
        reason: "persistence-domain-unknown",
        ..adr()
    });
}

#[test]
fn e820_memory() {
    check(&Backing {
        guest: Guest::new().e820("512M", "1G"),
        setup: "",
        provider: "e820",
        domain: "volatile",
        dax_level: "ProcessOnly",
        cached_level: "ProcessOnly",
        reason: "e820-region",
        ..adr()
    });
}

#[test]
fn virtio_pmem_memory() {
    check(&Backing {
        guest: Guest::new().virtio_pmem("512M"),
        setup: "",
        provider: "virtio-pmem",
        domain: "unknown",
        map_sync: false,
        reason: "virtio-pmem-asynchronous",
        ..adr()
    });
}

#[test]
fn device_dax() {
    let records = run(
        nvdimm(Persistence::MemoryController),
        "mkpmem devdax namespace0.0
         ./guest report /dev/dax0.0
         ./guest conformance /dev/dax0.0 devdax PowerFail cache_line",
    );
    records.expect(
        "/dev/dax0.0",
        &[
            ("namespace", "devdax"),
            ("providers", "ACPI.NFIT"),
            ("map_sync", "accepted"),
            ("persistence_domain", "memory_controller"),
            ("backend", "devdax"),
            ("durability", "PowerFail"),
            ("granularity", "cache_line"),
        ],
    );
    records.expect_conformance("/dev/dax0.0");
}

#[test]
fn device_mapper_keeps_its_region_and_the_weakest_counts() {
    let guest = nvdimm(Persistence::MemoryController).e820("384M", "1G");
    let records = run(
        guest,
        "mkpmem fsdax namespace0.0
         for b in /sys/block/pmem*; do
             case $(readlink -f $b) in *LNXSYSTM*) nv=/dev/${b##*/};; *) ram=/dev/${b##*/};; esac
         done
         mkdm-linear one $nv
         mkfs-dax ext4 /dev/mapper/one /mnt/one
         ./guest create /mnt/one/file 8388608
         ./guest conformance /mnt/one fsdax PowerFail cache_line
         umount /mnt/one; dmsetup remove --noudevsync one
         a=$(blockdev --getsz $nv); b=$(blockdev --getsz $ram)
         printf '0 %s linear %s 0\\n%s %s linear %s 0\\n' $a $nv $a $b $ram |
             dmsetup create --noudevsync two
         dmsetup mknodes --noudevsync two
         mkfs-dax ext4 /dev/mapper/two /mnt/two
         ./guest create /mnt/two/file 8388608
         umount /mnt/two; dmsetup remove --noudevsync two
         modprobe dm-flakey
         dmsetup create --noudevsync --uuid LVM-not flaky --table \"0 $a flakey $nv 0 60 0\"
         dmsetup mknodes --noudevsync flaky
         mke2fs -q -F -t ext4 /dev/mapper/flaky; mkdir /mnt/flaky; mount /dev/mapper/flaky /mnt/flaky
         ./guest create /mnt/flaky/file 8388608",
    );
    records.expect(
        "/mnt/one/file",
        &[
            ("device", "dm-0"),
            ("providers", "ACPI.NFIT"),
            ("map_sync", "accepted"),
            ("persistence_domain", "memory_controller"),
            ("region_backend", "fsdax"),
            ("region_durability", "PowerFail"),
        ],
    );
    records.expect_conformance("/mnt/one");
    // The file may lie on either: it is worth as much as the worse.
    records.expect(
        "/mnt/two/file",
        &[
            ("map_sync", "accepted"),
            ("persistence_domain", "volatile"),
            ("region_backend", "fsdax"),
            ("region_durability", "ProcessOnly"),
        ],
    );
    assert!(records.get("/mnt/two/file", "reasons").contains("e820-region"));
    // Whatever the UUID says: root is told the targets.
    records.expect(
        "/mnt/flaky/file",
        &[
            ("device", "dm-0"),
            ("region_backend", "page_cache"),
            ("region_durability", "Unverified"),
        ],
    );
    assert!(records.get("/mnt/flaky/file", "reasons").contains("layer-unverified"));
}

#[test]
fn one_odd_region_does_not_change_the_level_of_another() {
    let guest = nvdimm(Persistence::CpuCache).e820("384M", "1G");
    let records = run(
        guest,
        "mkpmem fsdax namespace0.0
         for b in /sys/block/pmem*; do
             case $(readlink -f $b) in *LNXSYSTM*) nv=/dev/${b##*/};; *) ram=/dev/${b##*/};; esac
         done
         mkfs-dax ext4 $nv /mnt/nv; mkfs-dax ext4 $ram /mnt/ram
         ./guest create /mnt/nv/file 8388608
         ./guest create /mnt/ram/file 8388608",
    );
    let level =
        |path| (records.get(path, "region_durability"), records.get(path, "region_granularity"));
    assert_eq!(level("/mnt/nv/file"), ("PowerFail", "byte"));
    assert_eq!(level("/mnt/ram/file"), ("ProcessOnly", "cache_line"));
}

#[test]
fn a_flag_set_while_the_file_is_open_waits_for_the_close() {
    let records = run(
        nvdimm(Persistence::MemoryController),
        "mkpmem fsdax namespace0.0
         mkfs-dax ext4 /dev/pmem0 /mnt/a dax=inode
         : >/mnt/a/file
         exec 9>>/mnt/a/file
         xfs_io -c 'chattr +x' /mnt/a/file
         ./guest report /mnt/a/file
         exec 9>&-
         ln /mnt/a/file /mnt/a/later
         ./guest report /mnt/a/later",
    );
    records.expect("/mnt/a/file", &[("statx_dax", "false"), ("map_sync", REFUSED)]);
    assert!(records.get("/mnt/a/file", "reasons").contains("dax-flag-set-file-open"));
    records.expect("/mnt/a/later", &[("statx_dax", "true"), ("map_sync", "accepted")]);
}

#[test]
fn the_first_stores_to_a_new_region_do_not_fault() {
    let records = run(
        Guest::new().persistence(Persistence::MemoryController).nvdimm("1G"),
        "mkpmem fsdax namespace0.0
         for kind in ext4 xfs-2m xfs; do
             mkfs-dax $kind /dev/pmem0 /mnt/$kind
             ./guest faults /mnt/$kind/file
             umount /mnt/$kind
         done",
    );
    for kind in ["ext4", "xfs-2m", "xfs"] {
        let path = format!("/mnt/{kind}/file");
        let faults = |of| records.get(&path, of).parse::<u64>().unwrap();
        // One of the program's own, of its stack or its code, may be among them.
        for of in ["faults_after_create", "faults_after_grow"] {
            assert!(faults(of) <= 1, "{path}: {} {of}", faults(of));
        }
        // A growth by 16 pages maps those, and as many of a buffer of zeros, however many there were:
        // 16 huge ones, or 8,192.
        let grown = faults("faults_of_grow");
        println!("{path}: {grown} faults of the growth");
        assert!((1..40).contains(&grown), "{path}: {grown} faults of the growth");
        let control = faults("faults_of_control");
        assert!(control >= 16, "{control} faults of a mapping that nobody populated");
    }
}

#[test]
fn bad_blocks_are_found_and_their_neighbours_read_on() {
    let records = run(
        nvdimm(Persistence::MemoryController),
        "mkpmem fsdax namespace0.0
         mkfs-dax ext4 /dev/pmem0 /mnt/a
         ./guest create /mnt/a/file 8388608
         mkbadblock /mnt/a/file 1048576
         mv /mnt/a/file /mnt/a/bad
         ./guest report /mnt/a/bad
         ./guest bad /mnt/a/bad 1048576",
    );
    records.expect("/mnt/a/bad", &[("bad_ranges", "1048576-1052672")]);
    assert!(records.get("/mnt/a/bad", "reasons").contains("bad-blocks"));
    records.expect("bad", &[("before", "read"), ("at", "gone"), ("after", "read")]);
}

/// A DAX file is opened for the trial mapping, by root, who could change its access time, and whom no
/// lease keeps out.
#[test]
fn a_probe_leaves_no_trace_of_itself() {
    let records = run(
        nvdimm(Persistence::MemoryController),
        "mkpmem fsdax namespace0.0
         for kind in ext4 xfs; do
             mkfs-dax $kind /dev/pmem0 /mnt/$kind dax=always,strictatime
             ./guest trace /mnt/$kind/file
             umount /mnt/$kind
         done",
    );
    for kind in ["ext4", "xfs"] {
        records.expect(
            &format!("/mnt/{kind}/file"),
            &[
                ("map_sync", "accepted"),
                ("durability", "PowerFail"),
                ("times_kept", "true"),
                ("leased_map_sync", "predicted true"),
                ("leased_durability", "PowerFail"),
                ("times_kept_with_lease", "true"),
                ("lease_kept", "true"),
                ("cached_at_first", "0"),
                ("cached", "0"),
                // The control.
                ("lease_kept_by_open", "false"),
                ("times_kept_by_map", "false"),
            ],
        );
    }
}

/// `queue/write_cache` says what the kernel does, and the controller what it needs.
#[test]
fn an_nvme_disk_without_the_flushes_that_it_needs_is_unverified() {
    let guest = Guest::new().nvme("256M");
    let records = run(
        guest,
        "mkfs-dax ext4 /dev/nvme0n1 /mnt/a defaults
         ./guest create /mnt/a/flushed 8388608
         echo 'write through' >/sys/block/nvme0n1/queue/write_cache
         ./guest create /mnt/a/left-out 8388608
         ./guest require /mnt/a/required
         echo 'write back' >/sys/block/nvme0n1/queue/write_cache
         ./guest report /mnt/a/left-out",
    );
    for (file, level) in [("flushed", "Fsync"), ("left-out", "Unverified")] {
        let file = format!("/mnt/a/{file}");
        records.expect(&file, &[("device", "nvme0n1"), ("region_durability", level)]);
    }
    let refused = records.get("/mnt/a/required", "refused");
    assert!(refused.contains("nvme0n1 itself says write back"), "{refused}");
    let again = records.0.rsplit("path=/mnt/a/left-out\n").next().unwrap();
    assert!(again.contains("durability=Fsync\n"), "{again}");
}

#[test]
fn a_read_only_mount_is_reported_and_refused() {
    let records = run(
        nvdimm(Persistence::MemoryController),
        "mkpmem fsdax namespace0.0
         mkfs-dax ext4 /dev/pmem0 /mnt/a
         ./guest create /mnt/a/file 8388608 >/dev/null
         mount -o remount,ro /mnt/a
         ./guest report /mnt/a/file
         ./guest create /mnt/a/new 8388608 || echo status=$?",
    );
    records.expect("/mnt/a/file", &[("read_only", "true"), ("map_sync", "accepted")]);
    assert!(records.get("/mnt/a/file", "reasons").contains("read-only"));
    assert!(records.0.contains("Read-only file system"), "{}", records.0);
    assert!(records.0.lines().any(|line| line == "status=1"), "{}", records.0);
}
