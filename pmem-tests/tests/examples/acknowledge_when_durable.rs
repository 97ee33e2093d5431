//! `acknowledge_when_durable`: the server is killed under load, and no acknowledged message is
//! lost.

use pmem_tests::scratch::Directory;

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
fn acknowledging_too_early_loses_messages() {
    let (success, stdout) = rounds(&["--rounds", "5", "--too-early"]);
    assert!(!success, "the verifier misses losses:\n{stdout}");
}
