//! The guest gives what the rest of the evidence stands on: a kernel that grants `MAP_SYNC`
//! where it should and refuses it where it should, and a harness that cannot pass without it.

use pmem_tests::guest::{Guest, GuestError, Persistence, program};
use std::time::Duration;

/// Value of `key` in the record that begins with `path=PATH`.
fn fact<'a>(output: &'a str, path: &str, key: &str) -> &'a str {
    output
        .lines()
        .skip_while(|line| line.strip_prefix("path=") != Some(path))
        .skip(1)
        .take_while(|line| !line.starts_with("path="))
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {key} of {path} in:\n{output}"))
}

#[test]
fn map_sync_is_granted_on_dax_and_refused_without() {
    let output = Guest::new()
        .persistence(Persistence::MemoryController)
        .nvdimm("512M")
        .file(program().unwrap())
        .run_script(
            "mkpmem fsdax namespace0.0
             mkfs-dax ext4 /dev/pmem0 /mnt/dax dax=always
             ./guest probe /mnt/dax/file
             ./guest adopt /mnt/dax/adopted
             umount /mnt/dax
             mkfs-dax ext4 /dev/pmem0 /mnt/plain dax=never
             ./guest probe /mnt/plain/file /dev/shm/file
             ./guest adopt /mnt/plain/adopted
             cat /sys/bus/nd/devices/region0/persistence_domain",
        )
        .unwrap();
    assert_eq!(output.status, 0, "{}", output.stdout);
    let says = |path, key| fact(&output.stdout, path, key);
    assert_eq!(says("/mnt/dax/file", "mmap_shared_validate_sync"), "ok");
    assert_eq!(says("/mnt/dax/file", "statx_dax"), "1");
    assert_eq!(says("/mnt/plain/file", "mmap_shared_validate_sync"), "EOPNOTSUPP");
    assert_eq!(says("/mnt/plain/file", "statx_dax"), "0");
    // A mapping of a caller's own is worth what it was made with, on a file that could have more.
    assert_eq!(says("/mnt/dax/adopted", "adopted_sync"), "PowerFail cache_line 1 1");
    assert_eq!(says("/mnt/dax/adopted", "adopted_plain"), "Fsync page 0 0");
    assert_eq!(says("/mnt/plain/adopted", "adopted_sync"), "EOPNOTSUPP");
    assert_eq!(says("/mnt/plain/adopted", "adopted_plain"), "Fsync page 0 0");
    // tmpfs takes MAP_SYNC without MAP_SHARED_VALIDATE, and ignores it: no test of anything.
    assert_eq!(says("/dev/shm/file", "mmap_shared_sync"), "ok");
    assert_eq!(says("/dev/shm/file", "mmap_shared_validate_sync"), "EOPNOTSUPP");
    assert_eq!(output.stdout.lines().last(), Some("memory_controller"));
}

#[test]
fn the_commands_status_and_words_come_through() {
    let output = Guest::new()
        .env("WORD", "it's here")
        .run(&["sh", "-c", "echo \"$WORD\"; echo error >&2; exit 42"])
        .unwrap();
    assert_eq!((output.status, output.stdout.as_str()), (42, "it's here\nerror\n"));
}

#[test]
fn a_guest_that_dies_is_an_error() {
    // Resets the machine without a word, as a fault of the kernel would.
    let result = Guest::new().run(&["sh", "-c", "echo before; echo b >/proc/sysrq-trigger"]);
    let Err(GuestError::NoGuest { .. }) = result else { panic!("{result:?}") };
}

#[test]
fn a_guest_that_hangs_is_an_error() {
    let result = Guest::new().timeout(Duration::from_secs(15)).run(&["sleep", "1000"]);
    assert!(matches!(result, Err(GuestError::TimedOut { .. })), "{result:?}");
}

#[test]
fn a_killed_guest_leaves_its_nvdimm() {
    let kept = std::env::temp_dir().join(format!("daxmap-kept-{}", std::process::id()));
    let guest = Guest::new().nvdimm("256M").keep_files(&kept);
    let mut running = guest
        .spawn(&["sh", "-ec", "echo kept | dd of=/dev/pmem0 conv=fsync; echo written; sleep 1000"])
        .unwrap();
    while running.line("what was written").unwrap().expect("the guest ended early") != "written" {}
    running.kill().unwrap();
    let found = guest.run(&["head", "-c", "5", "/dev/pmem0"]);
    std::fs::remove_dir_all(&kept).unwrap();
    assert_eq!(found.unwrap().stdout, "kept\n");
}
