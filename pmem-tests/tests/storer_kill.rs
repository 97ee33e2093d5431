//! A process that stores all the time into a state, a log or a working set is killed at random
//! moments. What that does not prove is said in docs/guest_runs.md: the page cache survives.
//!
//! `DAXMAP_KILLS` divided by 50 is the number of kills of each, 200 unless given.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use daxmap::{Emulation, Options};
use pmem_tests::random::Random;
use pmem_tests::scratch::{Directory, Filesystem};
use pmem_tests::storing::{self, Structure};

const STORER: &str = env!("CARGO_BIN_EXE_storer");
const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const SEED: u64 = 11;
/// Kills after which another file is begun.
const KILLS_PER_FILE: u64 = 20;

fn kills() -> u64 {
    std::env::var("DAXMAP_KILLS").map_or(200, |n| n.parse::<u64>().expect("a number of kills") / 50)
}

/// A process that stores, on persistent memory that is emulated or on the page cache.
struct Storer {
    structure: Structure,
    emulated: bool,
}

impl Storer {
    /// The number that the file holds; none if there is no file.
    fn found(&self, path: &Path) -> Option<u64> {
        let region = Options::new();
        let region = if self.emulated { region.emulate(Emulation::Adr) } else { region };
        path.exists().then(|| storing::found(self.structure, path, region).expect("it opens"))
    }

    /// Lets the process store for a time, kills it, and looks. How much it has stored. The time
    /// begins with the process, in which the kill may come before the file is made, or with its first
    /// store, however busy the machine is.
    fn kill(&self, path: &Path, wait: Duration, after_first: bool) -> u64 {
        let before = self.found(path);
        let mut process = Command::new(STORER)
            .arg(path)
            .args([self.structure.name(), if self.emulated { "emulated" } else { "plain" }])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program of this package runs");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let first = if after_first { lines.next() } else { None };
        // The pipe is read to its end after the kill: when it is full, the process waits.
        std::thread::sleep(wait);
        process.kill().expect("it is killed");
        let status = process.wait().expect("it has ended");
        assert_eq!(status.code(), None, "it ended by itself");
        let said = first.into_iter().chain(lines).map_while(Result::ok).last();
        let said = said.map(|line| line.parse().expect("a number"));
        let found = self.found(path);
        let least = said.or(before);
        assert!(found >= least, "{least:?} was acknowledged, {found:?} is found");
        let most = least.map_or(1, |least| least + 1);
        assert!(found.is_none_or(|found| found <= most), "{found:?} was never stored: {least:?}");
        found.unwrap_or(0) - before.unwrap_or(0)
    }

    fn kill_many(&self, directory: &Path) {
        let mut random = Random::new(SEED);
        let (mut stores, mut path) = (0, directory.to_owned());
        for kill in 0..kills() {
            if kill % KILLS_PER_FILE == 0 {
                // On a busy machine no process may have come as far as to make it.
                if kill > 0 && path.exists() {
                    std::fs::remove_file(&path).expect("the last one can go");
                }
                path = directory.join(format!("file-{kill}"));
            }
            let wait = Duration::from_micros(random.below(20_000));
            stores += self.kill(&path, wait, kill % 4 > 0);
        }
        let what = match self.structure {
            Structure::State => "stores a state of 4 KiB",
            Structure::Log => "appends to a log, and releases",
            Structure::Shadow => "takes checkpoints, shadow pages",
            Structure::Redo => "takes checkpoints, redo record",
            Structure::Pages => "replaces pages of 16 KiB",
        };
        println!(
            "\nevidence: SIGKILL of a process that {what}, {} | {} kills, each reopened and \
             checked, {stores} stored, 0 lost or torn | that a flush or a sync is needed at all: \
             the page cache survives",
            if self.emulated { "emulated cache lines" } else { "page cache" },
            kills()
        );
        // Three of four have stored something.
        assert!(stores >= kills() / 2, "hardly anything was stored: {stores} by {}", kills());
    }
}

fn in_the_build_directory(structure: Structure) {
    Storer { structure, emulated: false }.kill_many(Directory::new(HERE).path());
}

fn on_tmpfs_as_persistent_memory(structure: Structure) {
    Storer { structure, emulated: true }.kill_many(Filesystem::tmpfs(HERE, 64 << 20).path());
}

#[test]
fn state_in_the_build_directory() {
    in_the_build_directory(Structure::State);
}

#[test]
fn state_on_tmpfs_as_persistent_memory() {
    on_tmpfs_as_persistent_memory(Structure::State);
}

#[test]
fn log_in_the_build_directory() {
    in_the_build_directory(Structure::Log);
}

#[test]
fn log_on_tmpfs_as_persistent_memory() {
    on_tmpfs_as_persistent_memory(Structure::Log);
}

#[test]
fn shadow_pages_in_the_build_directory() {
    in_the_build_directory(Structure::Shadow);
}

#[test]
fn shadow_pages_on_tmpfs_as_persistent_memory() {
    on_tmpfs_as_persistent_memory(Structure::Shadow);
}

#[test]
fn redo_record_in_the_build_directory() {
    in_the_build_directory(Structure::Redo);
}

#[test]
fn redo_record_on_tmpfs_as_persistent_memory() {
    on_tmpfs_as_persistent_memory(Structure::Redo);
}

#[test]
fn pages_in_the_build_directory() {
    in_the_build_directory(Structure::Pages);
}

#[test]
fn pages_on_tmpfs_as_persistent_memory() {
    on_tmpfs_as_persistent_memory(Structure::Pages);
}
