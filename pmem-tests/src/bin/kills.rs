//! Kills a writing process at random moments, many times: `kills DIRECTORY WHAT COUNT SEED`.
//!
//! WHAT is `plain`, `emulated` (cache-line write-backs on DRAM), or `early`, the control, which
//! acknowledges every step before it does it. After every kill the directory is checked; the
//! next process goes on there. Every so many kills it begins with an empty directory.
//!
//! A process that is killed loses nothing that it gave to the kernel, and stores through a shared
//! mapping are the kernel's at once. So this is no evidence that a flush, a fence or an fdatasync
//! is needed or made; it is evidence about order, locks, opening, and files left half made.
//!
//! # Safety
//!
//! Forks a process with one thread. The library is used in the children only, so none inherits a
//! region, a lock or a signal handler of it.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use daxmap::{Emulation, Options};
use memmap2::MmapRaw;
use pmem_tests::load::{Care, Load, check, possible};

/// A kill falls at most this long after the process has opened its files and begun to work.
const DELAY_NS_MAX: u64 = 1_000_000;
/// One kill in so many does not wait for that: it falls into the opening, or before it.
const EARLY_KILLS: u64 = 8;
/// Time after which a process that does not get to work is killed all the same: it has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Kills after which the directory is emptied: files are created and grown at the beginning.
const KILLS_PER_DIRECTORY: u64 = 500;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let run = || -> Result<String, String> {
        let [directory, what, count, seed] = words.as_slice() else {
            return Err("kills DIRECTORY plain|emulated|early COUNT SEED".to_owned());
        };
        let number = |word: &str| word.parse().map_err(|_| format!("not a number: {word}"));
        let what = What::named(what).ok_or_else(|| format!("no {what}"))?;
        Killer::new(Path::new(directory), what, number(seed)?)?.run(number(count)?)
    };
    match run() {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Plain,
    Emulated,
    Early,
}

impl What {
    fn named(name: &str) -> Option<Self> {
        match name {
            "plain" => Some(Self::Plain),
            "emulated" => Some(Self::Emulated),
            "early" => Some(Self::Early),
            _ => None,
        }
    }

    fn options(self) -> Options {
        match self {
            Self::Emulated => Options::new().emulate(Emulation::Adr),
            Self::Plain | Self::Early => Options::new(),
        }
    }
}

struct Killer {
    directory: PathBuf,
    what: What,
    random: u64,
    /// Memory that the processes share.
    shared: MmapRaw,
}

impl Killer {
    fn new(directory: &Path, what: What, seed: u64) -> Result<Self, String> {
        // Not `map_anon`: that memory is private, a child has its own.
        let shared = tempfile::tempfile()
            .and_then(|file| file.set_len(4096).map(|()| file))
            .and_then(|file| MmapRaw::map_raw(&file))
            .map_err(|error| error.to_string())?;
        let directory = directory.join("load");
        Ok(Self { directory, what, random: seed, shared })
    }

    /// The last step acknowledged.
    fn acknowledged(&self) -> &AtomicU64 {
        self.word(0)
    }

    /// Not 0 once the process works.
    fn at_work(&self) -> &AtomicU64 {
        self.word(1)
    }

    #[allow(clippy::cast_ptr_alignment)] // mappings begin at a page
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < 2);
        // SAFETY: the mapping is a page, aligned, and lives as long as `self`; all of its users
        // take its first two words for atomics.
        unsafe { &*self.shared.as_mut_ptr().cast::<AtomicU64>().add(index) }
    }

    /// Sleeps for a random time, mostly after the process has begun to work.
    fn wait(&self, random: u64) {
        if !random.is_multiple_of(EARLY_KILLS) {
            let began = Instant::now();
            while self.at_work().load(Ordering::SeqCst) == 0 && began.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_micros(10));
            }
        }
        std::thread::sleep(Duration::from_nanos(random / EARLY_KILLS % DELAY_NS_MAX));
    }

    fn run(mut self, count: u64) -> Result<String, String> {
        let (mut steps, mut unborn, mut in_step) = (0, 0, 0);
        for kill in 0..count {
            if kill % KILLS_PER_DIRECTORY == 0 {
                let _ = std::fs::remove_dir_all(&self.directory);
                self.acknowledged().store(0, Ordering::SeqCst);
            }
            let before = self.acknowledged().load(Ordering::SeqCst);
            self.kill_one()?;
            let after = self.acknowledged().load(Ordering::SeqCst);
            if after == 0 && !self.directory.join("region").exists() {
                unborn += 1;
                continue;
            }
            let found = check(&self.directory, possible(after))
                .map_err(|what| format!("after {kill} kills, {after} steps: {what}"))?;
            steps += found.steps - before;
            in_step += found.steps - after;
            self.acknowledged().store(found.steps, Ordering::SeqCst);
        }
        Ok(format!(
            "{count} kills, each reopened and checked: {steps} steps done, {in_step} kills between a \
             commit word and its acknowledgement, {unborn} before the region was created"
        ))
    }

    /// Lets a process work for a random time, and kills it.
    fn kill_one(&mut self) -> Result<(), String> {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.at_work().store(0, Ordering::SeqCst);
        // SAFETY: this process has one thread, so the child may do what it likes.
        let child = unsafe { libc::fork() };
        if child < 0 {
            return Err(format!("fork: {}", std::io::Error::last_os_error()));
        }
        if child == 0 {
            let error = self.work();
            eprintln!("the killed process: {error}");
            std::process::abort();
        }
        self.wait(self.random >> 20);
        let mut status = 0;
        // SAFETY: the child is this process's, and has not been waited for.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, &raw mut status, 0);
        }
        if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL {
            Ok(())
        } else {
            Err(format!("the process was not killed, but ended by itself: status {status:#x}"))
        }
    }

    /// What the killed process does; returns only if it fails.
    fn work(&self) -> daxmap::Error {
        let early = u64::from(self.what == What::Early);
        let mut load = match Load::open_with(self.what.options(), &self.directory, Care::Full) {
            Ok(load) => load,
            Err(error) => return error,
        };
        self.at_work().store(1, Ordering::SeqCst);
        loop {
            self.acknowledged().store(load.steps() + early, Ordering::SeqCst);
            if let Err(error) = load.step() {
                return error;
            }
        }
    }
}
