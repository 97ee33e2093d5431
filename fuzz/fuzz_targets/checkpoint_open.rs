//! Opens what may be a checkpoint file, by either strategy: never a panic, and never a working set
//! that was not saved under that number.
#![no_main]

use daxmap::checkpoint::{Options, WorkingSet};
use daxmap::{ErrorKind, Region};
use daxmap_fuzz::checkpoint::{FILES, Whole, label, whole};
use daxmap_fuzz::{bytes, is_one_byte, region, scatter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    match (first % 2, rest.split_first()) {
        (1, Some((&number, changes))) => {
            let mut whole = whole(number % FILES).expect("in memory");
            scatter(&mut whole.bytes, changes);
            let found = open(&whole.bytes, Some(&whole));
            if let Some(found) = found.filter(|_| whole.closed && is_one_byte(changes)) {
                assert!(Some(&found) == whole.sets.last(), "damage went unnoticed");
            }
        }
        _ => drop(open(rest, None)),
    }
});

/// `whole`: what the file was before it was changed. Returns the working set of a file that opens.
fn open(content: &[u8], whole: Option<&Whole>) -> Option<Vec<u8>> {
    let region = region(content);
    let before = bytes(&region);
    // Of any size.
    let options = Options::new(0).seed(3);
    let reading = options.clone().read_only(true);
    let found = WorkingSet::open(&region, &reading).ok().map(|set| {
        let kept = set.list();
        assert!(kept.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
        for checkpoint in &kept {
            let sequence = checkpoint.sequence;
            let verified = set.verify(sequence);
            let restored = WorkingSet::open(&region, &reading.clone().from_checkpoint(sequence));
            let Ok(restored) = restored else {
                assert!(verified.is_err(), "verified, but not to be had");
                continue;
            };
            // The other way round: a page that the redo record makes whole is damaged until then.
            if let Some(whole) = whole {
                let saved = whole.sets.get(sequence as usize).expect("a number that was given");
                assert!(restored.bytes() == saved, "{sequence} was never that");
                assert_eq!(checkpoint.label, label(sequence));
            }
        }
        if let Some(whole) = whole {
            assert!(whole.sets.iter().any(|saved| saved == set.bytes()), "it was never that");
        }
        set.bytes().to_vec()
    });
    assert!(bytes(&region) == before, "reading changed something");
    go_on(&region, &options, found.as_deref());
    found
}

/// Opens the file for writing, and saves into it.
fn go_on(region: &impl Region, options: &Options, found: Option<&[u8]>) {
    let before = bytes(region);
    let mut set = match WorkingSet::open(region, options) {
        Ok(set) => set,
        Err(_) => {
            assert!(found.is_none(), "what can be read can be gone on with");
            assert!(bytes(region) == before, "a failed open changed something");
            return;
        }
    };
    assert!(found == Some(set.bytes()), "reading gave something else");
    let mut expected = set.bytes().to_vec();
    set.slice_mut(0, 1).expect("it has a byte")[0] ^= 0xff;
    match set.checkpoint() {
        Ok(_) => expected[0] ^= 0xff,
        Err(error) => assert!(matches!(error.kind(), ErrorKind::Full { .. }), "{error}"),
    }
    // Closing would close the region as well.
    set.abandon();
    let set = WorkingSet::open(region, options).expect("what was saved is there");
    assert!(set.bytes() == expected, "what was saved is there");
}
