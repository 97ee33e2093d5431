//! What only the inside can make: files of other kinds and versions, and tables that lie; and which
//! sizes there are.

use std::sync::Barrier;
use std::thread;

use super::record::RECORD_BYTES;
use super::settings::{KEEP_MAX, VERSION};
use super::{Options, Strategy, Tracking, WorkingSet};
use crate::format::cell::Cell;
use crate::format::check::Key;
use crate::format::header::{Found, HEADER_AREA, Header, Kind};
use crate::{AnyRegion, ErrorKind, Region};

fn region() -> AnyRegion {
    crate::Options::new().len(1 << 20).in_memory().unwrap()
}

fn refused(header: Header) -> ErrorKind {
    let region = region();
    header.complete(&region).unwrap();
    let mut before = vec![0; 1 << 20];
    region.read(0, &mut before).unwrap();
    let result = WorkingSet::open_or_format(&region, &Options::new(4096)).map(WorkingSet::abandon);
    let mut after = vec![0; 1 << 20];
    region.read(0, &mut after).unwrap();
    assert!(before == after, "it was changed");
    result.unwrap_err().kind().clone()
}

fn header(kind: Kind, version: u32, numbers: [u64; 4]) -> Header {
    Header { kind, version, salt: 9, numbers }
}

#[test]
fn other_kinds_and_newer_versions_are_refused_and_left_alone() {
    let numbers = [4096, 0, 1 << 20, 0];
    for kind in [Kind::Log, Kind::State] {
        assert!(matches!(refused(header(kind, VERSION, numbers)), ErrorKind::WrongFormat(_)));
    }
    let newer = refused(header(Kind::Checkpoint, VERSION + 1, numbers));
    assert!(
        matches!(newer, ErrorKind::NewerFormat { found, newest: VERSION } if found == VERSION + 1)
    );
}

#[test]
fn headers_that_make_no_sense_are_no_panic() {
    let sound = [4096, 0, 1 << 20, 0];
    for (place, number) in [
        (0, 0),
        (0, u64::MAX),
        (0, u64::MAX / 1024),
        (1, 256),
        (1, u64::from(u32::MAX)),
        (1, 77 << 32),
    ] {
        let mut numbers = sound;
        numbers[place] = number;
        let kind = refused(header(Kind::Checkpoint, VERSION, numbers));
        assert!(matches!(kind, ErrorKind::Damaged(_)), "{numbers:x?}: {kind:?}");
    }
    let long = refused(header(Kind::Checkpoint, VERSION, [4096, 0, u64::MAX, 0]));
    assert!(matches!(long, ErrorKind::TooShort { .. }));
    // A set that is larger than the memory there is, without a root.
    for bytes in [1 << 47, u64::MAX / 1025] {
        let large = refused(header(Kind::Checkpoint, VERSION, [bytes, 0, 1 << 20, 0]));
        assert!(matches!(large, ErrorKind::Damaged(_)), "{large:?}");
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    const MAX: u64 = ((1 << 56) - 1) / KEEP_MAX as u64;
    let short = region();
    let refused = |options: Options| {
        let made = WorkingSet::format(&short, &options).map(WorkingSet::abandon);
        made.unwrap_err().kind().clone()
    };
    assert!(matches!(refused(Options::new(0)), ErrorKind::Empty));
    for strategy in [Strategy::Shadow, Strategy::Redo] {
        let of = |bytes| Options::new(bytes).strategy(strategy);
        assert!(matches!(refused(of(MAX)), ErrorKind::TooShort { len: 0x10_0000, .. }));
        assert!(matches!(refused(of(MAX + 1)), ErrorKind::TooLarge { max: MAX }));
    }
    let keeping = |keep| Options::new(1 << 20).strategy(Strategy::Shadow).keep(keep);
    assert!(matches!(refused(keeping(KEEP_MAX)), ErrorKind::TooShort { .. }));
    let most = u64::from(KEEP_MAX);
    assert!(matches!(refused(keeping(KEEP_MAX + 1)), ErrorKind::TooLarge { max } if max == most));
}

/// Bytes of the smallest file, as it is asked for.
fn least(options: &Options) -> u64 {
    let tiny = crate::Options::new().len(4096).in_memory().unwrap();
    let error = WorkingSet::format(&tiny, options).map(WorkingSet::abandon).unwrap_err();
    let ErrorKind::TooShort { len: 4096, asked } = *error.kind() else { panic!("{error}") };
    asked
}

#[test]
fn the_smallest_file_is_as_large_as_it_says() {
    let formatted = |len, options: &Options| {
        let region = crate::Options::new().len(len).in_memory().unwrap();
        let Ok(mut set) = WorkingSet::format(&region, options) else { return false };
        // It is large enough for all of the set.
        let bytes = set.len();
        set.slice_mut(0, bytes).unwrap().fill(7);
        assert_eq!(set.checkpoint().unwrap().bytes, bytes);
        set.abandon();
        true
    };
    for strategy in [Strategy::Shadow, Strategy::Redo] {
        for pages in [1, 2, 255, 256, 257, 600] {
            let options = Options::new(pages * 4096).strategy(strategy);
            let asked = least(&options);
            assert!(formatted(asked, &options), "{strategy}, {pages} pages");
            assert!(!formatted(asked - 64, &options), "{strategy}, {pages} pages");
        }
    }
    // Where the caller leaves the choice, a file for which a redo record is too large has none.
    let redo = least(&Options::new(1 << 20).strategy(Strategy::Redo));
    let shadow = least(&Options::new(1 << 20).strategy(Strategy::Shadow));
    assert!(shadow < redo);
    let chosen = |len| {
        let region =
            crate::Options::new().len(len).emulate(crate::Emulation::Adr).in_memory().unwrap();
        WorkingSet::format(&region, &Options::new(1 << 20)).unwrap().strategy()
    };
    assert_eq!(chosen(redo), Strategy::Redo);
    assert_eq!(chosen(redo - 64), Strategy::Shadow);
    assert_eq!(chosen(shadow), Strategy::Shadow);
}

#[test]
fn a_new_file_is_as_large_as_its_checkpoints_need() {
    let directory = tempfile::tempdir().unwrap();
    let created = |options: Options| {
        let path = directory.path().join("set");
        let mut set = options.create(&path).unwrap();
        // Changed throughout, again and again.
        let bytes = set.bytes().len();
        for round in 1..6 {
            set.write(0, &vec![round; bytes]).unwrap();
            set.checkpoint().unwrap();
        }
        let kept = set.list().len();
        set.close().unwrap();
        let len = std::fs::metadata(&path).unwrap().len();
        std::fs::remove_file(path).unwrap();
        (len, kept)
    };
    let shadow = |pages: u64| Options::new(pages * 4096).strategy(Strategy::Shadow);
    let redo = |pages: u64| Options::new(pages * 4096).strategy(Strategy::Redo);
    // Header and root are four pages, and a table has a page for 256 others and one above them.
    let (small, large) = (4 + 2 * 2, 4 + 2 * 303);
    assert_eq!(created(shadow(1)), (small * 4096, 1));
    assert_eq!(created(shadow(300)), (large * 4096, 1));
    assert_eq!(created(shadow(300).keep(2)), ((4 + 4 * 303) * 4096, 3));
    // With room for a record of all that may have changed.
    assert_eq!(created(redo(1)), (32768, 1));
    assert_eq!(created(redo(300)), (2_531_328, 1));
    // Room for either, where the region decides.
    assert_eq!(created(Options::new(300 * 4096)), (2_531_328, 1));
    assert_eq!(created(Options::new(300 * 4096).keep(1)), ((4 + 3 * 303) * 4096, 2));
    assert_eq!(created(Options::new(300 * 4096).file_bytes(8 << 20)), (8 << 20, 1));
}

#[test]
fn of_two_that_create_the_file_the_later_finds_it() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..100 {
        let path = directory.path().join(format!("set-{round}"));
        let both = Barrier::new(2);
        let attempt = || {
            both.wait();
            Options::new(4096).open_or_create(&path).err()
        };
        let errors = thread::scope(|scope| {
            let other = scope.spawn(attempt);
            [attempt(), other.join().unwrap()]
        });
        for error in errors.iter().flatten() {
            // The other one may still have it.
            assert!(matches!(error.kind(), ErrorKind::Locked), "{error}");
        }
    }
}

/// The offset of a page of the file that holds only this byte.
fn page_of(region: &impl Region, byte: u8) -> u64 {
    let mut page = [0; 4096];
    let holds = |at: &u64| region.read(*at, &mut page).is_ok() && page == [byte; 4096];
    (0..region.len()).step_by(4096).find(holds).expect("it is in the file")
}

#[test]
fn a_checkpoint_is_verified_page_by_page() {
    for strategy in [Strategy::Shadow, Strategy::Redo] {
        let region = region();
        let options = Options::new(20 * 4096).strategy(strategy);
        let mut set = WorkingSet::format(&region, &options).unwrap();
        set.write(0, &vec![7; 20 * 4096]).unwrap();
        set.write(11 * 4096, &[9; 4096]).unwrap();
        let saved = set.checkpoint().unwrap().sequence;
        // A redo record is laid over the set by the next one.
        set.write(0, &[8]).unwrap();
        let saved = saved.max(set.checkpoint().unwrap().sequence);
        set.verify(saved).unwrap();
        let error = set.verify(saved + 1).unwrap_err();
        let missing =
            matches!(error.kind(), ErrorKind::NoCheckpoint { sequence } if *sequence == saved + 1);
        assert!(missing, "{strategy}: {error}");
        let at = page_of(&region, 9);
        region.write(at + 77, &[6]).unwrap();
        let error = set.verify(saved).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{strategy}: {error}");
        let range = error.range().unwrap();
        assert!(range.start <= at + 77 && at + 77 < range.end, "{strategy}: {range:?}");
        set.abandon();
    }
}

#[test]
fn fewer_checkpoints_can_be_kept_and_not_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("set");
    let listed = |set: &WorkingSet<AnyRegion>| -> Vec<u64> {
        set.list().iter().map(|checkpoint| checkpoint.sequence).collect()
    };
    let save = |set: &mut WorkingSet<AnyRegion>, rounds: std::ops::RangeInclusive<u8>| {
        for round in rounds {
            set.write(0, &[round]).unwrap();
            set.checkpoint().unwrap();
        }
    };
    let mut set = Options::new(4096).keep(3).create(&path).unwrap();
    save(&mut set, 1..=5);
    assert_eq!(listed(&set), [2, 3, 4, 5]);
    drop(set);
    let mut set = Options::new(4096).keep(1).open(&path).unwrap();
    assert_eq!(listed(&set), [2, 3, 4, 5]);
    save(&mut set, 6..=6);
    assert_eq!(listed(&set), [5, 6]);
    drop(set);
    let mut set = Options::new(4096).keep(200).open(&path).unwrap();
    save(&mut set, 7..=12);
    assert_eq!(listed(&set), [9, 10, 11, 12]);
}

#[test]
fn what_recovery_found_is_told() {
    let directory = tempfile::tempdir().unwrap();
    for strategy in [Strategy::Shadow, Strategy::Redo] {
        let path = directory.path().join(strategy.as_str());
        let options = Options::new(20 * 4096).strategy(strategy);
        let mut set = options.create(&path).unwrap();
        set.write(0, &vec![7; 20 * 4096]).unwrap();
        set.checkpoint().unwrap();
        set.abandon();
        let set = options.open(&path).unwrap();
        let found = set.recovery().clone();
        assert_eq!(found.clean, strategy == Strategy::Redo, "all of a redo record is in its place");
        assert!(!found.cut_short && !found.header_damaged, "{found:?}");
        set.close().unwrap();
        let set = options.open(&path).unwrap();
        let found = set.recovery().clone();
        assert!(found.clean && !found.cut_short && !found.header_damaged, "{found:?}");
        assert_eq!((found.checkpoint, found.damaged.len()), (1, 0));
        if strategy == Strategy::Shadow {
            // Four pages of header and root, one of the table, and the set.
            assert_eq!(found.bytes_read, 25 * 4096);
        }
        drop(set);
        for copy in [0, 4096] {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[copy + 20] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let set = options.open(&path).unwrap();
            let found = set.recovery().clone();
            assert!(found.header_damaged && !found.clean && !found.cut_short, "{found:?}");
            drop(set);
            let set = options.open(&path).unwrap();
            assert!(set.recovery().clean && !set.recovery().header_damaged, "it is whole again");
        }
    }
    let words = [Strategy::Shadow, Strategy::Redo].map(|strategy| strategy.to_string());
    assert_eq!(words, ["shadow pages", "redo record"]);
    let all = [Tracking::Marked, Tracking::WriteProtect, Tracking::Comparison];
    assert_eq!(all.map(Tracking::as_str), ["marked", "write_protect", "comparison"]);
    let words = [
        "marked by the calls that change them",
        "marked by the kernel (userfaultfd write-protect)",
        "found by comparison",
    ];
    assert_eq!(all.map(|tracking| tracking.to_string()), words);
}

/// A region that held something else, and bytes of the set that nobody writes: they are zero, and
/// a block that was not written before is written whole, once.
#[test]
fn what_the_region_held_before_is_not_in_the_set() {
    let region = region();
    region.write(0, &vec![0xaa; 1 << 20]).unwrap();
    let options = Options::new(3 * 4096).strategy(Strategy::Redo).seed(7);
    let mut set = WorkingSet::format(&region, &options).unwrap();
    let mut model = vec![0; 3 * 4096];
    let mut value = 0;
    // Where a byte is written, after an opening or not, and the bytes that this makes durable.
    for (at, reopened, bytes) in [
        (513, false, 512),
        (514, false, 64),
        (1000, false, 64),
        (0, true, 512),
        (1000, true, 64),
        (4096 + 4095, false, 512),
        (8192, false, 512),
        (8192 + 7 * 512, true, 512),
        (8192 + 511, false, 64),
        (4096, true, 512),
        (4096 + 4095, true, 64),
    ] {
        if reopened {
            set.abandon();
            set = WorkingSet::open(&region, &options).unwrap();
            assert_eq!(set.bytes(), model, "{at}");
        }
        value += 1;
        model[at as usize] = value;
        set.write(at, &[value]).unwrap();
        let mut some = [0; 100];
        let from = at.min(3 * 4096 - 100);
        set.read(from, &mut some).unwrap();
        assert_eq!(some, model[from as usize..from as usize + 100]);
        assert_eq!(set.checkpoint().unwrap().bytes, bytes, "{at}");
    }
    set.abandon();
    let set = WorkingSet::open(&region, &options).unwrap();
    assert_eq!(set.bytes(), model);
    set.abandon();
}

/// What the root of shadow pages must not be, with few and with many checkpoints in it.
#[test]
fn a_root_that_makes_no_sense_is_an_error_that_says_where() {
    for keep in [0, 100] {
        let region = region();
        let open = || {
            let opened = WorkingSet::open(&region, &Options::new(4096).keep(keep));
            opened.map(WorkingSet::abandon).unwrap_err()
        };
        let options = Options::new(4096).keep(keep).strategy(Strategy::Shadow);
        WorkingSet::format(&region, &options).unwrap().abandon();
        let found = Header::find(&region, Kind::Checkpoint, VERSION..=VERSION).unwrap();
        let Found::Header { header, .. } = found else { panic!("{found:?}") };
        let capacity = (keep + 1) * RECORD_BYTES as u32;
        let cell = Cell::new(HEADER_AREA, capacity, Key::new(header.salt));
        let root = cell.find(&region).unwrap().newest.unwrap();
        let store = |sequence, version, value: &[u8]| {
            cell.store(&region, &mut Vec::new(), sequence, version, value).unwrap();
        };
        let all = HEADER_AREA..HEADER_AREA + Cell::bytes(capacity);
        store(root.sequence + 1, root.version + 1, &root.value);
        let error = open();
        let newer = matches!(error.kind(), ErrorKind::NewerFormat { found: 2, newest: 1 });
        assert!(newer, "{keep}: {error}");
        for value in [&[][..], &root.value[..50]] {
            store(root.sequence + 1, root.version, value);
            let error = open();
            assert!(matches!(error.kind(), ErrorKind::Damaged("the root")), "{keep}: {error}");
            assert_eq!(error.range(), Some(all.clone()), "{keep}");
        }
        for sequence in [0, 1] {
            region.write(cell.slot(sequence), &[0xff; 64]).unwrap();
        }
        let error = open();
        let damaged = matches!(error.kind(), ErrorKind::Damaged("both copies of the root"));
        assert!(damaged, "{keep}: {error}");
        assert_eq!(error.range(), Some(all), "{keep}");
    }
}
