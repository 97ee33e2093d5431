//! `survive_kill`: what a mapped state survives, and what write-back costs meanwhile.

use pmem_tests::guest::Persistence;
use pmem_tests::scratch::{Directory, Filesystem};

use crate::program::{guest, number, run};

const HERE: &str = env!("CARGO_TARGET_TMPDIR");

fn kills(directory: &Directory, arguments: &[&str]) -> (bool, String) {
    let file = directory.path().join("state");
    let all = [&["kills", file.to_str().unwrap()], arguments].concat();
    let ended = run("survive_kill", &all);
    (ended.success, ended.stdout)
}

#[test]
fn ten_thousand_kills_lose_no_store() {
    // A busy machine does fewer in the time; how many is printed.
    let (success, stdout) = kills(&Directory::new(HERE), &["--at-most", "60"]);
    assert!(success, "{stdout}");
    let killed = number(&stdout, "kills of 10000");
    assert!(killed >= 1000, "only {killed} kills in a minute");
    assert_eq!(number(&stdout, "finished updates lost"), 0);
    assert_eq!(number(&stdout, "states torn"), 0);
    // Without these, the kills would not have hit what the two slots are for.
    assert!(number(&stdout, "kills fell inside an update") > 0);
    assert!(number(&stdout, "updates finished") > killed);
}

#[test]
fn one_slot_is_torn_sooner_or_later() {
    let (success, stdout) =
        kills(&Directory::new(HERE), &["--kills", "1000", "--rule", "in-place"]);
    assert!(!success, "{stdout}");
    assert!(number(&stdout, "states torn") > 0);
}

#[test]
fn a_region_keeps_what_it_persisted() {
    let (success, stdout) =
        kills(&Directory::new(HERE), &["--kills", "200", "--through", "region"]);
    assert!(success, "{stdout}");
    assert!(number(&stdout, "updates finished") > 0);
}

#[test]
fn write_back_of_a_disk_costs_faults_and_writes() {
    // Its own device: nobody else's writes are counted. As long as it takes the kernel to find
    // the pages old enough, with its usual settings.
    let filesystem = Filesystem::looped(HERE, "ext4", 64 << 20);
    let file = filesystem.path().join("state");
    let arguments = ["cost", file.to_str().unwrap(), "--seconds", "45", "--mib", "4"];
    let ended = run("survive_kill", &arguments);
    assert!(ended.success);
    let setting = |name| std::fs::read_to_string(format!("/proc/sys/vm/{name}")).unwrap();
    let expiry: u64 = setting("dirty_expire_centisecs").trim().parse().unwrap();
    let interval: u64 = setting("dirty_writeback_centisecs").trim().parse().unwrap();
    assert!(expiry + 2 * interval < 4500 && interval > 0, "settings that are not the usual ones");
    // All 1,024 pages are written, and each is written to again.
    let written = number(&ended.stdout, "bytes (");
    assert!(written >= 4 << 20, "{written} bytes written");
    assert!(number(&ended.stdout, " (") >= 1024, "{}", ended.stdout);
}

#[test]
fn write_back_of_dax_costs_nothing() {
    let output = guest("survive_kill")
        .persistence(Persistence::MemoryController)
        .nvdimm("512M")
        .disk("256M")
        .run_script(
            "echo 50 >/proc/sys/vm/dirty_writeback_centisecs
             echo 100 >/proc/sys/vm/dirty_expire_centisecs
             mkpmem fsdax namespace0.0
             mkfs-dax ext4 /dev/pmem0 /mnt/dax
             ./survive_kill kills /mnt/dax/state --kills 50 --through region
             ./survive_kill kills /mnt/dax/state --kills 50 --through mapping
             echo MAP_SYNC; ./survive_kill cost /mnt/dax/cost --seconds 8 --through region
             echo MAP_SHARED; ./survive_kill cost /mnt/dax/cost --seconds 8 --through mapping
             mkfs-dax ext4 /dev/vda /mnt/disk defaults
             echo DISK; ./survive_kill cost /mnt/disk/cost --seconds 8 --through mapping
             umount /mnt/dax
             mkfs-dax xfs /dev/pmem0 /mnt/dax
             echo XFS; ./survive_kill cost /mnt/dax/cost --seconds 8 --through region",
        )
        .unwrap();
    println!("{}", output.stdout);
    assert_eq!(output.status, 0, "{}", output.stdout);
    let part = |word: &str| {
        let after = output.stdout.split_once(&format!("\n{word}\n"));
        after.unwrap_or_else(|| panic!("no {word}:\n{}", output.stdout)).1
    };
    // Counts, not times. The counting itself takes a few faults.
    for dax in ["MAP_SYNC", "MAP_SHARED", "XFS"] {
        let faults = number(part(dax).split_once("page faults: ").unwrap().1, " (");
        assert!(faults < 20, "{dax}: {faults} page faults");
        let written = part(dax).split_once("by anybody: ").unwrap().1;
        assert_eq!(number(written, " bytes"), 0, "{dax}");
    }
    // The same on a disk, so that the counting is known to count.
    let faults = number(part("DISK").split_once("page faults: ").unwrap().1, " (");
    assert!(faults >= 4096, "{faults} page faults");
    let written = part("DISK").split_once("by anybody: ").unwrap().1;
    assert!(number(written, " bytes") >= 16 << 20);
}
