//! Every bit of a file flipped in turn: the bug kept away is data that is wrong and looks right.

use daxmap::checkpoint::{Options, WorkingSet};
use daxmap::{AnyRegion, ErrorKind, Region};

const PAGE: u64 = 4096;
const PAGES: u64 = 2;
/// Header, root, and three times the set with the one node of its table.
const FILE: u64 = (4 + 3 * (PAGES + 1)) * PAGE;
/// Header and root.
const TWO_COPIES: u64 = 4 * PAGE;

fn options() -> Options {
    Options::new(PAGES * PAGE - 10).keep(1).seed(5)
}

fn fill<R: Region>(set: &mut WorkingSet<R>, value: u8) {
    let len = set.len();
    set.slice_mut(0, len).unwrap().fill(value);
}

/// What a file holds in which three checkpoints were taken, of which two are kept; and a region to
/// put it into.
fn file(close: bool) -> (AnyRegion, Vec<u8>) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("set");
    let mut set = options().file_bytes(FILE).create(&path).unwrap();
    for value in 1..=3 {
        fill(&mut set, value);
        set.checkpoint().unwrap();
    }
    if close {
        set.close().unwrap();
    } else {
        set.abandon();
    }
    let region = daxmap::Options::new().len(FILE).in_memory().unwrap();
    (region, std::fs::read(path).unwrap())
}

fn holds(set: &WorkingSet<&AnyRegion>, value: u8) -> bool {
    set.bytes().iter().all(|byte| *byte == value)
}

/// True if the flip was noticed.
fn flip(region: &AnyRegion, image: &[u8], bit: u64, closed: bool) -> bool {
    let at = bit / 8;
    // All that an opening writes to, and what the last flip was in.
    region.write(0, &image[..TWO_COPIES as usize]).unwrap();
    if let Some(before) = at.checked_sub(1) {
        region.write(before, &image[before as usize..=at as usize]).unwrap();
    }
    region.write(at, &[image[at as usize] ^ 1 << (bit % 8)]).unwrap();
    let mut set = match WorkingSet::open(region, &options()) {
        Ok(set) => set,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "bit {bit}: {error}");
            assert!(at >= TWO_COPIES, "bit {bit}, of which there is a copy: {error}");
            let range = error.range().expect("damage has a range");
            assert!(range.contains(&at), "bit {bit}: {error}");
            return true;
        }
    };
    let recovery = set.recovery().clone();
    let newest = recovery.checkpoint;
    // What was being written when the process died cannot be told from what is damaged.
    let fallen_back = !closed && newest == 2 && recovery.cut_short;
    assert!(newest == 3 || fallen_back, "bit {bit}: {recovery:?}");
    assert!(holds(&set, newest as u8), "bit {bit}: wrong data");
    let mut noticed = !recovery.clean;
    for kept in set.list() {
        let (sequence, sound) = (kept.sequence, set.verify(kept.sequence));
        if let Err(error) = &sound {
            assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "bit {bit}: {error}");
            assert!(error.range().expect("damage has a range").contains(&at), "bit {bit}: {error}");
            noticed = true;
        }
        let restored = set.restore(sequence);
        assert_eq!(restored.is_ok(), sound.is_ok() || sequence == newest, "bit {bit}");
        // Restored, or as it was.
        let expected = if restored.is_ok() { sequence } else { newest };
        assert!(holds(&set, expected as u8), "bit {bit}: {sequence} is wrong");
        set.restore(newest).unwrap();
    }
    noticed |= !recovery.damaged.is_empty();
    set.abandon();
    if closed && at < TWO_COPIES {
        // Healed, but for the rest of a page that nobody reads.
        let again = WorkingSet::open(region, &options()).unwrap();
        assert!(again.recovery().clean, "bit {bit}: {:?}", again.recovery());
        again.abandon();
    }
    noticed
}

fn every_bit(closed: bool) {
    let (region, image) = file(closed);
    let bits = FILE * 8;
    region.write(0, &image).unwrap();
    // A debug build tries each byte once.
    let step = if cfg!(debug_assertions) { 7 } else { 1 };
    let noticed = (0..bits).step_by(step).filter(|bit| flip(&region, &image, *bit, closed)).count();
    println!("{} bits flipped, {noticed} noticed, closed {closed}", bits / step as u64);
    // The two checkpoints share nothing: four pages of data and two nodes.
    let used = 6 * PAGE * 8 / step as u64;
    assert!(noticed as u64 >= used, "{noticed} of {used}");
}

#[test]
fn every_bit_of_a_closed_file() {
    every_bit(true);
}

#[test]
fn every_bit_of_a_file_left_by_a_kill() {
    every_bit(false);
}

#[test]
fn an_earlier_checkpoint_is_the_way_out_of_damage() {
    let (region, image) = file(true);
    // Every page of the newest checkpoint that differs from the one before.
    for page in 4..FILE / PAGE {
        region.write(0, &image).unwrap();
        region.write(page * PAGE + 17, &[image[(page * PAGE) as usize + 17] ^ 0x40]).unwrap();
        if WorkingSet::open(&region, &options()).map(WorkingSet::abandon).is_ok() {
            continue;
        }
        let mut set = WorkingSet::open(&region, &options().from_checkpoint(2)).unwrap();
        assert!(holds(&set, 2));
        // The number of the damaged one is not given again.
        fill(&mut set, 9);
        assert_eq!(set.checkpoint().unwrap().sequence, 4);
        set.abandon();
        let set = WorkingSet::open(&region, &options()).unwrap();
        assert!(holds(&set, 9));
        assert_eq!(set.list().iter().map(|c| c.sequence).collect::<Vec<_>>(), [2, 4]);
        let missing = WorkingSet::open(&region, &options().from_checkpoint(3)).map(drop);
        assert!(matches!(
            missing.unwrap_err().kind(),
            ErrorKind::NoCheckpoint { sequence: 3 }
        ));
        set.abandon();
    }
}

#[test]
fn every_state_of_a_copy_made_while_in_use_is_a_checkpoint_or_an_error() {
    // A copy program reads the file from front to back while checkpoints are taken.
    let region = daxmap::Options::new().len(FILE).in_memory().unwrap();
    let (mut opened, mut refused) = (0, 0);
    for pause in 0..=FILE / PAGE {
        for between in 0..4_u8 {
            let mut set = WorkingSet::format(&region, &options()).unwrap();
            let mut save = |value| {
                fill(&mut set, value);
                set.checkpoint().unwrap();
            };
            (1..=3).for_each(&mut save);
            let mut copy = vec![0; FILE as usize];
            let (front, back) = copy.split_at_mut((pause * PAGE) as usize);
            region.read(0, front).unwrap();
            (4..4 + between).for_each(&mut save);
            region.read(pause * PAGE, back).unwrap();
            set.abandon();
            let copied = daxmap::Options::new().len(FILE).in_memory().unwrap();
            copied.write(0, &copy).unwrap();
            match WorkingSet::open(&copied, &options()) {
                Ok(set) => {
                    assert!(holds(&set, set.recovery().checkpoint as u8));
                    opened += 1;
                    set.abandon();
                }
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(opened > 10 && refused > 3, "{opened} opened, {refused} refused");
}
