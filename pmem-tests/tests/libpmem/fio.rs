//! Debian's fio, unchanged, with its libpmem engine on our library: what it writes, it finds again.
//! And two libraries that lose something, which it has to notice.

use std::path::Path;
use std::process::Output;

use crate::library::{careless, on, ours, run_on, text};

/// Writes and verifies; the engine wants its directory to be persistent memory, so it is forced.
fn fio(folder: &Path, directory: &Path, block: &str, direct: u8, sync: u8) -> Output {
    let mut command = on(Some(folder), "fio");
    command
        .env("PMEM_IS_PMEM_FORCE", "1")
        .current_dir(directory)
        .args(["--name=verify", "--ioengine=libpmem", "--rw=randwrite", "--size=4m"])
        .args(["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--iodepth=1", "--thread"])
        .arg(format!("--bs={block}"))
        .arg(format!("--direct={direct}"))
        .arg(format!("--sync={sync}"))
        .arg(format!("--directory={}", directory.display()));
    run_on(&folder.join("libpmem.so.1"), &mut command)
}

#[test]
fn what_fio_writes_it_finds_again() {
    for block in ["512", "4k", "65521", "1m"] {
        for (direct, sync) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let directory = tempfile::tempdir_in("/dev/shm").unwrap();
            let output = fio(ours(), directory.path(), block, direct, sync);
            let said = text(&output);
            let case = format!("{block}, direct {direct}, sync {sync}");
            assert!(output.status.success(), "{case}: {said}");
            assert!(said.contains("err= 0") && said.contains("READ: bw="), "{case}: {said}");
        }
    }
}

#[test]
fn what_a_careless_library_loses_fio_misses() {
    for how in ["short_copy", "no_copy"] {
        let folder = careless(how);
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let output = fio(&folder, directory.path(), "4k", 0, 0);
        let said = text(&output);
        assert!(!output.status.success(), "{how}: {said}");
        assert!(said.contains("verify"), "{how}: {said}");
    }
    // The file that cargo keeps is a good one again.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    assert!(fio(ours(), directory.path(), "4k", 0, 0).status.success());
}
