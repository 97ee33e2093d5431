//! A process that stores all the time is killed at random moments. What that does not prove is
//! said in docs/guest_runs.md: the page cache survives.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use daxmap::state::State;
use pmem_tests::random::Random;
use pmem_tests::scratch::{Directory, Filesystem};

const STORER: &str = env!("CARGO_BIN_EXE_storer");
const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const SEED: u64 = 11;

fn kills() -> u64 {
    std::env::var("DAXMAP_KILLS").map_or(400, |n| n.parse::<u64>().expect("a number of kills") / 20)
}

/// The file's value, which is whole; none if there is no file.
fn found(path: &Path) -> Option<u64> {
    if !path.exists() {
        return None;
    }
    let state = State::<[u64; 512]>::open(path).unwrap();
    let value = state.load();
    assert!(value.iter().all(|&word| word == value[0]), "torn");
    Some(value[0])
}

/// Lets a process store for a random time, kills it, and looks. How many it had acknowledged.
fn kill_one(path: &Path, emulated: bool, wait: Duration) -> u64 {
    let before = found(path);
    let how = if emulated { "emulated" } else { "plain" };
    let mut storer = Command::new(STORER)
        .args([path.to_str().unwrap(), how])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(storer.stdout.take().unwrap()).lines();
    // The pipe is read to its end after the kill: it holds more than is stored in this time.
    std::thread::sleep(wait);
    storer.kill().unwrap();
    storer.wait().unwrap();
    let said = lines.map_while(Result::ok).last().map(|line| line.parse::<u64>().unwrap());
    let found = found(path);
    let least = said.or(before);
    assert!(found >= least, "{least:?} was acknowledged, {found:?} is found");
    let most = least.map_or(1, |least| least + 1);
    assert!(found.is_none_or(|found| found <= most), "{found:?} was never stored: {least:?}");
    found.unwrap_or(0) - before.unwrap_or(0)
}

fn kill_many(name: &str, directory: &Path, emulated: bool) {
    let mut random = Random::new(SEED);
    let (mut stores, mut path) = (0, directory.join("root"));
    for kill in 0..kills() {
        if kill % 20 == 0 {
            path = directory.join(format!("root-{kill}"));
        }
        stores += kill_one(&path, emulated, Duration::from_micros(random.below(20_000)));
    }
    println!(
        "\nevidence: SIGKILL of a process that stores a state of 4 KiB, {name} | {} kills, each \
         reopened and checked, {stores} stores, 0 lost or torn | that a flush or a sync is needed \
         at all: the page cache survives",
        kills()
    );
    assert!(stores > kills(), "hardly anything was stored");
}

#[test]
fn in_the_build_directory() {
    kill_many("page cache", Directory::new(HERE).path(), false);
}

#[test]
fn on_tmpfs_as_persistent_memory() {
    kill_many("emulated cache lines", Filesystem::tmpfs(HERE, 64 << 20).path(), true);
}
