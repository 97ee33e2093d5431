//! Files of version 1: what becomes of them.

use super::{bytes, unpack};
use crate::checkpoint::{self, WorkingSet};
use crate::format::header::{Found, HEADER_AREA, Header, Kind};
use crate::log::{LogOptions, LogReader, Lsn};
use crate::state::{self, StateOptions};
use crate::{AnyRegion, Error, ErrorKind, Options, Region, UnsafeShutdown};

const LOGS: [&str; 2] = [include_str!("log-1-killed.txt"), include_str!("log-1-closed.txt")];
const STATE: &str = include_str!("state-1.txt");
const SETS: [&str; 2] = [include_str!("shadow-1.txt"), include_str!("redo-1.txt")];

fn region(golden: &str) -> AnyRegion {
    let bytes = unpack(golden);
    let region = Options::new().len(bytes.len() as u64).in_memory().unwrap();
    region.write(0, &bytes).unwrap();
    region
}

fn versions(region: &impl Region) -> [Option<u32>; 2] {
    Header::copies(region).unwrap().map(|copy| copy.map(|copy| copy.version))
}

fn is_refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::OlderFormat { found: 1, oldest: 2 })
}

#[test]
fn a_log_of_version_1_is_refused_by_name_and_not_changed() {
    for golden in LOGS {
        let (region, options) = (region(golden), LogOptions::new());
        let before = bytes(&region);
        for error in [
            options.open_region(&region).unwrap_err(),
            options.open_or_format(&region).unwrap_err(),
            options.clone().read_only(true).open_region(&region).unwrap_err(),
            options.clone().accept_damage(true).open_region(&region).unwrap_err(),
            LogReader::in_region(&region, Lsn::ZERO).unwrap_err(),
        ] {
            assert!(is_refused(&error), "{error}");
            assert!(error.to_string().contains("format version 1"), "{error}");
        }
        assert!(bytes(&region) == before);
        // Who wants a new one has it.
        options.format(&region).unwrap().close().unwrap();
        assert_eq!(versions(&region), [Some(2); 2]);
    }
}

#[test]
fn a_state_of_version_1_is_read_as_it_is_and_upgraded_by_an_opening_for_writing() {
    let region = region(STATE);
    let (before, options) = (bytes(&region), StateOptions::<[u64; 8]>::new);
    let state = options().read_only(true).open_region(&region).unwrap();
    assert_eq!((state.load(), state.recovery().unsafe_shutdown), ([3; 8], UnsafeShutdown::Unknown));
    drop(state);
    let seen = state::inspect(&region).unwrap();
    assert_eq!((seen.format, seen.unsafe_shutdown), (1, UnsafeShutdown::Unknown));
    assert!(bytes(&region) == before);

    let state = options().open_region(&region).unwrap();
    assert_eq!((state.load(), state.recovery().unsafe_shutdown), ([3; 8], UnsafeShutdown::Unknown));
    assert_eq!(versions(&region), [Some(2); 2]);
    state.store(&[4; 8]).unwrap();
    drop(state);
    let state = options().open_region(&region).unwrap();
    assert_eq!((state.load(), state.recovery().clean), ([4; 8], true));
}

#[test]
fn a_checkpoint_file_of_version_1_is_read_as_it_is_and_upgraded_by_an_opening_for_writing() {
    for golden in SETS {
        let region = region(golden);
        let (before, options) = (bytes(&region), checkpoint::Options::new(10_000));
        let set = WorkingSet::open(&region, &options.clone().read_only(true)).unwrap();
        assert_eq!((set.bytes()[4999], set.recovery().checkpoint), (9, 5));
        assert_eq!(set.recovery().unsafe_shutdown, UnsafeShutdown::Unknown);
        drop(set);
        let seen = checkpoint::contents_of(&region).unwrap();
        assert!(seen.checkpoints.iter().all(|(_, sound)| sound.is_ok()));
        assert!(bytes(&region) == before);

        let mut set = WorkingSet::open(&region, &options).unwrap();
        assert_eq!((set.bytes()[4999], set.recovery().checkpoint), (9, 5));
        assert_eq!(versions(&region), [Some(2); 2]);
        set.write(0, b"more").unwrap();
        set.checkpoint().unwrap();
        set.abandon();
        let set = WorkingSet::open(&region, &options).unwrap();
        assert_eq!(&set.bytes()[..5], b"more\x09");
    }
}

/// A crash at every step of an upgrade, whichever copy of the header was whole before.
#[cfg(feature = "model")]
#[test]
fn an_upgrade_that_is_cut_leaves_a_file_of_either_version() {
    use crate::sim::{Explorer, Mode};
    let golden = unpack(STATE);
    for (mode, damaged) in [
        (Mode::Adr, None),
        (Mode::Adr, Some(0)),
        (Mode::Eadr, Some(4096)),
        (Mode::PageCache, Some(0)),
    ] {
        let prepare = golden.clone();
        let report = Explorer::new(mode, golden.len() as u64)
            .images(200)
            .samples(8)
            .depth(1)
            .setup(move |region| {
                region.write(0, &prepare)?;
                damaged.map_or(Ok(()), |at| region.write(at + 20, &[0xff]))
            })
            .run(
                |region, _| {
                    let state = StateOptions::<[u64; 8]>::new().open_region(region.clone())?;
                    state.abandon();
                    Ok(())
                },
                |region, _| {
                    let found = Header::find(region, Kind::State, 1..=2);
                    let Ok(Found::Header { header, .. }) = found else {
                        return Err(format!("{found:?}"));
                    };
                    let state = StateOptions::<[u64; 8]>::new().open_region(region.clone());
                    let state = state.map_err(|error| error.to_string())?;
                    let same = state.load() == [3; 8] && versions(region) == [Some(2); 2];
                    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
                    let all = bytes(region);
                    let rest = zero(&all[128..4096]) && zero(&all[4224..HEADER_AREA as usize]);
                    state.abandon();
                    if same && rest { Ok(()) } else { Err(format!("{header:?}")) }
                },
            );
        assert!(report.expect_clean().crash_points > 10);
    }
}
