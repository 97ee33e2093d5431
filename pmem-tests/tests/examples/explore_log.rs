//! `explore_log`: a log that survives every crash, and a bug that is found and told in words.

use std::path::Path;
use std::process::Command;

#[test]
fn it_finds_the_log_clean_and_the_careless_one_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let run = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["run", "--quiet", "--package", "daxmap-sim"])
        .args(["--example", "explore_log"])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&run.stdout);
    print!("{stdout}{}", String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success());
    let (clean, careless) = stdout.split_once("misses its range").unwrap();
    assert_eq!(clean.matches(" exhausted), 5 states").count(), 4, "a mode is missing");
    assert!(!clean.contains("fails"));
    for words in ["recovery fails: 0 records", "smallest workload found: 9", "never flushed"] {
        assert!(careless.contains(words), "no {words:?}");
    }
}
