//! The bytes of small files of every kind. A change of these is another format: it takes a new version
//! number, and files of this one must still be read.

use twox_hash::XxHash3_64;

use crate::checkpoint::{self, Strategy, WorkingSet};
use crate::log::{LogOptions, Lsn};
use crate::state::{StateOptions, region_bytes};
use crate::{AnyRegion, Options, Region};

fn hash(region: &AnyRegion) -> u64 {
    let mut bytes = vec![0; region.len() as usize];
    region.read(0, &mut bytes).unwrap();
    XxHash3_64::oneshot(&bytes)
}

/// A region that held something before.
fn region(len: u64) -> AnyRegion {
    let region = Options::new().len(len).in_memory().unwrap();
    region.write(0, &vec![0x5c; len as usize]).unwrap();
    region
}

#[test]
fn a_log_is_the_same_as_ever() {
    let region = region(80 << 10);
    let mut log = LogOptions::new().segment_bytes(8192).seed(1).format(&region).unwrap();
    log.append(b"one").unwrap();
    log.append_many((0..5).map(|len| vec![len; 30 * usize::from(len)])).unwrap();
    log.append(&[9; 3000]).unwrap();
    log.append(&[8; 3000]).unwrap();
    log.release_up_to(Lsn::new(2)).unwrap();
    log.truncate_after(Lsn::new(7)).unwrap();
    log.append(b"instead").unwrap();
    log.abandon();
    assert_eq!(hash(&region), LOG[0], "left by a kill");
    LogOptions::new().seed(2).open_region(&region).unwrap().close().unwrap();
    assert_eq!(hash(&region), LOG[1], "closed");
}

#[test]
fn a_state_is_the_same_as_ever() {
    let region = region(region_bytes(64));
    let state = StateOptions::<[u64; 8]>::new().seed(1).format(&region, &[1; 8]).unwrap();
    state.store(&[2; 8]).unwrap();
    state.store(&[3; 8]).unwrap();
    state.abandon();
    assert_eq!(hash(&region), STATE);
}

#[test]
fn checkpoints_are_the_same_as_ever() {
    for (strategy, [saved, later]) in [(Strategy::Shadow, SHADOW), (Strategy::Redo, REDO)] {
        let region = region(256 << 10);
        let keep = u32::from(strategy == Strategy::Shadow) * 2;
        let options = checkpoint::Options::new(10_000).strategy(strategy).keep(keep).seed(1);
        let mut set = WorkingSet::format(&region, &options).unwrap();
        for value in 1..=4_u8 {
            set.write(u64::from(value) * 2100, &[value; 1000]).unwrap();
            set.checkpoint_labelled(&format!("number {value}")).unwrap();
        }
        set.abandon();
        assert_eq!(hash(&region), saved, "{strategy}, left by a kill");
        let mut set = WorkingSet::open(&region, &options).unwrap();
        set.write(0, &[9; 5000]).unwrap();
        set.checkpoint().unwrap();
        set.abandon();
        assert_eq!(hash(&region), later, "{strategy}, saved once more");
    }
}

const LOG: [u64; 2] = [0xc921_2f6d_4316_4efe, 0x5806_5e6c_4ba8_0c3f];
const STATE: u64 = 0x3899_ba55_5647_c35b;
const SHADOW: [u64; 2] = [0xb927_d145_514e_1237, 0x3845_03b0_39ea_9685];
const REDO: [u64; 2] = [0xeaa1_615b_9f63_3007, 0x7ac5_ea14_9ecd_aa8e];
