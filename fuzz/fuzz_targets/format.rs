//! Gives any bytes to everything that opens a region, whichever kind they are of: never a panic,
//! and nothing changes that is not of the kind asked for.
#![no_main]

use daxmap::ErrorKind;
use daxmap::state::{StateOptions, inspect};
use daxmap_fuzz::{bytes, region};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((_, content)) = input.split_first() else { return };
    state(content);
});

fn state(content: &[u8]) {
    let region = region(content);
    let before = bytes(&region);
    let seen = inspect(&region);
    // Of any version and size: the upgrade is given what the file holds.
    let options = || {
        StateOptions::<[u8; 16]>::new().version(u32::MAX).upgrade(|_, old| {
            let mut new = [0; 16];
            let kept = old.len().min(16);
            new[..kept].copy_from_slice(&old[..kept]);
            Some(new)
        })
    };
    let opened = options().open_region(&region);
    match (&seen, &opened) {
        (Err(_), Ok(_)) => panic!("opened, but not inspected"),
        (_, Err(error)) => {
            let io = matches!(error.kind(), ErrorKind::Os(_) | ErrorKind::OutOfBounds { .. });
            assert!(!io, "not an error about the content: {error}");
            assert_eq!(bytes(&region), before, "a failed open changed something");
        }
        (Ok(_), Ok(state)) => assert_eq!(state.sequence(), state.recovery().sequence),
    }
    drop(opened);
    let made = options().open_or_format(&region, &[1; 16]);
    if let Ok(state) = made {
        state.store(&[2; 16]).expect("a state can be stored into");
    }
}
