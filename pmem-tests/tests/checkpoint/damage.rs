//! Every bit of a file flipped in turn: the bug kept away is data that is wrong and looks right.

use daxmap::checkpoint::{Options, Strategy, WorkingSet};
use daxmap::{AnyRegion, ErrorKind, Region};
use pmem_tests::killed::Killed;
use pmem_tests::unreadable::Unreadable;

const PAGE: u64 = 4096;
const PAGES: u64 = 2;
/// Header, root, and three times the set with the one node of its table; as much for a redo record.
const FILE: u64 = (4 + 3 * (PAGES + 1)) * PAGE;

fn options(strategy: Strategy) -> Options {
    let keep = u32::from(strategy == Strategy::Shadow);
    Options::new(PAGES * PAGE - 10).strategy(strategy).keep(keep).seed(5)
}

fn fill<R: Region>(set: &mut WorkingSet<R>, value: u8) {
    let len = set.len();
    set.slice_mut(0, len).unwrap().fill(value);
}

/// What a file holds in which three checkpoints were taken, the third of the first page only;
/// and a region to put it into.
fn file(strategy: Strategy, close: bool) -> (AnyRegion, Vec<u8>) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = directory.path().join("set");
    let mut set = options(strategy).file_bytes(FILE).create(&path).unwrap();
    assert_eq!(set.strategy(), strategy);
    for value in 1..=2 {
        fill(&mut set, value);
        set.checkpoint().unwrap();
    }
    set.slice_mut(0, PAGE).unwrap().fill(3);
    set.checkpoint().unwrap();
    if close {
        set.close().unwrap();
    } else {
        set.abandon();
    }
    let region = daxmap::Options::new().len(FILE).in_memory().unwrap();
    let image = std::fs::read(path).unwrap();
    region.write(0, &image).unwrap();
    (region, image)
}

/// Whether it is the set that the checkpoint of this number saved.
fn holds(set: &WorkingSet<&AnyRegion>, sequence: u64) -> bool {
    let (first, rest) = set.bytes().split_at(PAGE as usize);
    let second = sequence.min(2) as u8;
    first.iter().all(|byte| u64::from(*byte) == sequence) && rest.iter().all(|byte| *byte == second)
}

/// True if the flip was noticed.
fn flip(region: &AnyRegion, image: &[u8], bit: u64, strategy: Strategy, closed: bool) -> bool {
    let at = bit / 8;
    // Of these there are two: header, and root or note.
    let copied = if strategy == Strategy::Shadow { 4 * PAGE } else { 3 * PAGE };
    if strategy == Strategy::Shadow {
        // All that an opening writes to, and what the last flip was in.
        region.write(0, &image[..copied as usize]).unwrap();
        let before = at.saturating_sub(1);
        region.write(before, &image[before as usize..=at as usize]).unwrap();
    } else {
        region.write(0, image).unwrap();
    }
    region.write(at, &[image[at as usize] ^ 1 << (bit % 8)]).unwrap();
    let options = options(strategy);
    let mut set = match WorkingSet::open(region, &options) {
        Ok(set) => set,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "bit {bit}: {error}");
            assert!(at >= copied, "bit {bit}, of which there is a copy: {error}");
            let range = error.range().expect("damage has a range");
            // A check value says something about a page elsewhere.
            let elsewhere = strategy == Strategy::Redo && (3 * PAGE..4 * PAGE).contains(&at);
            assert!(range.contains(&at) || elsewhere, "bit {bit}: {error}");
            return true;
        }
    };
    let recovery = set.recovery().clone();
    let newest = recovery.checkpoint;
    // What was being written when the process died cannot be told from what is damaged.
    let fallen_back = !closed && strategy == Strategy::Shadow && newest == 2 && recovery.cut_short;
    assert!(newest == 3 || fallen_back, "bit {bit}: {recovery:?}");
    assert!(holds(&set, newest), "bit {bit}: wrong data");
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
        assert!(holds(&set, expected), "bit {bit}: {sequence} is wrong");
        set.restore(newest).unwrap();
    }
    noticed |= !recovery.damaged.is_empty();
    set.abandon();
    if noticed && recovery.damaged.is_empty() && at < copied {
        let again = WorkingSet::open(region, &options).unwrap();
        assert!(again.recovery().clean, "bit {bit}: {:?}", again.recovery());
        again.abandon();
    }
    noticed
}

fn every_bit(strategy: Strategy, closed: bool) {
    let (region, image) = file(strategy, closed);
    // A debug build tries each byte once.
    let step = if cfg!(debug_assertions) { 7 } else { 1 };
    let bits = (0..FILE * 8).step_by(step);
    let noticed = bits.filter(|bit| flip(&region, &image, *bit, strategy, closed)).count();
    println!("{strategy}: {} bits flipped, {noticed} noticed", FILE * 8 / step as u64);
    // Shadow pages: the two checkpoints share a page; two nodes and three pages are theirs. Redo:
    // two pages, and the first once more in the record.
    let pages = if strategy == Strategy::Shadow { 5 } else { 3 };
    assert!(noticed as u64 >= pages * PAGE * 8 / step as u64, "{noticed}");
}

#[test]
fn every_bit_of_a_closed_file_with_shadow_pages() {
    every_bit(Strategy::Shadow, true);
}

#[test]
fn every_bit_of_a_closed_file_with_a_redo_record() {
    every_bit(Strategy::Redo, true);
}

#[test]
fn every_bit_of_files_left_by_a_kill() {
    every_bit(Strategy::Shadow, false);
    every_bit(Strategy::Redo, false);
}

#[test]
fn an_earlier_checkpoint_is_the_way_out_of_damage() {
    let options = options(Strategy::Shadow);
    let (region, image) = file(Strategy::Shadow, true);
    let mut ways_out = 0;
    for page in 4..FILE / PAGE {
        region.write(0, &image).unwrap();
        region.write(page * PAGE + 17, &[image[(page * PAGE) as usize + 17] ^ 0x40]).unwrap();
        if WorkingSet::open(&region, &options).map(WorkingSet::abandon).is_ok() {
            continue;
        }
        // The page that both share is damaged for both.
        let Ok(mut set) = WorkingSet::open(&region, &options.clone().from_checkpoint(2)) else {
            continue;
        };
        ways_out += 1;
        assert!(holds(&set, 2));
        // The number of the damaged one is not given again.
        fill(&mut set, 9);
        assert_eq!(set.checkpoint().unwrap().sequence, 4);
        set.abandon();
        let set = WorkingSet::open(&region, &options).unwrap();
        assert!(set.bytes().iter().all(|byte| *byte == 9));
        assert_eq!(set.list().iter().map(|c| c.sequence).collect::<Vec<_>>(), [2, 4]);
        let missing = WorkingSet::open(&region, &options.clone().from_checkpoint(3)).map(drop);
        assert!(matches!(missing.unwrap_err().kind(), ErrorKind::NoCheckpoint { sequence: 3 }));
        set.abandon();
    }
    // A page and a node are the newest one's alone.
    assert_eq!(ways_out, 2);
}

/// With room for the later checkpoint beside the next, with just so much, and with less.
#[test]
fn going_back_costs_nothing_before_it_is_durable() {
    let options = options(Strategy::Shadow);
    // Of the checkpoint gone back to three pages are in use, of the later one two more, and three are
    // needed.
    for (file_pages, room) in [(13, true), (12, true), (11, false)] {
        let region = daxmap::Options::new().len(file_pages * PAGE).in_memory().unwrap();
        let mut set = WorkingSet::format(&region, &options).unwrap();
        fill(&mut set, 1);
        set.checkpoint().unwrap();
        // Of the first page: the newest is in the pages that are taken first, if they are free.
        for value in 2..=5 {
            set.slice_mut(0, PAGE).unwrap().fill(value);
            set.checkpoint().unwrap();
        }
        set.abandon();
        let mut image = vec![0; (file_pages * PAGE) as usize];
        region.read(0, &mut image).unwrap();
        let mut lost = 0;
        // Before the pages, before the root; and not at all.
        for drains in 0..3 {
            region.write(0, &image).unwrap();
            let killed = Killed::before_drain(&region, u32::MAX);
            let before = options.clone().from_checkpoint(4);
            let mut set = WorkingSet::open(&killed, &before).unwrap();
            fill(&mut set, 9);
            killed.kill_after(drains);
            let saved = set.checkpoint();
            set.abandon();
            assert_eq!(saved.is_ok(), drains == 2, "{file_pages}: {saved:?}");
            let Ok(newest) = WorkingSet::open(&region, &options) else {
                // The pages of the later one were taken, and the root was not written.
                lost += 1;
                let set = WorkingSet::open(&region, &before).unwrap();
                assert_eq!((set.bytes()[0], set.bytes()[PAGE as usize]), (4, 1));
                set.abandon();
                continue;
            };
            let listed: Vec<_> = newest.list().iter().map(|c| c.sequence).collect();
            // The root may be written, if not drained: nothing has lost it here.
            let (first, rest) = if listed == [4, 6] { (9, 9) } else { (5, 1) };
            assert!(listed == [4, 6] && drains > 0 || listed == [4, 5] && drains < 2, "{listed:?}");
            assert_eq!((newest.bytes()[0], newest.bytes()[PAGE as usize]), (first, rest));
            newest.abandon();
        }
        assert_eq!(lost > 0, !room, "{file_pages}: {lost}");
    }
}

#[test]
fn every_state_of_a_copy_made_while_in_use_is_a_checkpoint_or_an_error() {
    let options = options(Strategy::Shadow);
    // A copy program reads the file from front to back while checkpoints are taken.
    let region = daxmap::Options::new().len(FILE).in_memory().unwrap();
    let (mut opened, mut refused) = (0, 0);
    for pause in 0..=FILE / PAGE {
        for between in 0..4_u8 {
            let mut set = WorkingSet::format(&region, &options).unwrap();
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
            match WorkingSet::open(&copied, &options) {
                Ok(set) => {
                    let saved = set.recovery().checkpoint as u8;
                    assert!(set.bytes().iter().all(|byte| *byte == saved), "a mixture");
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

/// The first line of check values, of pages that the redo record of the last checkpoint has nothing of.
#[test]
fn cleared_check_values_are_damage() {
    const CHECKS: u64 = 3 * PAGE;
    let region = daxmap::Options::new().len(64 * PAGE).in_memory().unwrap();
    let options = Options::new(9 * PAGE).strategy(Strategy::Redo).seed(5);
    let mut set = WorkingSet::format(&region, &options).unwrap();
    for page in [0, 8] {
        set.slice_mut(page * PAGE, PAGE).unwrap().fill(7);
        set.checkpoint().unwrap();
    }
    set.abandon();
    let before = WorkingSet::open(&region, &options.clone().read_only(true)).unwrap();
    assert_eq!(before.bytes()[0], 7);
    region.write(CHECKS, &[0; 64]).unwrap();
    let error = WorkingSet::open(&region, &options).map(WorkingSet::abandon).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{error}");
}

/// What cannot be read is not what is damaged: nothing is taken for lost.
#[test]
fn a_page_that_cannot_be_read_is_an_error_and_no_damage() {
    let options = options(Strategy::Shadow);
    let (region, image) = file(Strategy::Shadow, true);
    let meant = Unreadable::<&AnyRegion>::is_meant;
    let mut refused = [0; 4];
    for page in 0..FILE / PAGE {
        let bytes = page * PAGE..(page + 1) * PAGE;
        let region = Unreadable { region: &region, bytes };
        let from = options.clone().from_checkpoint(2);
        let read_only = options.clone().read_only(true);
        for (how, opened) in [&options, &from, &read_only].into_iter().zip(0..) {
            match WorkingSet::open(&region, how) {
                Ok(set) => {
                    assert!(set.recovery().damaged.is_empty(), "{page}: {:?}", set.recovery());
                    set.abandon();
                }
                Err(error) => {
                    assert!(meant(&error), "{page}: {error}");
                    refused[opened] += 1;
                }
            }
            region.region.write(0, &image).unwrap();
        }
        let errors: Vec<_> = match daxmap::checkpoint::contents_of(&region) {
            Ok(found) => {
                found.checkpoints.into_iter().filter_map(|(_, whole)| whole.err()).collect()
            }
            Err(error) => vec![error],
        };
        assert!(errors.iter().all(meant), "{page}: {errors:?}");
        refused[3] += u32::from(!errors.is_empty());
    }
    // Header and root, two pages of the one that is opened, and the nodes of both; a list reads the
    // page that is the other one's alone as well.
    assert_eq!(refused, [8, 8, 8, 9]);
}

/// A kept checkpoint that is damaged is named, and costs nothing else.
#[test]
fn a_kept_checkpoint_that_is_damaged_is_named() {
    let options = options(Strategy::Shadow);
    let (region, image) = file(Strategy::Shadow, true);
    let mut named = 0;
    for page in 4..FILE / PAGE {
        region.write(0, &image).unwrap();
        region.write(page * PAGE + 17, &[image[(page * PAGE) as usize + 17] ^ 0x40]).unwrap();
        let Ok(set) = WorkingSet::open(&region, &options) else { continue };
        assert!(holds(&set, 3));
        let listed: Vec<_> = set.list().iter().map(|c| c.sequence).collect();
        if set.recovery().damaged.is_empty() {
            assert_eq!(listed, [2, 3]);
        } else {
            assert_eq!((&set.recovery().damaged[..], &listed[..]), (&[2][..], &[3][..]));
            named += 1;
        }
        set.abandon();
    }
    assert_eq!(named, 1, "its node");
}

#[test]
fn a_file_without_a_root_has_no_contents() {
    let (region, _) = file(Strategy::Shadow, true);
    for copy in [2, 3] {
        region.write(copy * PAGE, &[0xff; 64]).unwrap();
    }
    let error = daxmap::checkpoint::contents_of(&region).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{error}");
}
