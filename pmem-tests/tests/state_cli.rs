//! `daxmap state` as a person or a program runs it.

mod cli_binary;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use daxmap::state::{State, StateOptions};
use pmem_tests::scratch::Directory;
use serde_json::Value;

const HERE: &str = env!("CARGO_TARGET_TMPDIR");

fn show(path: &Path, more: &[&str]) -> Output {
    Command::new(cli_binary::path()).args(["state", "show"]).arg(path).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(path: &Path) -> (Value, bool) {
    let output = show(path, &["--json"]);
    assert_eq!(text(&output.stderr), "");
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.success())
}

fn damage(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A closed state of three stores.
fn closed(directory: &Directory) -> std::path::PathBuf {
    let path = directory.path().join("root");
    let state = StateOptions::new().version(7).create(&path, &[1_u8; 20]).unwrap();
    state.store(&[2; 20]).unwrap();
    state.store(&[0xab; 20]).unwrap();
    state.close().unwrap();
    path
}

#[test]
fn a_sound_file_is_told_in_words() {
    let directory = Directory::new(HERE);
    let path = closed(&directory);
    let before = fs::read(&path).unwrap();
    let output = show(&path, &[]);
    assert!(output.status.success() && output.stderr.is_empty());
    let expected = format!(
        "{}: sound: everything is there twice
  file         16384 bytes, format version 2
  room         for values of up to 4072 bytes
  shutdowns    unsafe ones: unknown, the medium has no count to compare
  header       at 0: valid
  header       at 4096: valid
  slot         at 8192: valid, store 3, layout version 7, 20 bytes
  slot         at 12288: valid, store 3, layout version 7, 20 bytes
  value
    00000000  ab ab ab ab ab ab ab ab  ab ab ab ab ab ab ab ab
    00000010  ab ab ab ab
",
        path.display()
    );
    assert_eq!(text(&output.stdout), expected);
    assert_eq!(fs::read(&path).unwrap(), before, "it was only looked at");
}

#[test]
fn programs_read_an_object() {
    let directory = Directory::new(HERE);
    let path = closed(&directory);
    let (object, sound) = json(&path);
    assert!(sound);
    assert_eq!(object["schema"], 1);
    assert_eq!(object["kind"], "state");
    assert_eq!(object["unsafe_shutdown"], "unknown");
    assert_eq!(object["path"], path.to_str().unwrap());
    assert_eq!((&object["sound"], &object["settled"]), (&true.into(), &true.into()));
    assert_eq!(object["file_bytes"], 16384);
    assert_eq!(object["capacity"], 4072);
    assert_eq!(object["sequence"], 3);
    assert_eq!(object["version"], 7);
    assert_eq!(object["value"], "ab".repeat(20));
    assert_eq!(object["slots"][1]["offset"], 12288);
    assert_eq!(object["slots"][1]["bytes"], 20);
    assert_eq!(object["header"][1]["state"], "valid");
}

#[test]
fn a_file_in_use_is_sound_and_stays_with_its_program() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("root");
    let state = State::create(&path, &[1_u8; 20]).unwrap();
    state.store(&[2; 20]).unwrap();
    let (object, sound) = json(&path);
    assert!(sound && object["sound"] == true && object["settled"] == false);
    assert_eq!((&object["sequence"], &object["newest"]), (&2.into(), &0.into()));
    let said = show(&path, &[]).stdout;
    assert!(
        text(&said).contains(": sound, in use or not closed: one slot holds"),
        "{}",
        text(&said)
    );
    state.store(&[3; 20]).unwrap();
    assert_eq!(json(&path).0["newest"], 1);
    assert_eq!(state.load(), [3; 20]);
}

#[test]
fn damage_is_named_with_its_place() {
    let directory = Directory::new(HERE);
    let path = closed(&directory);
    damage(&path, 12288 + 30);
    damage(&path, 4096);
    let output = show(&path, &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(said.contains("  header       at 4096: invalid\n"), "{said}");
    assert!(said.contains("  slot         at 8192: valid, store 3"), "{said}");
    assert!(said.contains("  slot         at 12288: invalid\n"), "{said}");
    assert!(said.contains("can be had") && said.contains("ab ab"), "{said}");
    damage(&path, 8192 + 30);
    let (object, sound) = json(&path);
    assert!(!sound && object["sound"] == false && object["value"] == Value::Null);
    let output = show(&path, &[]);
    assert!(text(&output.stdout).contains("damaged: no slot holds a whole value"));
    damage(&path, 10);
    let output = show(&path, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("damaged: both copies of the header"));
}

#[test]
fn a_slot_without_anything_is_blank() {
    let directory = Directory::new(HERE);
    let path = closed(&directory);
    let mut bytes = fs::read(&path).unwrap();
    bytes[12288..].fill(0);
    fs::write(&path, bytes).unwrap();
    let output = show(&path, &[]);
    let said = text(&output.stdout);
    assert!(said.contains("  slot         at 12288: blank\n"), "{said}");
    assert_eq!(json(&path).0["slots"][1]["state"], "blank");
}

#[test]
fn what_is_no_state_is_one_line() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("other");
    for (content, words) in [
        (&b"hello"[..], "this is not a daxmap state"),
        (&[0; 16384], "this is not a daxmap state"),
        (b"", "this is not a daxmap state"),
    ] {
        fs::write(&path, content).unwrap();
        let output = show(&path, &["--json"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stdout), "");
        let said = text(&output.stderr);
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
        assert!(said.contains(path.to_str().unwrap()), "{said}");
    }
    let output = show(&directory.path().join("none"), &[]);
    assert!(text(&output.stderr).contains("No such file"));
    let output = show(&directory.path().join("a\u{1b}[31m"), &[]);
    assert!(!output.stderr.contains(&0x1b));
}
