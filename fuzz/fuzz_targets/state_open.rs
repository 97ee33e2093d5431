//! Opens what may be a state: never a panic, and never a value that was not stored.
#![no_main]

use daxmap::state::{Slot, StateOptions, inspect};
use daxmap_fuzz::{STORES, Value, bytes, edit, region, value, whole_state};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    match (first % 3, rest.split_first()) {
        (1 | 2, Some((&stores, edits))) => {
            let stores = u64::from(stores) % STORES + 1;
            let mut whole = whole_state(stores, first % 3 == 2).expect("in memory");
            edit(&mut whole, edits);
            // The salt is known here: bytes that validate may still be made only with its hash.
            open(&whole, Some(stores));
        }
        _ => open(rest, None),
    }
});

/// `stores`: how many values the file was given before it was edited.
fn open(content: &[u8], stores: Option<u64>) {
    let options = || StateOptions::<Value>::new();
    let region = region(content);
    let before = bytes(&region);
    let seen = inspect(&region);
    let read = options().read_only(true).open_region(&region);
    assert_eq!(bytes(&region), before, "reading changed something");
    let Ok(read) = read else {
        // What cannot be read is not written to either.
        assert!(options().open_region(&region).is_err());
        assert_eq!(bytes(&region), before, "a failed open changed something");
        return;
    };
    let found = read.load();
    if let Some(stores) = stores {
        assert!((1..=stores).any(|number| found == value(number)), "{found:x?} was never stored");
    }
    let seen = seen.expect("what opens can be inspected");
    let newest = &seen.slots[seen.newest().expect("there is a value")];
    assert!(matches!(newest, Slot::Valid { value, .. } if value.len() == size_of::<Value>()));

    let state = options().open_region(&region).expect("what can be read can be healed");
    assert_eq!(state.load(), found);
    state.store(&value(77)).expect("a state can be stored into");
    drop(state);
    let state = options().open_region(&region).expect("what was stored is there");
    assert_eq!(state.load(), value(77));
    assert!(state.recovery().clean);
}
