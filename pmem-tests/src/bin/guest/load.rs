//! Loads that somebody will cut the power of.
//!
//! # Safety
//!
//! An instruction without effect that a recording emulator sees, and stores through a mapping.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use daxmap::Region;
use pmem_tests::load::{Care, Load, check, check_opened};
use pmem_tests::storing::{self, Stores};
use store_recorder::ACKNOWLEDGE;

use crate::mapping::{TRIAL_LEN, Trial};

/// How a step is acknowledged.
#[derive(Clone, Copy)]
enum Acknowledge {
    /// By an instruction that the recorder sees at once: no system call, whose locks and fences
    /// could make durable what the load forgot.
    Recorder,
    /// By a line of output.
    Console,
    /// By a mark in the log of the device [`LOG_NAME`].
    Log,
}

/// What device-mapper calls the device whose writes are logged.
const LOG_NAME: &str = "log";

impl Acknowledge {
    fn named(name: &str) -> Option<Self> {
        match name {
            "recorder" => Some(Self::Recorder),
            "console" => Some(Self::Console),
            "log" => Some(Self::Log),
            _ => None,
        }
    }

    fn step(self, step: u64) {
        match self {
            Self::Recorder => {
                // SAFETY: a nop; its operand names an address and does not access it.
                unsafe {
                    std::arch::asm!("nop dword ptr [rax + {magic}]", magic = const ACKNOWLEDGE,
                        in("rax") step, options(nostack, preserves_flags));
                }
            }
            Self::Console => {
                println!("acknowledged {step}");
                io::stdout().flush().expect("the host reads what the load says");
            }
            Self::Log => {
                let mark = format!("step-{step}");
                let words = ["message", LOG_NAME, "0", "mark", &mark];
                let marked = Command::new("dmsetup").args(words).status();
                assert!(marked.is_ok_and(|status| status.success()), "no mark {step}");
            }
        }
    }
}

/// Runs the load in `directory` until somebody ends it, or up to the step `last`.
pub(crate) fn run(
    directory: &Path,
    care: &str,
    how: &str,
    last: Option<&String>,
) -> Result<(), String> {
    let care = Care::named(care).ok_or_else(|| format!("no care {care}"))?;
    let how = Acknowledge::named(how).ok_or_else(|| format!("no such way: {how}"))?;
    let last = last.map_or(Ok(u64::MAX), |word| word.parse());
    let last = last.map_err(|error| format!("the last step: {error}"))?;
    let said = |error: daxmap::Error| error.to_string();
    let mut load = Load::open(directory, care).map_err(said)?;
    println!("backend={} durability={}", load.region().backend(), load.region().durability());
    while load.steps() < last {
        how.step(load.step().map_err(said)?);
    }
    Ok(())
}

/// Checks what a load left, through the library and through read(2).
pub(crate) fn check_both(directory: &Path, least: &str, most: &str) -> Result<(), String> {
    let steps = |word: &str| word.parse().map_err(|_| format!("not a number of steps: {word}"));
    let possible = steps(least)?..=steps(most)?;
    let found = check_opened(directory, possible.clone())?;
    check(directory, possible)?;
    println!("found {}", found.steps);
    Ok(())
}

/// Stores into a state, a log, two working sets and pages in turn, until somebody ends it.
pub(crate) fn run_stores(directory: &Path, care: &str, how: &str) -> Result<(), String> {
    let care = Care::named(care).ok_or_else(|| format!("no care {care}"))?;
    let how = Acknowledge::named(how).ok_or_else(|| format!("no such way: {how}"))?;
    let said = |error: daxmap::Error| error.to_string();
    let mut stores = Stores::open(directory, care).map_err(said)?;
    println!("{}", stores.backend());
    loop {
        how.step(stores.step().map_err(said)?);
    }
}

/// Checks what they left.
pub(crate) fn check_stores(directory: &Path, least: &str, most: &str) -> Result<(), String> {
    let steps = |word: &str| word.parse().map_err(|_| format!("not a number of steps: {word}"));
    let found = storing::check(directory, &(steps(least)?..=steps(most)?))?;
    println!("found {found}");
    Ok(())
}

const PAGE: usize = 4096;

/// Stores to one page of a hole after the other, each written back and fenced, and acknowledged:
/// durable if the mapping is `MAP_SYNC`, because the fault at the store made the block's place in
/// the file durable first; without it that is still in memory. The last page is `last`, at most
/// that of the mapping.
pub(crate) fn sparse(path: &Path, sync: &str, how: &str, last: Option<&String>) -> io::Result<()> {
    let how = Acknowledge::named(how).ok_or(io::ErrorKind::InvalidInput)?;
    let last = last.map_or(Ok(usize::MAX), |word| word.parse()).map_err(io::Error::other)?;
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(TRIAL_LEN as u64)?;
    file.sync_all()?;
    File::open(path.parent().expect("a file in a directory"))?.sync_all()?;
    let flags =
        if sync == "sync" { libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC } else { libc::MAP_SHARED };
    let mapping = Trial::map(&file, libc::PROT_READ | libc::PROT_WRITE, flags)?;
    println!("mapped");
    for page in 1..=last.min(TRIAL_LEN / PAGE - 1) {
        let word = mapping.address.wrapping_byte_add(page * PAGE).cast::<u64>();
        // SAFETY: inside the mapping, aligned, and nobody else has the file. The write-back and
        // the fence change nothing that the program sees.
        unsafe {
            word.write_volatile(page as u64);
            std::arch::x86_64::_mm_clflush(word.cast());
            std::arch::x86_64::_mm_sfence();
        }
        how.step(page as u64);
    }
    if last < TRIAL_LEN / PAGE {
        return Ok(());
    }
    // Nothing more to do: whoever records this ends it.
    loop {
        std::thread::park();
    }
}
