//! Files that are not what they should be, or that others use.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use daxmap::state::{State, StateOptions};
use daxmap::{Emulation, ErrorKind, Options};
use pmem_tests::scratch::Directory;

use crate::model::{Value, generation, options, value};

const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const MEMORY: &str = "/dev/shm";
const WORDS: usize = 500;
type Root = Value<WORDS>;

/// A copy of a file in use holds a value that it had meanwhile, or says that it is damaged.
#[test]
fn a_copy_made_in_use_is_whole_or_says_so() {
    let directory = Directory::new(MEMORY);
    let (path, copy) = (directory.path().join("root"), directory.path().join("copy"));
    let state = State::create(&path, &value::<WORDS>(1, 1)).unwrap();
    let last = AtomicU64::new(1);
    let store = || state.store(&value(last.fetch_add(1, Ordering::Relaxed) + 1, 1)).unwrap();
    let (mut whole, mut damaged, mut seen) = (0, 0, BTreeSet::new());
    let mut copied = |piece: usize, between: &dyn Fn(usize)| {
        let before = state.load()[0];
        let mut file = fs::File::open(&path).unwrap();
        let mut bytes = Vec::new();
        let mut piece = vec![0; piece];
        for number in 0.. {
            let count = file.read(&mut piece).unwrap();
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&piece[..count]);
            between(number);
        }
        let after = state.load()[0] + 1;
        fs::write(&copy, &bytes).unwrap();
        match options::<WORDS>(1).open(&copy) {
            Ok(opened) => {
                let found = generation::<WORDS>(&opened.load(), 1).expect("one whole value");
                // The slot that was not being stored into may hold the one before.
                assert!((before - 1..=after).contains(&found), "{found} of {before} to {after}");
                seen.insert(found);
                whole += 1;
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{error}");
                damaged += 1;
            }
        }
    };
    // Stores between the pieces: after every piece, or after one in up to seven of them.
    for round in 0..2000 {
        copied(300 + round % 700, &|number| {
            if (number + round) % (1 + round % 7) == 0 {
                store();
            }
        });
    }
    // Stores into the pieces, by a thread that never stops: chance says how many copies are whole.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store();
            }
        });
        // A failed assertion ends the thread too.
        let ended = panic::catch_unwind(AssertUnwindSafe(|| {
            for round in 0..2000 {
                copied(300 + round % 700, &|_| thread::yield_now());
            }
        }));
        done.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|panicked| panic::resume_unwind(panicked));
    });
    let last = last.into_inner();
    println!("{whole} copies of {} values whole, {damaged} damaged; {last} stores", seen.len());
    assert!(whole > 100 && seen.len() > 100 && damaged > 100);
    // Nothing was lost by being read.
    assert_eq!(state.load(), value(last, 1));
    drop(state);
    assert_eq!(State::<Root>::open(&path).unwrap().load(), value(last, 1));
}

#[test]
fn a_second_writer_is_refused_and_a_reader_follows() {
    for here in [HERE, MEMORY] {
        let directory = Directory::new(here);
        let path = directory.path().join("root");
        let state = State::create(&path, &value::<WORDS>(1, 1)).unwrap();
        for error in [
            State::<Root>::open(&path).unwrap_err(),
            State::open_or_create(&path, &value::<WORDS>(9, 1)).unwrap_err(),
        ] {
            assert!(matches!(error.kind(), ErrorKind::Locked), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        let reader = options::<WORDS>(1).read_only(true).open(&path).unwrap();
        for generation in 2..50 {
            state.store(&value(generation, 1)).unwrap();
            assert!(reader.refresh().unwrap());
            assert_eq!(reader.load(), value(generation, 1));
        }
        drop((reader, state));
        assert_eq!(State::<Root>::open(&path).unwrap().load(), value(49, 1));
    }
}

/// Readers of a state that is stored into all the time see whole values, in order.
#[test]
fn a_reader_sees_no_torn_value() {
    let directory = Directory::new(MEMORY);
    let path = directory.path().join("root");
    let state = State::create(&path, &value::<WORDS>(1, 1)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for generation in 2.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                state.store(&value(generation, 1)).unwrap();
            }
        });
        let reader = options::<WORDS>(1).read_only(true).open(&path).unwrap();
        let (mut last, mut news) = (0, 0);
        while news < 3000 {
            match reader.refresh() {
                Ok(new) => news += u32::from(new),
                // Overtaken in every attempt.
                Err(error) => assert!(matches!(error.kind(), ErrorKind::Damaged(_)), "{error}"),
            }
            let found = generation::<WORDS>(&reader.load(), 1).expect("whole");
            assert!(found >= last);
            last = found;
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Threads that change one state lose no change, and loads see each once it is durable.
#[test]
fn no_update_of_several_threads_is_lost() {
    const EACH: u64 = 2000;
    let directory = Directory::new(MEMORY);
    let path = directory.path().join("count");
    let options = Options::new().emulate(Emulation::Adr);
    let state = StateOptions::new().region(options).create(&path, &[0_u64; 4]).unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let state = &state;
            scope.spawn(move || {
                for count in 1..=EACH {
                    let mine = state.update(|counts| {
                        counts[thread] += 1;
                        counts[thread]
                    });
                    assert_eq!(mine.unwrap(), count);
                    assert_eq!(state.load()[thread], count);
                }
            });
        }
    });
    assert_eq!((state.load(), state.sequence()), ([EACH; 4], 4 * EACH + 1));
}

/// A disk that fails: the error is final, the value in memory the one before, and what is found
/// afterwards one of the two.
#[test]
fn a_failed_sync_is_final() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("root");
    let state = State::create(&path, &value::<WORDS>(1, 1)).unwrap();
    state.store(&value(2, 1)).unwrap();
    let error = pmem_tests::failing::with_failing(libc::SYS_fdatasync, libc::EIO, || {
        state.store(&value(3, 1)).unwrap_err()
    });
    assert!(error.is_durability_unknown(), "{error}");
    assert_eq!((state.load(), state.sequence()), (value(2, 1), 2));
    assert!(state.store(&value(4, 1)).unwrap_err().is_failed());
    assert!(state.update(|_| ()).unwrap_err().is_failed());
    assert!(state.close().is_err());
    let found = generation::<WORDS>(&State::<Root>::open(&path).unwrap().load(), 1);
    assert!(matches!(found, Some(2 | 3)), "{found:?}");
}

/// A forked child that ends must not write what it took along over what its parent stored since.
#[test]
fn a_forked_child_settles_nothing() {
    let directory = Directory::new(MEMORY);
    let path = directory.path().join("root");
    let state = State::create(&path, &value::<WORDS>(1, 1)).unwrap();
    state.store(&value(2, 1)).unwrap();
    state.store(&value(3, 1)).unwrap();
    let before = fs::read(&path).unwrap();
    #[allow(unsafe_code)]
    // SAFETY: the child only drops the state, which takes no lock that another thread may hold,
    // and leaves by _exit.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            drop(state);
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    state.close().unwrap();
    assert_eq!(State::<Root>::open(&path).unwrap().load(), value(3, 1));
}
