//! `counter`: no acknowledged count is lost, whenever it is killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pmem_tests::random::Random;
use pmem_tests::scratch::Directory;

use crate::program::{path, run};

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const KILLS: u32 = 60;
const SEED: u64 = 3;

fn shown(file: &Path) -> u64 {
    let output = Command::new(path("counter")).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn it_counts_and_says_what_is_wrong() {
    let directory = Directory::new(HERE);
    let file = directory.path().join("count");
    let name = file.to_str().unwrap();
    assert!(!run("counter", &[name]).success, "there is none yet");
    assert_eq!(run("counter", &[name, "add"]).stdout, "1\n");
    assert_eq!(run("counter", &[name, "add", "41"]).stdout, "42\n");
    assert_eq!(shown(&file), 42);
    assert!(!run("counter", &[name, "add", "-1"]).success);
    assert!(!run("counter", &[name, "add", "18446744073709551615"]).success);
    assert_eq!(shown(&file), 42);
    std::fs::write(&file, "not a counter").unwrap();
    assert!(!run("counter", &[name, "add"]).success);
    assert_eq!(std::fs::read(&file).unwrap(), b"not a counter");
}

#[test]
fn killed_at_random_it_loses_no_count_and_gives_none_twice() {
    let directory = Directory::new(HERE);
    let file = directory.path().join("count");
    let mut random = Random::new(SEED);
    let (mut least, mut acknowledged_in_all) = (0, 0);
    for _ in 0..KILLS {
        let mut program = Command::new(path("counter"))
            .arg(&file)
            .arg("lines")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = program.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || while input.write_all(b"one\n").is_ok() {});
        let output = BufReader::new(program.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let numbers = output.lines().map_while(Result::ok).map(|line| line.parse::<u64>());
            numbers.map_while(Result::ok).collect::<Vec<u64>>()
        });
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        program.kill().unwrap();
        program.wait().unwrap();
        feeder.join().unwrap();
        let said = reader.join().unwrap();
        assert!(said.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap in {said:?}");
        assert!(said.first().is_none_or(|&first| first > least), "{least} was given before");
        acknowledged_in_all += said.len();
        if !file.exists() {
            assert!(said.is_empty());
            continue;
        }
        let found = shown(&file);
        let acknowledged = said.last().map_or(least, |&last| last);
        assert!(
            (acknowledged..=acknowledged + 1).contains(&found),
            "{acknowledged} was acknowledged, {found} is found"
        );
        least = found;
    }
    println!(
        "{KILLS} kills, {acknowledged_in_all} counts acknowledged, {least} counted, seed {SEED}"
    );
    assert!(acknowledged_in_all > 100, "hardly anything was counted");
}
