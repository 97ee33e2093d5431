//! The bytes of small files of every kind. A change of these is another format: it takes a new version
//! number, and files of this one must still be read or refused by name.
//!
//! Files of version 1 were made by the program that wrote it. They are the same programs' as those of
//! version 2 here.

mod older;
mod packed;

use self::packed::{pack, unpack};
use crate::checkpoint::{self, Strategy, WorkingSet};
use crate::log::{LogOptions, Lsn};
use crate::pages::{FIRST, PageOptions};
use crate::state::{StateOptions, region_bytes};
use crate::{AnyRegion, Options, Region};

fn bytes(region: &impl Region) -> Vec<u8> {
    let mut bytes = vec![0; region.len() as usize];
    region.read(0, &mut bytes).unwrap();
    bytes
}

/// A region that held something before.
fn region(len: u64) -> AnyRegion {
    let region = Options::new().len(len).in_memory().unwrap();
    region.write(0, &vec![0x5c; len as usize]).unwrap();
    region
}

/// That a region holds a golden file.
#[track_caller]
fn assert_golden(region: &AnyRegion, golden: &str, how: &str) {
    let found = bytes(region);
    let text = pack(&found);
    assert!(found == unpack(golden), "{how}: another format. It is now:\n{text}");
}

#[test]
fn a_log_is_the_same_as_ever() {
    let region = region(80 << 10);
    let mut log = LogOptions::new().segment_bytes(12288).seed(1).format(&region).unwrap();
    log.append(b"one").unwrap();
    log.append_many((0..5).map(|len| vec![len; 30 * usize::from(len)])).unwrap();
    log.append(&[9; 3000]).unwrap();
    log.append(&[8; 3000]).unwrap();
    log.release_up_to(Lsn::new(2)).unwrap();
    log.truncate_after(Lsn::new(7)).unwrap();
    log.append(b"instead").unwrap();
    log.abandon();
    assert_golden(&region, include_str!("log-2-killed.txt"), "left by a kill");
    LogOptions::new().seed(2).open_region(&region).unwrap().close().unwrap();
    assert_golden(&region, include_str!("log-2-closed.txt"), "closed");
}

#[test]
fn a_state_is_the_same_as_ever() {
    let region = region(region_bytes(64));
    let state = StateOptions::<[u64; 8]>::new().seed(1).format(&region, &[1; 8]).unwrap();
    state.store(&[2; 8]).unwrap();
    state.store(&[3; 8]).unwrap();
    state.abandon();
    assert_golden(&region, include_str!("state-2.txt"), "left by a kill");
}

#[test]
fn checkpoints_are_the_same_as_ever() {
    let goldens = [
        (Strategy::Shadow, include_str!("shadow-2.txt")),
        (Strategy::Redo, include_str!("redo-2.txt")),
    ];
    for (strategy, golden) in goldens {
        let region = region(256 << 10);
        let keep = u32::from(strategy == Strategy::Shadow) * 2;
        let options = checkpoint::Options::new(10_000).strategy(strategy).keep(keep).seed(1);
        let mut set = WorkingSet::format(&region, &options).unwrap();
        for value in 1..=4_u8 {
            set.write(u64::from(value) * 2100, &[value; 1000]).unwrap();
            set.checkpoint_labelled(&format!("number {value}")).unwrap();
        }
        set.abandon();
        let mut set = WorkingSet::open(&region, &options).unwrap();
        set.write(0, &[9; 5000]).unwrap();
        set.checkpoint().unwrap();
        set.abandon();
        assert_golden(&region, golden, strategy.as_str());
    }
}

#[test]
fn pages_are_the_same_as_ever() {
    let region = region(FIRST + (64 << 10));
    region.fill_flush(0, region.len(), 0).unwrap();
    let options = PageOptions::new().seed(1);
    let pages = options.format(&region).unwrap();
    for number in 1..=4_u8 {
        pages.write_atomic(u64::from(number % 3) * 8192, &[number; 8192]).unwrap();
    }
    pages.abandon();
    assert_golden(&region, include_str!("pages-2-killed.txt"), "left by a kill");
    drop(options.open_region(&region).unwrap());
    let closed = bytes(&region);
    // No record is left, and the pages are as they were.
    assert!(closed[8192..8256] == [0; 64] && closed[77824..77888] == [0; 64]);
    assert!(
        closed[FIRST as usize..] == unpack(include_str!("pages-2-killed.txt"))[FIRST as usize..]
    );
}
