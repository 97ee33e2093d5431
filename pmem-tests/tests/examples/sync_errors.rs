//! `sync_errors`: each error can be provoked and means what the page says. Needs root.

use crate::program::{guest, number, run};

#[test]
fn every_case_is_shown() {
    let ended = run("sync_errors", &[]);
    assert!(ended.success, "{}", ended.stdout);
    // All but device DAX, which the guest has.
    assert_eq!(number(&ended.stdout, "not shown here"), 1, "as root, with losetup and mkfs.ext4");
    assert_eq!(number(&ended.stdout, "cases shown"), 28);
    assert_eq!(number(&ended.stdout, "otherwise than expected"), 0);
}

#[test]
fn device_dax_refuses_to_sync() {
    let output = guest("sync_errors")
        .nvdimm("512M")
        .run_script("mkpmem devdax namespace0.0; ./sync_errors --devdax /dev/dax0.0")
        .unwrap();
    println!("{}", output.stdout);
    let shown = "shown      fsync, msync of device DAX: fsync EINVAL, msync EINVAL";
    assert!(output.stdout.contains(shown), "{}", output.stdout);
}
