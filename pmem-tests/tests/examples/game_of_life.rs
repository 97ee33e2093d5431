//! `game_of_life`: killed again and again, it ends where an undisturbed run ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use pmem_tests::scratch::Directory;
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{number, path, run};

const ALL: &[&str] = &["--side", "100", "--generations", "600", "--every", "10"];

fn start(file: &Path, options: &[&str]) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(path("game_of_life"))
        .arg(file)
        .args(options)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was built");
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    (child, lines.map_while(Result::ok))
}

/// What the last line says.
fn result(stdout: &str) -> &str {
    stdout.lines().rfind(|line| line.starts_with("generation ")).expect("it came to its end")
}

#[test]
fn kills_do_not_change_the_history() {
    let directory = Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let undisturbed = directory.path().join("undisturbed");
    let undisturbed = run("game_of_life", &[&[undisturbed.to_str().unwrap()], ALL].concat());
    assert!(undisturbed.success);
    let file = directory.path().join("killed");
    let mut saved = 0;
    // Each run is killed after it said so many times that it saved.
    for patience in [1, 3, 7, 2, 5, 4, 6] {
        let (mut child, lines) = start(&file, ALL);
        let mut left = patience;
        for line in lines {
            if let Some(generation) = line.strip_prefix("from generation ") {
                let from = number(generation, "; ");
                // What was said to be saved is there; what was being saved may be.
                assert!(from == saved || from == saved + 10, "{from} after {saved}");
            } else if let Some(generation) = line.strip_prefix("saved generation ") {
                saved = generation.parse().unwrap();
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!((10..600).contains(&saved), "{saved}");
    let ended = run("game_of_life", &[&[file.to_str().unwrap()], ALL].concat());
    assert!(ended.success);
    assert_eq!(result(&ended.stdout), result(&undisturbed.stdout));
    // And an earlier checkpoint leads to the same end.
    let opened = run("game_of_life", &[&[file.to_str().unwrap()], ALL].concat());
    let kept: Vec<_> =
        opened.stdout.lines().filter_map(|line| line.strip_prefix("kept: ")).collect();
    assert_eq!(kept.len(), 3);
    let (sequence, _) = kept[1].split_once(' ').unwrap();
    let back = run("game_of_life", &[&[file.to_str().unwrap(), "--back", sequence], ALL].concat());
    assert!(back.success);
    assert_eq!(result(&back.stdout), result(&undisturbed.stdout));
}

#[test]
fn a_signal_asks_for_a_checkpoint() {
    let directory = Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let file = directory.path().join("asked");
    let options = ["--side", "64", "--generations", "100000000", "--every", "0"];
    let (mut child, mut lines) = start(&file, &options);
    assert!(lines.next().unwrap().starts_with("from generation 0"));
    kill_process(Pid::from_child(&child), Signal::USR1).unwrap();
    let saved = lines.find_map(|line| line.strip_prefix("saved generation ").map(str::to_owned));
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, mut lines) = start(&file, &options);
    let from = lines.next().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(number(&from, "; ").to_string(), saved.unwrap());
}
