//! `acknowledge_when_durable`: the server is killed under load, and no acknowledged message is
//! lost.

use pmem_tests::scratch::{Directory, Filesystem};

use crate::program::{number, run};

fn rounds(arguments: &[&str]) -> (bool, String) {
    let directory = Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let place = directory.path().join("log");
    let all = [&["rounds", place.to_str().unwrap()], arguments].concat();
    let ended = run("acknowledge_when_durable", &all);
    (ended.success, ended.stdout)
}

#[test]
fn no_acknowledged_message_is_lost() {
    let (success, stdout) = rounds(&["--rounds", "8"]);
    assert!(success, "{stdout}");
    assert!(number(&stdout, "acknowledged messages") > 1000, "hardly any load");
    // One client, one message at a time: every acknowledgement has a drain of its own.
    let (success, stdout) = rounds(&["--rounds", "2", "--clients", "1", "--window", "1"]);
    assert!(success, "{stdout}");
}

#[test]
fn only_syncs_flush_the_device() {
    for kind in ["ext4", "xfs"] {
        // Its own device: nobody else's requests are counted.
        let filesystem = Filesystem::looped(env!("CARGO_TARGET_TMPDIR"), kind, 400 << 20);
        let ended =
            run("acknowledge_when_durable", &["layers", filesystem.path().to_str().unwrap()]);
        assert!(ended.success);
        let flushes = |way: &str| -> u64 {
            let line = ended.stdout.lines().find_map(|line| line.strip_prefix(way)).unwrap();
            line.split_whitespace().last().unwrap().parse().unwrap()
        };
        for way in ["write ", "write, sync_file_range ", "write with O_DIRECT "] {
            assert_eq!(flushes(way), 0, "{way}on {kind}");
        }
        for way in [
            "write, fdatasync ",
            "write, fsync ",
            "write with O_DSYNC ",
            "write with O_SYNC ",
            "write with O_DIRECT|O_DSYNC ",
            "write with O_DIRECT, fdatasync ",
        ] {
            assert!(flushes(way) >= 10, "{way}on {kind}: {}", flushes(way));
        }
    }
}

#[test]
fn acknowledging_too_early_loses_messages() {
    let (success, stdout) = rounds(&["--rounds", "5", "--too-early"]);
    assert!(!success, "the verifier misses losses:\n{stdout}");
}
