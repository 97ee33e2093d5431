//! The devices of persistent memory and its errors, on memory that the guest emulates: an NVDIMM
//! that is not armed, a CXL device, device DAX that the kernel uses, and pages that went bad.
//!
//! It keeps away: a level above what the devices of a region keep, a command that makes one look
//! better, and errors reported in the offsets of something else.

use std::time::Duration;

use pmem_tests::guest::{Guest, Persistence, program};

/// What a guest printed, cut into records that begin with `path=`.
struct Records(String);

impl Records {
    /// The value of `key` in the first record of `path`.
    #[track_caller]
    fn get(&self, path: &str, key: &str) -> &str {
        self.0
            .lines()
            .skip_while(|line| line.strip_prefix("path=") != Some(path))
            .skip(1)
            .take_while(|line| !line.starts_with("path="))
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_else(|| panic!("no {key} of {path} in:\n{}", self.0))
    }

    #[track_caller]
    fn expect(&self, path: &str, expected: &[(&str, &str)]) {
        for (key, value) in expected {
            assert_eq!(self.get(path, key), *value, "{key} of {path} in:\n{}", self.0);
        }
    }

    /// The suite ran there, passed checks, and failed none.
    #[track_caller]
    fn expect_conformance(&self, place: &str) {
        let line = format!("conformance of {place}: ");
        let result = self.0.lines().find_map(|found| found.strip_prefix(line.as_str()));
        let result = result.unwrap_or_else(|| panic!("no suite ran in {place}:\n{}", self.0));
        assert!(result.ends_with(" passed, 0 failed"), "{place}: {result}\n{}", self.0);
        assert!(!result.starts_with("0 passed"), "{place}: {result}");
    }
}

fn run(guest: Guest, script: &str) -> Records {
    let output = guest.file(program().unwrap()).run_script(script).unwrap();
    assert_eq!(output.status, 0, "{}", output.stdout);
    Records(output.stdout)
}

/// Two NVDIMMs, set up while they are armed; the next boot finds them with a dead battery.
#[test]
fn a_device_that_is_not_armed_keeps_nothing_through_a_power_loss() {
    let kept = tempfile::tempdir().unwrap();
    let guest = || {
        let two = Guest::new().nvdimm("256M").nvdimm("256M").keep_files(kept.path());
        two.persistence(Persistence::MemoryController)
    };
    let armed = run(
        guest(),
        "mkpmem devdax namespace0.0
         mkpmem fsdax namespace1.0
         mkfs-dax ext4 /dev/pmem1 /mnt/a
         ./guest require /mnt/a/required
         ./guest report /dev/dax0.0
         umount /mnt/a
         modprobe kmem
         echo offline >/sys/devices/system/memory/auto_online_blocks
         daxctl reconfigure-device --no-online --mode=system-ram dax0.0 2>&1
         ./guest report /dev/dax0.0 | sed 's,^path=,path=ram:,'",
    );
    armed.expect("/mnt/a/required", &[("required", "PowerFail")]);
    armed.expect("/dev/dax0.0", &[("durability", "PowerFail"), ("reasons", "")]);
    // The same node, its memory given to the kernel.
    let ram = [("backend", "volatile"), ("durability", "ProcessOnly"), ("map_sync", "not tried 6")];
    armed.expect("ram:/dev/dax0.0", &ram);
    armed.expect("ram:/dev/dax0.0", &[("reasons", "system-ram")]);
    let unarmed = run(
        guest().unarmed(),
        "./guest report /dev/dax0.0
         ./guest conformance /dev/dax0.0 devdax Unverified cache_line
         mkdir -p /mnt/a
         mount -t ext4 -o ro,dax=always /dev/pmem1 /mnt/a
         ./guest report /mnt/a/required
         umount /mnt/a
         echo 0 >/sys/bus/nd/devices/region1/read_only
         blockdev --setrw /dev/pmem1
         mount -t ext4 -o dax=always /dev/pmem1 /mnt/a
         ./guest report /mnt/a
         ./guest require /mnt/a/new",
    );
    let level = ("durability", "Unverified");
    let flags = "8680-56341200 flags=not_armed unsafe_shutdowns=none security=none";
    unarmed.expect("/dev/dax0.0", &[level, ("read_only", "false"), ("nmem0", flags)]);
    unarmed.expect("/dev/dax0.0", &[("reasons", "memory-device-not-armed")]);
    unarmed.expect_conformance("/dev/dax0.0");
    unarmed.expect("/mnt/a/required", &[level, ("read_only", "true")]);
    // Made writable by hand, it is as it was.
    unarmed.expect("/mnt/a", &[level, ("read_only", "false")]);
    unarmed.expect("/mnt/a", &[("reasons", "memory-device-not-armed")]);
    let refused = unarmed.get("/mnt/a/new", "refused");
    assert!(refused.contains("nothing is ready to save its contents"), "{refused}");
    unarmed.expect("/mnt/a/new", &[("left_behind", "false")]);
}

/// A CXL device on a kernel that says nothing of its flush at a power loss: everything works, and
/// `PowerFail` is not granted. The emulator serves each access to this memory by a call of its own:
/// the suite on the device takes most of the time.
#[test]
fn cxl_memory_is_granted_what_its_device_shows() {
    let said = run(
        Guest::new().cxl("512M").timeout(Duration::from_secs(900)),
        "mkcxl
         ./guest badblocks
         mkpmem fsdax region0 -s 128M
         mkpmem devdax region0 -s 32M
         mkfs-dax ext4 /dev/pmem0 /mnt/a
         ./guest create /mnt/a/file 8388608
         ./guest conformance /mnt/a fsdax Unverified cache_line
         ./guest require /mnt/a/required
         ./guest badblocks /mnt/a/file
         dax=$(ls /dev/dax*.*)
         ./guest report $dax | sed 's,^path=.*,path=dax,'
         ./guest conformance $dax devdax Unverified cache_line | sed \"s,$dax,dax,\"",
    );
    let device = "3735928559 flags=none unsafe_shutdowns=none security=disabled";
    let expected = [
        ("providers", "CXL"),
        ("persistence_domain", "memory_controller"),
        ("backend", "fsdax"),
        ("durability", "Unverified"),
        ("reasons", "cxl-flush-unknown"),
        ("nmem0", device),
    ];
    said.expect("/mnt/a/file", &expected);
    said.expect_conformance("/mnt/a");
    let refused = said.get("/mnt/a/required", "refused");
    assert!(refused.contains("Global Persistent Flush"), "{refused}");
    said.expect_conformance("dax");
    said.expect("dax", &[("backend", "devdax"), ("durability", "Unverified")]);
    for name in ["bad:region0", "bad:/mnt/a/file"] {
        said.expect(name, &[("ranges", ""), ("is_complete", "false"), ("held_by", "nmem0")]);
        assert!(said.get(name, "notes").contains("poison list"));
    }
}

/// One region of two namespaces, a file system and device DAX, with an error in each.
#[test]
fn errors_are_told_in_the_offsets_of_what_they_are_in() {
    let said = run(
        Guest::new().persistence(Persistence::MemoryController).nvdimm("512M").labels(),
        "mkpmem fsdax region0 -s 128M >/dev/null
         mkpmem devdax region0 -s 128M >/dev/null
         mkfs-dax ext4 /dev/pmem0 /mnt/a
         ./guest create /mnt/a/file 8388608 >/dev/null
         mkbadblock /mnt/a/file 1048576
         dax=$(ls /dev/dax*.*)
         echo device=$dax
         mkbadblock $dax 3145728
         ./guest badblocks /mnt/a/file /mnt/a /dev/pmem0 $dax
         ./guest badblocks
         ./guest report $dax
         ./guest repair /mnt/a/file 1048576
         umount /mnt/a
         ndctl disable-namespace namespace0.0 >/dev/null
         ./guest badblocks | grep -A4 bad:region0 | sed 's/^path=bad:/path=later:/'",
    );
    let dax = said.0.lines().find_map(|line| line.strip_prefix("device=")).unwrap();
    let (dax, node) = (dax.to_owned(), format!("bad:{dax}"));
    let complete = ("is_complete", "true");
    said.expect("bad:/mnt/a/file", &[("ranges", "1048576-1052672"), complete]);
    said.expect(&node, &[("ranges", "3145728-3149824"), complete, ("kind", "dax_device")]);
    said.expect(&node, &[("held_by", "nmem0"), ("scrubbed", "false")]);
    assert!(said.get(&node, "remedy").contains("cannot clear errors"));
    said.expect(&dax, &[("bad_ranges", "3145728-3149824"), ("bad_ranges_known", "true")]);
    said.expect("bad:/dev/pmem0", &[("mounted", "/mnt/a"), complete]);
    let bytes = |name: &str| {
        let ranges = said.get(name, "ranges").split(' ').filter(|text| !text.is_empty());
        ranges
            .map(|text| {
                let (start, end) = text.split_once('-').unwrap();
                end.parse::<u64>().unwrap() - start.parse::<u64>().unwrap()
            })
            .sum::<u64>()
    };
    assert_eq!((bytes("bad:/dev/pmem0"), bytes("bad:region0")), (4096, 8192));
    assert_eq!(bytes("later:region0"), 8192, "mounted or not");
    // This platform has no command that clears an error: that is an error, and no more.
    let name = "repaired:/mnt/a/file";
    let refused = said.get(name, "repaired");
    assert!(refused.contains("[1048576, 1052672)") && refused.contains("pwrite"), "{refused}");
    said.expect(name, &[("before", "gone"), ("at", "gone"), ("goes_on", "read")]);
}

/// A pmem device whose errors a write clears: that of an e820 region, for which the kernel takes every
/// error as cleared (drivers/nvdimm/bus.c, `nvdimm_clear_poison`). The list is written by hand, so this
/// shows what the kernel does with the write, and nothing about memory.
#[test]
fn a_range_is_given_its_contents_again() {
    let said = run(
        Guest::new().e820("256M", "1G"),
        "mkfs-dax ext4 /dev/pmem0 /mnt/a
         ./guest create /mnt/a/file 8388608 >/dev/null
         block=$(filefrag -b4096 -v /mnt/a/file | sed 's/[:.]/ /g' | awk '$1 == 0 { print $4; exit }')
         umount /mnt/a
         mount -t ext4 -o dax=always /dev/pmem0 /mnt/a
         echo $((block * 8 + 2048)) 8 >/sys/class/block/pmem0/badblocks
         ./guest badblocks /mnt/a/file
         ./guest repair /mnt/a/file 1048576
         ./guest badblocks /mnt/a/file | sed 's/^path=bad:/path=later:/'",
    );
    said.expect("bad:/mnt/a/file", &[("ranges", "1048576-1052672")]);
    let yes = [("before", "gone"), ("repaired", "yes"), ("at", "read"), ("is_whole", "true")];
    said.expect("repaired:/mnt/a/file", &yes);
    let on = [("after", "read"), ("goes_on", "read"), ("again_is_whole", "true")];
    said.expect("repaired:/mnt/a/file", &on);
    said.expect("later:/mnt/a/file", &[("ranges", "")]);
}
