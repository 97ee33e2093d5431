//! A whole file that takes another's place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use daxmap::publish::Commit;
use daxmap::{Options, Region};

use super::super::scratch::{doing, is_final};
use super::{FILE_SIZES, Job};

/// Both ways write pieces of this many bytes.
const PIECE: usize = 1 << 20;

/// Replaces the file of that job with `data`; both ways share the name.
pub fn replace(job: Job, directory: &Path, data: &[u8]) -> io::Result<()> {
    let path = directory.join(format!("whole-{}", data.len()));
    if job.is_own() { publish(&path, data) } else { by_hand(directory, &path, data) }
}

/// The jobs that are possible in `directory`; the rest become notes.
pub fn available(directory: &Path, notes: &mut Vec<String>) -> io::Result<Vec<Job>> {
    let data = vec![0xa5; FILE_SIZES[0]];
    let mut missing = Vec::new();
    for job in Job::files().filter(|job| job.bytes() == data.len()) {
        match replace(job, directory, &data) {
            Ok(()) => {}
            Err(error) if is_final(&error) => {
                return Err(doing(format!("bench: {}", job.label()))(error));
            }
            Err(error) => {
                notes.push(format!("{}: not available, {error}", job.label()));
                missing.push(job.key());
            }
        }
    }
    Ok(Job::files().filter(|job| !missing.contains(&job.key())).collect())
}

fn publish(path: &Path, data: &[u8]) -> io::Result<()> {
    let draft = Options::new().len(data.len() as u64).draft(path)?;
    for (number, piece) in data.chunks(PIECE).enumerate() {
        draft.write((number * PIECE) as u64, piece)?;
    }
    Ok(draft.commit(Commit::Replace)?.close()?)
}

fn by_hand(directory: &Path, path: &Path, data: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    for (number, piece) in data.chunks(PIECE).enumerate() {
        file.write_all_at(piece, (number * PIECE) as u64)?;
    }
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_leave_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        for bytes in [FILE_SIZES[0], 3 * PIECE + 5] {
            let data: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
            for job in [Job::Publish { bytes }, Job::PublishByHand { bytes }] {
                for times in 1..=2 {
                    replace(job, directory.path(), &data).unwrap();
                    let path = directory.path().join(format!("whole-{bytes}"));
                    let same = fs::read(&path).unwrap() == data;
                    assert!(same, "{job:?}, {times}");
                    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "{job:?}, {times}");
                }
                fs::remove_file(directory.path().join(format!("whole-{bytes}"))).unwrap();
            }
        }
    }

    #[test]
    fn what_cannot_be_done_is_noted_and_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut notes = Vec::new();
        let all: Vec<Job> = Job::files().collect();
        assert_eq!(available(directory.path(), &mut notes).unwrap(), all);
        assert!(notes.is_empty());
        // A directory has the name that both would give.
        fs::remove_file(directory.path().join("whole-65536")).unwrap();
        fs::create_dir(directory.path().join("whole-65536")).unwrap();
        assert_eq!(available(directory.path(), &mut notes).unwrap(), []);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("publish: not available, "), "{notes:?}");
    }
}
