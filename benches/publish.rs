//! Publishing a whole file, side by side: this library, the shortest sequence written by hand, one
//! by hand that gives what a draft gives, and two crates.
//!
//! ```text
//! cargo bench -p daxmap --bench publish [-- DIRECTORY [ROUNDS]]
//! ```
//!
//! Every way replaces the same file in the same directory, one after another in turn, in an order
//! that rotates, so that all of them meet the same disk. What is timed: from nothing to a durable
//! file under its final name. The library's is open and mapped then as well, and what it needs to
//! close is part of its time.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daxmap::publish::Commit;
use daxmap::{Options, Region};
use rustix::fs::{self, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};

type Outcome = Result<(), Box<dyn Error>>;
type Way = (&'static str, fn(&Path, &[u8]) -> Outcome);

const MEBIBYTES: [usize; 3] = [1, 4, 8];
const ROUNDS_DEFAULT: usize = 60;
/// Whatever is written is written in pieces of this size, by every way.
const PIECE_BYTES: usize = 1 << 20;

const WAYS: [Way; 5] = [
    ("by hand: open, write, fsync, rename, fsync directory", by_hand),
    ("by hand, as much: no name, space allocated, mapped, locked", by_hand_as_much),
    ("daxmap: draft, write, commit", daxmap),
    ("atomic-write-file: open, write, commit, fsync directory", atomic_write_file),
    ("tempfile: new, write, fsync, persist, fsync directory", tempfile_persist),
];

fn by_hand(path: &Path, data: &[u8]) -> Outcome {
    let temporary = path.with_extension("new");
    let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    for (i, piece) in data.chunks(PIECE_BYTES).enumerate() {
        file.write_all_at(piece, (i * PIECE_BYTES) as u64)?;
    }
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_directory(path)
}

/// What a draft gives besides: a crash before the name leaves nothing behind, a full disk is an error
/// before the first write, the file is mapped when it has its name, and nobody else has opened it.
fn by_hand_as_much(path: &Path, data: &[u8]) -> Outcome {
    let directory =
        fs::open(directory_of(path), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = File::from(fs::openat(&directory, ".", flags, Mode::from_raw_mode(0o644))?);
    fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::fallocate(&file, FallocateFlags::empty(), 0, data.len() as u64)?;
    // SAFETY: nothing reads the mapping.
    #[allow(unsafe_code)]
    let mapping = unsafe { memmap2::Mmap::map(&file)? };
    for (i, piece) in data.chunks(PIECE_BYTES).enumerate() {
        file.write_all_at(piece, (i * PIECE_BYTES) as u64)?;
    }
    file.sync_data()?;
    fs::linkat(&file, "", &directory, "published.new", AtFlags::EMPTY_PATH)?;
    let name = path.file_name().ok_or("no name")?;
    fs::renameat(&directory, "published.new", &directory, name)?;
    fs::fsync(&directory)?;
    drop(mapping);
    Ok(())
}

fn daxmap(path: &Path, data: &[u8]) -> Outcome {
    let draft = Options::new().len(data.len() as u64).draft(path)?;
    for (i, piece) in data.chunks(PIECE_BYTES).enumerate() {
        draft.write((i * PIECE_BYTES) as u64, piece)?;
    }
    draft.commit(Commit::Replace)?.close()?;
    Ok(())
}

fn atomic_write_file(path: &Path, data: &[u8]) -> Outcome {
    let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
    for piece in data.chunks(PIECE_BYTES) {
        file.write_all(piece)?;
    }
    // Syncs the file and renames it; whether the directory is synced too is not promised.
    file.commit()?;
    sync_directory(path)
}

fn tempfile_persist(path: &Path, data: &[u8]) -> Outcome {
    let mut file = tempfile::NamedTempFile::new_in(directory_of(path))?;
    for piece in data.chunks(PIECE_BYTES) {
        file.write_all(piece)?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_directory(path)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn sync_directory(path: &Path) -> Outcome {
    File::open(directory_of(path))?.sync_all()?;
    Ok(())
}

fn main() -> Outcome {
    // cargo adds flags of its own, such as --bench.
    let mut arguments =
        std::env::args_os().skip(1).filter(|a| !a.as_encoded_bytes().starts_with(b"--"));
    let parent =
        arguments.next().map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let rounds = match arguments.next() {
        Some(number) => number.to_str().ok_or("ROUNDS is not a number")?.parse()?,
        None => ROUNDS_DEFAULT,
    };
    let directory = tempfile::tempdir_in(parent)?;
    let path = directory.path().join("published");
    let report = daxmap::probe::probe(&path)?;
    println!("{}", report.verdict_sentence());
    for mebibytes in MEBIBYTES {
        let data: Vec<u8> = (0..mebibytes << 20).map(|i| (i % 251) as u8).collect();
        let times = interleave(rounds, &path, &data)?;
        let reference = median(&times[0]);
        println!("\n{mebibytes} MiB, {rounds} rounds   median us   10th percentile   x by hand");
        for ((name, _), times) in WAYS.iter().zip(&times) {
            let median = median(times);
            println!(
                "{name:<58} {:>8} {:>8} {:>8.2}",
                median.as_micros(),
                times[times.len() / 10].as_micros(),
                median.as_secs_f64() / reference.as_secs_f64()
            );
        }
    }
    Ok(())
}

/// Sorted times of every way.
fn interleave(
    rounds: usize,
    path: &Path,
    data: &[u8],
) -> Result<Vec<Vec<Duration>>, Box<dyn Error>> {
    let mut times = vec![Vec::with_capacity(rounds); WAYS.len()];
    for (_, way) in WAYS {
        way(path, data)?;
    }
    for round in 0..rounds {
        for turn in 0..WAYS.len() {
            let which = (round + turn) % WAYS.len();
            let began = Instant::now();
            WAYS[which].1(path, data)?;
            times[which].push(began.elapsed());
            assert_eq!(std::fs::metadata(path)?.len(), data.len() as u64);
        }
    }
    for times in &mut times {
        times.sort_unstable();
    }
    Ok(times)
}

fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}
