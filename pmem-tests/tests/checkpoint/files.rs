//! Files: what is refused, and that nothing is lost by it.
#![allow(unsafe_code)] // fork(2)

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use daxmap::checkpoint::{Options, Strategy, WorkingSet};
use daxmap::{AnyRegion, Durability, Emulation, ErrorKind, Region, Result};
use pmem_tests::pass_on;

const PAGE: u64 = 4096;
const BYTES: u64 = 20 * PAGE;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    /// In memory, where a checkpoint takes no time.
    fn fast() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("set")
    }
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => error.kind().clone(),
    }
}

#[test]
fn what_was_saved_is_there_and_what_was_not_is_gone() {
    let place = Place::new();
    let mut set = Options::new(BYTES).keep(2).create(place.file()).unwrap();
    assert_eq!(set.recovery().checkpoint, 0);
    assert!(set.bytes().iter().all(|byte| *byte == 0));
    for value in 1..=5_u8 {
        set.write(u64::from(value) * 1000, &[value; 3000]).unwrap();
        let checkpoint = set.checkpoint_labelled(&format!("number {value}")).unwrap();
        let pages = [1, 2, 2, 2, 1][usize::from(value) - 1];
        assert_eq!((checkpoint.sequence, checkpoint.bytes), (value.into(), pages * PAGE));
    }
    let saved = set.bytes().to_vec();
    set.write(0, b"never saved").unwrap();
    set.close().unwrap();
    for close in [true, false] {
        let mut set = Options::new(0).open_or_create(place.file()).unwrap();
        assert_eq!(set.bytes(), saved);
        assert!(set.recovery().clean);
        let list = set.list();
        assert_eq!(list.iter().map(|c| c.sequence).collect::<Vec<_>>(), [3, 4, 5]);
        assert!(list.iter().all(|c| c.label == format!("number {}", c.sequence)));
        assert!(list.windows(2).all(|two| two[0].time.unwrap() <= two[1].time.unwrap()));
        set.restore(3).unwrap();
        assert_eq!(set.bytes()[5999], 3);
        assert!(set.bytes()[6000..].iter().all(|byte| *byte == 0));
        if close {
            set.close().unwrap();
        }
    }
}

#[test]
fn only_what_changed_is_written() {
    let place = Place::new();
    let mut set = Options::new(BYTES).create(place.file()).unwrap();
    set.write(0, &vec![1; BYTES as usize]).unwrap();
    assert_eq!(set.checkpoint().unwrap().bytes, BYTES);
    assert_eq!(set.checkpoint().unwrap().bytes, 0);
    set.write(PAGE - 1, &[2]).unwrap();
    assert_eq!(set.checkpoint().unwrap().bytes, PAGE);
    set.slice_mut(PAGE - 1, 2).unwrap().fill(3);
    assert_eq!(set.checkpoint().unwrap().bytes, 2 * PAGE);
    set.slice_mut(0, 0).unwrap();
    set.write(BYTES, &[]).unwrap();
    assert_eq!(set.checkpoint().unwrap().bytes, 0);
}

#[test]
fn ranges_past_the_end_are_refused() {
    let place = Place::fast();
    let mut set = Options::new(10_000).create(place.file()).unwrap();
    for (offset, len) in [(9_999, 2), (10_001, 0), (u64::MAX, 1), (1, u64::MAX), (0, 10_001)] {
        assert!(matches!(kind(set.slice_mut(offset, len)), ErrorKind::OutOfBounds { len: 10_000 }));
        if len <= 10_001 {
            let mut bytes = vec![1; len as usize];
            assert!(matches!(kind(set.write(offset, &bytes)), ErrorKind::OutOfBounds { .. }));
            assert!(matches!(kind(set.read(offset, &mut bytes)), ErrorKind::OutOfBounds { .. }));
        }
    }
    assert_eq!(set.checkpoint().unwrap().bytes, 0);
}

#[test]
fn a_full_file_refuses_and_loses_nothing() {
    let place = Place::new();
    // Header, root, and room for the set once, its table, and three pages more.
    let small = Options::new(BYTES).file_bytes((4 + 20 + 1 + 3) * PAGE);
    let mut set = small.create(place.file()).unwrap();
    set.write(0, &[1; 2 * PAGE as usize]).unwrap();
    set.checkpoint().unwrap();
    set.write(0, &vec![2; BYTES as usize]).unwrap();
    set.checkpoint().map(drop).unwrap();
    set.write(0, &[3; 3 * PAGE as usize]).unwrap();
    let full = kind(set.checkpoint());
    assert!(
        matches!(full, ErrorKind::Full { needed, free } if (needed, free) == (4 * PAGE, 3 * PAGE)),
        "{full:?}"
    );
    // The changes are still changes, and still do not fit.
    assert!(matches!(kind(set.checkpoint()), ErrorKind::Full { .. }));
    let reader = Options::new(BYTES).read_only(true).open(place.file()).unwrap();
    assert!(reader.bytes().iter().all(|byte| *byte == 2));
    set.grow((4 + 20 + 1 + 4) * PAGE).unwrap();
    set.checkpoint().unwrap();
    set.close().unwrap();
    let set = Options::new(BYTES).open(place.file()).unwrap();
    assert!(set.bytes()[..3 * PAGE as usize].iter().all(|byte| *byte == 3));
    assert!(set.bytes()[3 * PAGE as usize..].iter().all(|byte| *byte == 2));
}

#[test]
fn kept_checkpoints_stay_whole_while_the_file_is_used_over_and_over() {
    let place = Place::fast();
    let options = Options::new(BYTES).strategy(Strategy::Shadow).keep(3);
    let mut set = options.create(place.file()).unwrap();
    let mut saved = vec![set.bytes().to_vec()];
    for round in 1..200_u64 {
        for step in 0..=round % 7 {
            let page = (round * 13 + step * 5) % (BYTES / PAGE);
            set.slice_mut(page * PAGE, PAGE).unwrap().fill(round as u8);
        }
        saved.push(set.bytes().to_vec());
        set.checkpoint().unwrap();
        if round % 10 == 0 {
            set.abandon();
            set = options.open(place.file()).unwrap();
        }
        let list = set.list();
        assert_eq!(list.len() as u64, 4.min(round + 1));
        for kept in list {
            set.restore(kept.sequence).unwrap();
            assert!(set.bytes() == saved[kept.sequence as usize], "{round}: {kept:?}");
        }
    }
}

#[test]
fn a_kept_checkpoint_is_not_given_up_for_room() {
    let place = Place::fast();
    // Header and root, the set once with its node, and one page with its node.
    let options = Options::new(2 * PAGE).strategy(Strategy::Shadow).keep(1);
    let mut set = options.clone().file_bytes((4 + 3 + 2) * PAGE).create(place.file()).unwrap();
    set.slice_mut(0, 2 * PAGE).unwrap().fill(1);
    set.checkpoint().unwrap();
    set.slice_mut(0, PAGE).unwrap().fill(2);
    set.checkpoint().unwrap();
    set.slice_mut(0, PAGE).unwrap().fill(3);
    assert!(matches!(kind(set.checkpoint()), ErrorKind::Full { free: 0, .. }));
    set.restore(1).unwrap();
    assert!(set.bytes().iter().all(|byte| *byte == 1));
}

#[test]
fn other_files_are_refused_and_left_alone() {
    let place = Place::new();
    for content in [vec![0; 1 << 20], b"#!/bin/sh\n".repeat(2000), vec![0xff; 8192], vec![b'd']] {
        fs::write(place.file(), &content).unwrap();
        for options in [Options::new(BYTES), Options::new(0).read_only(true)] {
            let found = kind(options.open_or_create(place.file()));
            assert!(matches!(found, ErrorKind::WrongFormat(_)), "{found:?}");
        }
        assert!(matches!(kind(Options::new(1).create(place.file())), ErrorKind::Os(_)));
        assert_eq!(fs::read(place.file()).unwrap(), content);
    }
}

#[test]
fn another_size_and_a_cut_file_are_told() {
    let place = Place::new();
    Options::new(BYTES).create(place.file()).unwrap().close().unwrap();
    let found = kind(Options::new(BYTES + 1).open(place.file()));
    assert!(matches!(found, ErrorKind::SizeMismatch { found: BYTES, .. }), "{found:?}");
    let file = fs::File::options().write(true).open(place.file()).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - 1).unwrap();
    let found = kind(Options::new(BYTES).open(place.file()));
    assert!(matches!(found, ErrorKind::TooShort { asked, .. } if asked == len), "{found:?}");
    assert!(matches!(kind(Options::new(0).create(place.0.path().join("new"))), ErrorKind::Empty));
    assert!(matches!(
        kind(Options::new(u64::MAX).create(place.0.path().join("new"))),
        ErrorKind::TooLarge { .. }
    ));
    assert!(matches!(
        kind(Options::new(1).keep(256).create(place.0.path().join("new"))),
        ErrorKind::TooLarge { max: 255 }
    ));
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 1);
}

#[test]
fn a_second_writer_is_refused_and_a_reader_changes_nothing() {
    let place = Place::new();
    let mut set = Options::new(BYTES).create(place.file()).unwrap();
    set.write(0, b"saved").unwrap();
    set.checkpoint().unwrap();
    assert!(matches!(kind(Options::new(BYTES).open(place.file())), ErrorKind::Locked));
    // Not settled: a writer would heal it, a reader must not.
    set.abandon();
    let before = fs::read(place.file()).unwrap();
    let mut reader = Options::new(BYTES).read_only(true).open(place.file()).unwrap();
    assert!(!reader.recovery().clean);
    assert_eq!(&reader.bytes()[..5], b"saved");
    reader.write(0, b"in memory only").unwrap();
    assert!(matches!(kind(reader.checkpoint()), ErrorKind::ReadOnly));
    assert!(matches!(kind(reader.grow(1 << 30)), ErrorKind::ReadOnly));
    reader.close().unwrap();
    assert_eq!(fs::read(place.file()).unwrap(), before);
}

/// A redo record and the places that it was written to have the same bytes: one makes the other good.
#[test]
fn a_place_that_is_not_what_the_redo_record_says_is_made_so() {
    let place = Place::new();
    let mut set =
        Options::new(BYTES).strategy(Strategy::Redo).create(place.file()).expect("a new file");
    for value in [0x11, 0x7b] {
        set.write(PAGE, &[value; PAGE as usize]).unwrap();
        set.checkpoint().unwrap();
    }
    set.close().unwrap();
    let before = fs::read(place.file()).unwrap();
    let found = before.windows(PAGE as usize).enumerate();
    let copies: Vec<usize> =
        found.filter(|(_, page)| page.iter().all(|byte| *byte == 0x7b)).map(|(at, _)| at).collect();
    assert_eq!(copies.len(), 2, "in the record, and in its place");
    for at in copies {
        let mut bytes = before.clone();
        bytes[at + 700] ^= 1;
        fs::write(place.file(), &bytes).unwrap();
        let set = Options::new(BYTES).open(place.file()).unwrap();
        assert!(!set.recovery().clean, "at {at}");
        assert!(set.bytes()[PAGE as usize..][..PAGE as usize].iter().all(|byte| *byte == 0x7b));
        set.close().unwrap();
        assert!(Options::new(BYTES).open(place.file()).unwrap().recovery().clean, "at {at}");
    }
}

/// The byte of a page at a checkpoint: each one changes one page, in turn.
fn turn(page: u64, sequence: u64) -> u8 {
    let pages = BYTES / PAGE;
    let since = (sequence + pages - page) % pages;
    sequence.checked_sub(since).map_or(0, |last| last as u8)
}

#[test]
fn a_reader_beside_a_writer_finds_whole_checkpoints() {
    const READS: u32 = 300;
    for strategy in [Strategy::Shadow, Strategy::Redo] {
        let place = Place::fast();
        let options = Options::new(BYTES).strategy(strategy);
        let mut set = options.create(place.file()).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for sequence in 1.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let page = sequence % (BYTES / PAGE);
                    set.slice_mut(page * PAGE, PAGE).unwrap().fill(sequence as u8);
                    assert_eq!(set.checkpoint().unwrap().sequence, sequence);
                    // A reader that is overtaken each time gives up in the end.
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            let read = || {
                let mut newest = 0;
                for _ in 0..READS {
                    let reader = options.clone().read_only(true).open(place.file()).unwrap();
                    newest = reader.recovery().checkpoint;
                    for (page, bytes) in (0..).zip(reader.bytes().chunks(PAGE as usize)) {
                        let expected = turn(page, newest);
                        assert!(bytes.iter().all(|byte| *byte == expected), "a mixture");
                    }
                }
                newest
            };
            let newest = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
            over.store(true, Ordering::Relaxed);
            writer.join().unwrap();
            assert!(newest.expect("every read found a checkpoint") > u64::from(READS) / 10);
        });
    }
}

#[test]
fn what_is_cheapest_is_chosen_and_told() {
    let place = Place::new();
    let disk = Options::new(BYTES).create(place.file()).unwrap();
    assert_eq!(disk.strategy(), Strategy::Shadow);
    assert!(disk.why().contains("pages"), "{}", disk.why());
    let lines = daxmap::Options::new().emulate(Emulation::Adr);
    for (keep, expected) in [(0, Strategy::Redo), (1, Strategy::Shadow)] {
        let place = Place::fast();
        let options = Options::new(BYTES).keep(keep).region(lines.clone());
        let mut set = options.create(place.file()).unwrap();
        assert_eq!((set.strategy(), set.durability()), (expected, Durability::ProcessOnly));
        set.write(0, &vec![1; BYTES as usize]).unwrap();
        assert_eq!(set.checkpoint().unwrap().bytes, BYTES);
        set.write(PAGE + 60, &[2; 10]).unwrap();
        let bytes = if expected == Strategy::Redo { 2 * 64 } else { PAGE };
        assert_eq!(set.checkpoint().unwrap().bytes, bytes);
        let saved = set.bytes().to_vec();
        drop(set);
        let reader = options.open(place.file()).unwrap();
        assert!(reader.bytes() == saved && reader.recovery().clean);
    }
    let both = Options::new(BYTES).keep(1).strategy(Strategy::Redo).create(place.file().join("x"));
    assert!(matches!(kind(both), ErrorKind::Unsupported(_)));
}

#[test]
fn a_redo_record_has_room_for_everything_in_any_pieces() {
    // Every second line, then all lines, of many pages: the longest lists of parts, and the most
    // bytes.
    let lines = daxmap::Options::new().emulate(Emulation::Adr);
    let place = Place::fast();
    let options = Options::new(300 * PAGE).strategy(Strategy::Redo).region(lines);
    let mut set = options.create(place.file()).unwrap();
    for (step, from) in [(64, 0), (128, 0), (128, 64), (64, 0), (192, 0), (4096, 4000)] {
        for at in (from..300 * PAGE).step_by(step) {
            let value = (at / 64 + step as u64) as u8;
            set.write(at, &[value]).unwrap();
        }
        set.checkpoint().unwrap();
        let reader = options.clone().read_only(true).open(place.file()).unwrap();
        assert!(reader.bytes() == set.bytes());
    }
}

#[test]
fn a_forked_child_cannot_save() {
    let place = Place::fast();
    for emulate in [false, true] {
        let name = place.0.path().join(format!("set-{emulate}"));
        let region = daxmap::Options::new();
        let region = if emulate { region.emulate(Emulation::Adr) } else { region };
        let mut set = Options::new(BYTES).region(region).create(&name).unwrap();
        set.write(0, b"parent").unwrap();
        set.checkpoint().unwrap();
        // SAFETY: the child calls nothing but this library, in which no other thread can hold a
        // lock: the file is this test's own.
        let child = unsafe { libc::fork() };
        if child == 0 {
            set.write(0, b"child!").unwrap();
            let refused = matches!(
                set.checkpoint().map_err(|error| error.kind().clone()),
                Err(ErrorKind::Unsupported(_))
            );
            let seen = &set.bytes()[..6] == b"child!";
            // SAFETY: ends the child at once, without the test harness's exit.
            unsafe { libc::_exit(i32::from(!(refused && seen))) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was made above.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "emulate {emulate}");
        set.checkpoint().unwrap();
        set.close().unwrap();
        let set = Options::new(BYTES).read_only(true).open(&name).unwrap();
        assert_eq!((&set.bytes()[..6], set.recovery().checkpoint), (&b"parent"[..], 2));
    }
}

/// A region one of whose writes fails, and that is not poisoned by it.
struct Failing {
    region: AnyRegion,
    /// Writes until then.
    left: AtomicU32,
}

impl Failing {
    fn count(&self) -> Result<()> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            // Any error will do.
            return self.region.read(u64::MAX, &mut [0]);
        }
        Ok(())
    }
}

impl Region for Failing {
    pass_on!(region: sync_all len durability granularity backend is_emulated read fill_flush flush
        drain deep_flush load_u64 store_u64 compare_exchange_u64 grow close slices);

    /// A short root is written so, and flushed by itself.
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.count()?;
        self.region.write(offset, data)
    }

    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.count()?;
        self.region.write_flush(offset, data)
    }
}

#[test]
fn after_an_error_nothing_is_written_and_the_last_checkpoint_is_there() {
    let each = [Strategy::Shadow, Strategy::Redo].map(|s| (0..4).map(move |fails| (s, fails)));
    for (strategy, fails) in each.into_iter().flatten() {
        let options = Options::new(BYTES).strategy(strategy);
        let region =
            daxmap::Options::new().len(1 << 20).emulate(Emulation::Adr).in_memory().unwrap();
        let region = Failing { region, left: AtomicU32::new(u32::MAX) };
        let mut set = WorkingSet::format(&region, &options).unwrap();
        set.write(0, b"saved").unwrap();
        set.checkpoint().unwrap();
        set.write(0, b"never").unwrap();
        set.write(PAGE, b"never").unwrap();
        // Two pages, a node, the root; or two pages, their check values, the note, of a record.
        region.left.store(fails, Ordering::Relaxed);
        let failed = set.checkpoint().unwrap_err();
        assert!(!failed.is_failed());
        for _ in 0..2 {
            assert!(set.checkpoint().unwrap_err().is_failed());
            assert!(set.grow(2 << 20).unwrap_err().is_failed());
        }
        assert_eq!(&set.bytes()[..5], b"never");
        assert!(set.close().unwrap_err().is_failed());
        let set = WorkingSet::open(&region, &options).unwrap();
        assert_eq!(
            (&set.bytes()[..5], set.recovery().checkpoint),
            (&b"saved"[..], 1),
            "{strategy} {fails}"
        );
        set.abandon();
    }
}
