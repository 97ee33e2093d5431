//! `kv`: what it acknowledged is there, whenever it is killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use pmem_tests::random::Random;
use pmem_tests::scratch::Directory;

use crate::program::{path, run};

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const KILLS: u32 = 60;
const SEED: u64 = 11;

fn kv(store: &Path, command: &[&str]) -> Output {
    Command::new(path("kv")).arg(store).args(command).output().unwrap()
}

type Pairs = BTreeMap<String, String>;

fn listed(store: &Path) -> Pairs {
    let output = kv(store, &["list"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ').unwrap();
        (key.to_owned(), value.to_owned())
    };
    text.lines().map(pair).collect()
}

/// The snapshots that are there.
fn snapshots(store: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_str().unwrap().contains("snapshot")).collect()
}

#[test]
fn it_stores_and_says_what_is_wrong() {
    let directory = Directory::new(HERE);
    let store = directory.path().join("store");
    let name = store.to_str().unwrap();
    let ok = |command: &[&str]| {
        let ended = run("kv", &[&[name], command].concat());
        assert!(ended.success, "{command:?}");
        ended.stdout
    };
    assert!(!run("kv", &[name, "get", "a"]).success, "there is none yet");
    assert!(!run("kv", &[name, "mend"]).success && !store.exists());
    assert_eq!(ok(&["put", "a", "one"]), "ok\n");
    ok(&["put", "b", "two words"]);
    ok(&["put", "a", "three"]);
    assert_eq!((ok(&["get", "a"]), ok(&["get", "b"])), ("three\n".into(), "two words\n".into()));
    ok(&["put", "c", ""]);
    assert_eq!(ok(&["list"]), "a three\nb two words\nc \n");
    assert_eq!(ok(&["delete", "a"]), "ok\n");
    assert_eq!(ok(&["delete", "a"]), "no such key\n");
    assert!(!run("kv", &[name, "get", "a"]).success);
    ok(&["compact"]);
    assert_eq!(ok(&["list"]), "b two words\nc \n");
    ok(&["put", "d", "four"]);
    ok(&["compact"]);
    ok(&["compact"]);
    ok(&["delete", "b"]);
    assert_eq!(ok(&["list"]), "c \nd four\n");
    let left = snapshots(&store);
    assert_eq!(left, [store.join("snapshot-2")], "the one before is gone");
    // Larger than a segment of the log.
    assert!(!run("kv", &[name, "put", "large", &"x".repeat(70_000)]).success);
    assert_eq!(ok(&["list"]), "c \nd four\n");
}

#[test]
fn parts_that_are_not_its_own_are_refused() {
    let directory = Directory::new(HERE);
    let store = directory.path().join("store");
    for command in [&["put", "a", "one"][..], &["compact"], &["put", "b", "two"]] {
        assert!(kv(&store, command).status.success());
    }
    let snapshot = store.join("snapshot-1");
    for file in ["log", "state", "snapshot-1"] {
        let whole = fs::read(store.join(file)).unwrap();
        fs::remove_file(store.join(file)).unwrap();
        // Without its state, a store would be a new one: its log says that it is not.
        for command in [&["list"][..], &["put", "c", "three"]] {
            assert!(!kv(&store, command).status.success(), "without {file}: {command:?}");
        }
        fs::write(store.join(file), &whole).unwrap();
        assert_eq!(listed(&store).len(), 2, "with {file} again");
    }
    let whole = fs::read(&snapshot).unwrap();
    let mut damaged = whole.clone();
    // In the only record.
    damaged[16384 + 8192 + 41] ^= 1;
    fs::write(&snapshot, damaged).unwrap();
    let output = kv(&store, &["list"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("damaged") && said.contains("snapshot-1"), "{said}");
    fs::write(&snapshot, whole).unwrap();
    assert_eq!(listed(&store).len(), 2);
}

#[test]
fn more_than_the_log_holds_is_compacted() {
    let directory = Directory::new(HERE);
    let store = directory.path().join("store");
    let mut program = Command::new(path("kv"))
        .arg(&store)
        .arg("lines")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = program.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        for number in 0..200 {
            // Ten megabytes, into a log of one.
            writeln!(input, "put key-{} {number}-{}", number % 150, "v".repeat(50_000)).unwrap();
        }
    });
    let answers = BufReader::new(program.stdout.take().unwrap()).lines();
    assert_eq!(answers.filter(|answer| answer.as_ref().unwrap() == "ok").count(), 200);
    feeder.join().unwrap();
    assert!(program.wait().unwrap().success());
    let found = listed(&store);
    assert_eq!(found.len(), 150);
    for (key, value) in &found {
        let key: u64 = key.strip_prefix("key-").unwrap().parse().unwrap();
        let number = if key < 50 { key + 150 } else { key };
        assert!(value.starts_with(&format!("{number}-v")) && value.len() > 50_000);
    }
    assert_eq!(snapshots(&store).len(), 1);
}

/// The commands of a run, of which the store answers each before it takes the next.
fn commands(random: &mut Random) -> Vec<(String, Option<String>)> {
    let command = |index| {
        let key = format!("key-{}", random.below(200));
        match random.below(100) {
            // A key that is none: a compaction.
            0 => (String::new(), None),
            1..20 => (key, None),
            _ => {
                let length = random.below(600) as usize;
                (key, Some(format!("{index}-{}", "v".repeat(length))))
            }
        }
    };
    (0..10_000).map(command).collect()
}

fn apply(pairs: &mut Pairs, (key, value): &(String, Option<String>)) {
    match value {
        Some(value) => drop(pairs.insert(key.clone(), value.clone())),
        None => drop(pairs.remove(key)),
    }
}

#[test]
fn killed_at_random_it_has_all_that_it_acknowledged() {
    let directory = Directory::new(HERE);
    let store = directory.path().join("store");
    let mut random = Random::new(SEED);
    let (mut pairs, mut acknowledged_in_all, mut ahead) = (Pairs::new(), 0, 0);
    for _ in 0..KILLS {
        let commands = commands(&mut random);
        let lines = commands.iter().map(|(key, value)| match value {
            Some(value) => format!("put {key} {value}\n"),
            None if key.is_empty() => "compact\n".to_owned(),
            None => format!("delete {key}\n"),
        });
        let text: String = lines.collect();
        let mut program = Command::new(path("kv"))
            .arg(&store)
            .arg("lines")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = program.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || drop(input.write_all(text.as_bytes())));
        let output = BufReader::new(program.stdout.take().unwrap());
        let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).count());
        std::thread::sleep(Duration::from_micros(random.below(150_000)));
        program.kill().unwrap();
        program.wait().unwrap();
        feeder.join().unwrap();
        let acknowledged = reader.join().unwrap();
        acknowledged_in_all += acknowledged;
        if !store.join("log").exists() {
            assert_eq!(acknowledged, 0);
            continue;
        }
        for command in &commands[..acknowledged] {
            apply(&mut pairs, command);
        }
        let found = listed(&store);
        if found != pairs {
            // The one that was not acknowledged may be there too, and no other.
            apply(&mut pairs, &commands[acknowledged]);
            assert_eq!(found, pairs, "{acknowledged} commands were acknowledged");
            ahead += 1;
        }
    }
    println!(
        "{KILLS} kills, {acknowledged_in_all} commands acknowledged, {ahead} times one more was \
         there, seed {SEED}"
    );
    assert!(acknowledged_in_all > 100, "hardly anything was done");
    assert!(snapshots(&store).len() <= 2);
    assert!(kv(&store, &["compact"]).status.success());
    assert_eq!((listed(&store), snapshots(&store).len()), (pairs, 1));
    let files = fs::read_dir(&store).unwrap().count();
    assert_eq!(files, 3, "nothing is left over: log, state, snapshot");
}

#[test]
fn it_can_be_looked_at_while_it_is_written() {
    let directory = Directory::new(HERE);
    let store = directory.path().join("store");
    let mut program = Command::new(path("kv"))
        .arg(&store)
        .arg("lines")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = program.stdin.take().unwrap();
    let mut answers = BufReader::new(program.stdout.take().unwrap()).lines();
    for number in 0..40 {
        writeln!(input, "put number {number}").unwrap();
        assert_eq!(answers.next().unwrap().unwrap(), "ok");
        if number % 10 == 9 {
            writeln!(input, "compact").unwrap();
            assert_eq!(answers.next().unwrap().unwrap(), "ok");
        }
        let seen = kv(&store, &["get", "number"]).stdout;
        assert_eq!(String::from_utf8(seen).unwrap(), format!("{number}\n"));
    }
    let output = kv(&store, &["put", "number", "other"]);
    assert!(!output.status.success(), "one writer at a time");
    assert!(String::from_utf8_lossy(&output.stderr).contains("locked"));
    drop(input);
    assert!(program.wait().unwrap().success());
}
