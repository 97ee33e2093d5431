//! `daxmap checkpoint list` as a person or a program runs it.

mod cli_binary;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::SystemTime;

use daxmap::checkpoint::Options;
use serde_json::Value;

fn list(file: &Path, options: &[&str]) -> Output {
    Command::new(cli_binary::path())
        .args(["checkpoint", "list"])
        .arg(file)
        .args(options)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn it_lists_what_is_kept_and_says_where_it_is_damaged() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = directory.path().join("set");
    let mut set = Options::new(10_000).keep(2).create(&file).unwrap();
    let seconds =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let began = seconds();
    for (number, label) in [(1, "one"), (2, "two\u{1b}[31m"), (3, "")] {
        set.slice_mut(0, 10_000).unwrap().fill(number);
        set.checkpoint_labelled(label).unwrap();
    }
    set.close().unwrap();
    let before = fs::read(&file).unwrap();
    let output = list(&file, &[]);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    println!("{text}");
    assert!(output.status.success());
    assert!(text.starts_with("working set of 10000 bytes in "), "{text}");
    assert!(text.contains("\nunsafe shutdowns: unknown, the medium"), "{text}");
    assert_eq!(text.matches(" sound").count(), 3);
    assert!(text.contains("one") && text.contains("two") && !text.contains('\u{1b}'));

    let found = json(&list(&file, &["--json"]));
    assert_eq!((&found["bytes"], &found["strategy"]), (&10_000.into(), &"shadow".into()));
    assert_eq!((&found["keep"], &found["header_copies"]), (&2.into(), &2.into()));
    assert_eq!(found["unsafe_shutdown"], "unknown");
    let numbers: Vec<_> =
        found["checkpoints"].as_array().unwrap().iter().map(|c| &c["sequence"]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    for checkpoint in found["checkpoints"].as_array().unwrap() {
        let time = checkpoint["time_s"].as_f64().unwrap();
        assert!((began - 0.001..seconds()).contains(&time), "{checkpoint}");
        assert!(text.contains(&format!("  @{time:.3}  ")), "{text}");
    }
    assert_eq!(fs::read(&file).unwrap(), before, "it was changed");

    // A page of the second one.
    let at = before.windows(4096).position(|page| page == [2; 4096]).unwrap();
    let mut damaged = before.clone();
    damaged[at + 5] = 9;
    fs::write(&file, &damaged).unwrap();
    let output = list(&file, &["--json"]);
    assert!(!output.status.success());
    let found = json(&output);
    let sound: Vec<_> =
        found["checkpoints"].as_array().unwrap().iter().map(|c| c["sound"] == true).collect();
    assert_eq!(sound, [true, false, true]);
    let range = &found["checkpoints"][1]["damage"]["range"];
    let at = at as u64;
    assert!(range["start"].as_u64().unwrap() <= at + 5 && at + 5 < range["end"].as_u64().unwrap());

    fs::write(&file, b"something else").unwrap();
    let output = list(&file, &[]);
    assert!(!output.status.success() && output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("not a daxmap checkpoint file"), "{error}");
}
