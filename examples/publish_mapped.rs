//! Creates a mapped file of 1 to 8 MB that never exists under its final name with other data, is
//! durable when the call returns, and stays mapped.
//!
//! ```text
//! cargo run --release --example publish_mapped -- FILE [MEGABYTES [PUBLICATIONS]]
//! ```
//!
//! Which of msync, fsync, rename and fsync does that take? The program does it with the library,
//! and then once more with its own hands, call by call, with the time that each call took.
//! `docs/publish.md` says why each is there.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use daxmap::publish::{Commit, clean_leftovers};
use daxmap::{Backend, Options, Region};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: publish_mapped FILE [MEGABYTES [PUBLICATIONS]]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("publish_mapped: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().ok_or(USAGE)?);
    let megabytes: usize = arguments.next().map_or(Ok(1), |number| number.parse())?;
    let publications: usize = arguments.next().map_or(Ok(5), |number| number.parse())?;
    if !(1..=8).contains(&megabytes) || publications == 0 {
        return Err(USAGE.into());
    }
    let data: Vec<u8> = (0..megabytes << 20).map(|at| (at % 251) as u8).collect();

    // What a run that was killed before has left, if anything.
    let leftovers = clean_leftovers(directory_of(&path))?;
    if leftovers.removed > 0 {
        println!("removed {} drafts that nobody had", leftovers.removed);
    }

    let mut times = Vec::with_capacity(publications);
    let mut backend = Backend::PageCache;
    for publication in 0..publications {
        let began = Instant::now();
        let draft = Options::new().len(data.len() as u64).draft(&path)?;
        draft.write_flush(0, &data)?;
        let region = draft.commit(Commit::Replace)?;
        times.push(began.elapsed());

        if publication == 0 {
            println!("{}", region.report().verdict_sentence());
            backend = region.backend();
        }
        // Still mapped, still the draft's memory: now under its name, and written in place.
        region.write_persist(0, b"in place")?;
        let mut word = [0; 8];
        region.read(0, &mut word)?;
        assert_eq!(&word, b"in place");
        region.close()?;
    }
    times.sort_unstable();
    println!(
        "the library: {megabytes} MB durable under its name in {:?} (median of {publications}), \
         the slowest in {:?}",
        times[publications / 2],
        times[publications - 1]
    );

    match backend {
        Backend::PageCache => by_hand(&path, &data),
        Backend::Volatile => {
            println!("in memory nothing is synced, and nothing outlives the kernel");
            Ok(())
        }
        other => {
            println!("on {other}, stores are written back by the processor: no msync, no fsync of");
            println!("the file; only its name needs the fsync of the directory");
            Ok(())
        }
    }
}

/// The calls that the library makes to replace a file on ext4 or xfs, and what each takes. What it
/// does about attributes, links, locks and other filesystems is left out.
fn by_hand(path: &Path, data: &[u8]) -> Outcome<()> {
    let mut took = Vec::new();
    let temporary = directory_of(path).join(".publish_mapped.by-hand");
    let directory = File::open(directory_of(path))?;
    let file = timed(&mut took, "open O_TMPFILE", || {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        rustix::fs::openat(&directory, ".", flags, Mode::RUSR | Mode::WUSR)
    })?;
    timed(&mut took, "fallocate", || {
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, data.len() as u64)
    })?;
    timed(&mut took, "pwrite", || write_all(&file, data))?;
    timed(&mut took, "fdatasync of the file", || rustix::fs::fdatasync(&file))?;
    timed(&mut took, "linkat, a temporary name", || {
        use std::os::fd::AsRawFd;
        let unnamed = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        rustix::fs::linkat(CWD, unnamed.as_str(), CWD, &temporary, AtFlags::SYMLINK_FOLLOW)
    })?;
    timed(&mut took, "rename", || rustix::fs::rename(&temporary, path))?;
    timed(&mut took, "fsync of the directory", || rustix::fs::fsync(&directory))?;

    let total: Duration = took.iter().map(|(_, took)| *took).sum();
    println!("by hand, call by call:");
    for (call, took) in &took {
        println!("  {call:<26} {:>9.1} us", took.as_secs_f64() * 1e6);
    }
    println!("  {:<26} {:>9.1} us", "together", total.as_secs_f64() * 1e6);
    println!(
        "no msync: what pwrite wrote is in the page cache, and the mapping shows the same pages"
    );
    Ok(())
}

fn timed<T, E>(
    took: &mut Vec<(&'static str, Duration)>,
    call: &'static str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let began = Instant::now();
    let result = work();
    took.push((call, began.elapsed()));
    result
}

fn write_all(file: impl AsFd, data: &[u8]) -> Result<(), rustix::io::Errno> {
    let mut done = 0;
    while done < data.len() {
        done += rustix::io::pwrite(&file, &data[done..], done as u64)?;
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
