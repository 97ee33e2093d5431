//! The simulator against the published persistency models of x86.
//!
//! The programs are of the kind discussed by Raad, Wickerson, Neis and Vafeiadis ("Persistency
//! semantics of the Intel-x86 architecture", POPL 2020) and by Khyzha and Lahav ("Taming x86-TSO
//! persistency", POPL 2021); `flush` is CLWB, `drain` is SFENCE. Each is crashed everywhere, in
//! every interleaving, with every image, and the set of all outcomes is compared: what is allowed
//! has been seen, what is forbidden has not.
//!
//! Three rules differ on purpose, and say so where they are tested: the contract of the trait
//! makes no fence of a compare-and-exchange, loads and stores are sequentially consistent, and a
//! `write_flush` is the weakest of what backends do.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use daxmap::{Region, Result};
use daxmap_sim::{Body, Explorer, History, Mode, Notes, SimRegion};

/// Two words of one line, and one word each of two others.
const X: u64 = 0;
const X2: u64 = 8;
const Y: u64 = 1024;
const Z: u64 = 2048;

type Outcomes = BTreeSet<Vec<u64>>;

type Check = Box<dyn Fn(&SimRegion, &History) -> std::result::Result<(), String> + Send + Sync>;

/// A check that notes what these words hold, and accepts it.
fn collecting(words: &'static [u64]) -> (Arc<Mutex<Outcomes>>, Check) {
    let seen = Arc::new(Mutex::new(Outcomes::new()));
    let into = Arc::clone(&seen);
    let check = move |region: &SimRegion, _: &History| {
        let values = words.iter().map(|&word| region.load_u64(word).unwrap()).collect();
        into.lock().unwrap().insert(values);
        Ok(())
    };
    (seen, Box::new(check))
}

/// Everything that a crash of this program can leave in these words.
fn outcomes(
    mode: Mode,
    words: &'static [u64],
    program: impl Fn(&SimRegion) -> Result<()> + Send + Sync + 'static,
) -> Outcomes {
    let (seen, check) = collecting(words);
    let report = Explorer::new(mode, 4096).run(move |region, _| program(region), check);
    assert!(report.expect_clean().is_exhaustive());
    let seen = seen.lock().unwrap();
    seen.clone()
}

type Program = fn(&SimRegion) -> Result<()>;

/// The same for two threads, in every interleaving.
fn outcomes_of_two(mode: Mode, words: &'static [u64], programs: [Program; 2]) -> Outcomes {
    let (seen, check) = collecting(words);
    let bodies = programs
        .map(|program| -> Body { Box::new(move |region: &SimRegion, _: &Notes| program(region)) });
    let report = Explorer::new(mode, 4096).preemptions(20).run_threads(&bodies, check);
    assert!(report.expect_clean().is_exhaustive());
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[track_caller]
fn exactly<const N: usize>(seen: &Outcomes, expected: &[[u64; N]]) {
    let expected: Outcomes = expected.iter().map(|values| values.to_vec()).collect();
    assert_eq!(seen, &expected);
}

#[test]
fn lines_persist_in_any_order() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}

#[test]
fn a_line_persists_in_program_order() {
    let seen = outcomes(Mode::Adr, &[X, X2], |r| {
        r.store_u64(X, 1)?;
        r.store_u64(X2, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [1, 1]]);
}

#[test]
fn a_word_passes_through_its_values_in_order() {
    let seen = outcomes(Mode::Adr, &[X, X2], |r| {
        r.store_u64(X, 1)?;
        r.store_u64(X2, 1)?;
        r.store_u64(X, 2)
    });
    exactly(&seen, &[[0, 0], [1, 0], [1, 1], [2, 1]]);
}

#[test]
fn a_flush_alone_orders_nothing() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.flush(X, 8)?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}

#[test]
fn a_fence_alone_orders_nothing() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}

#[test]
fn flush_and_fence_order() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.flush(X, 8)?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [1, 1]]);
}

#[test]
fn a_flush_of_another_line_does_not_help() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.flush(Y, 8)?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}

#[test]
fn a_flush_takes_the_whole_line_with_it() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.flush(X2, 1)?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [1, 1]]);
}

#[test]
fn a_flush_does_not_cover_later_stores() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.flush(X, 8)?;
        r.store_u64(X, 2)?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    // The value flushed is the least that is there after the fence.
    exactly(&seen, &[[0, 0], [1, 0], [2, 0], [1, 1], [2, 1]]);
}

#[test]
fn a_later_store_to_a_flushed_line_stays_open() {
    let seen = outcomes(Mode::Adr, &[X, X2, Y], |r| {
        r.store_u64(X, 1)?;
        r.flush(X, 8)?;
        r.store_u64(X2, 1)?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]]);
}

#[test]
fn a_flush_before_the_store_is_none() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.flush(X, 8)?;
        r.store_u64(X, 1)?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}

#[test]
fn one_fence_completes_all_flushes_before_it() {
    let seen = outcomes(Mode::Adr, &[X, Y, Z], |r| {
        r.store_u64(X, 1)?;
        r.store_u64(Y, 1)?;
        r.flush(X, 8)?;
        r.flush(Y, 8)?;
        r.drain()?;
        r.store_u64(Z, 1)
    });
    exactly(&seen, &[[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1]]);
}

#[test]
fn of_two_flushes_of_a_line_the_later_one_took_more() {
    let seen = outcomes(Mode::Adr, &[X, Z], |r| {
        r.store_u64(X, 1)?;
        r.flush(X, 8)?;
        r.store_u64(Y, 1)?;
        r.flush(Y, 8)?;
        r.store_u64(X, 2)?;
        r.flush(X, 8)?;
        r.drain()?;
        r.store_u64(Z, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [2, 0], [2, 1]]);
}

#[test]
fn a_fence_that_was_spent_covers_no_later_flush() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.drain()?;
        r.flush(X, 8)?;
        r.store_u64(Y, 1)
    });
    assert!(seen.contains(&vec![0, 1]), "{seen:?}");
}

#[test]
fn seeing_a_store_does_not_make_it_durable() {
    let seen = outcomes_of_two(
        Mode::Adr,
        &[X, Y],
        [
            |r| r.store_u64(X, 1),
            |r| {
                if r.load_u64(X)? == 1 {
                    r.store_u64(Y, 1)?;
                }
                Ok(())
            },
        ],
    );
    exactly(&seen, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}

#[test]
fn a_thread_may_flush_what_another_stored() {
    let seen = outcomes_of_two(
        Mode::Adr,
        &[X, Y],
        [
            |r| r.store_u64(X, 1),
            |r| {
                if r.load_u64(X)? == 1 {
                    r.flush(X, 8)?;
                    r.drain()?;
                    r.store_u64(Y, 1)?;
                }
                Ok(())
            },
        ],
    );
    exactly(&seen, &[[0, 0], [1, 0], [1, 1]]);
}

#[test]
fn a_fence_covers_the_flushes_of_its_own_thread_only() {
    let seen = outcomes_of_two(
        Mode::Adr,
        &[X, Y],
        [
            |r| {
                r.store_u64(X, 1)?;
                r.flush(X, 8)?;
                r.store_u64(Z, 1)
            },
            |r| {
                if r.load_u64(Z)? == 1 {
                    r.drain()?;
                    r.store_u64(Y, 1)?;
                }
                Ok(())
            },
        ],
    );
    exactly(&seen, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}

#[test]
fn what_was_fenced_before_the_message_is_there_after_it() {
    let seen = outcomes_of_two(
        Mode::Adr,
        &[X, Y],
        [
            |r| {
                r.store_u64(X, 1)?;
                r.flush(X, 8)?;
                r.drain()?;
                r.store_u64(Z, 1)
            },
            |r| {
                if r.load_u64(Z)? == 1 {
                    r.store_u64(Y, 1)?;
                }
                Ok(())
            },
        ],
    );
    exactly(&seen, &[[0, 0], [1, 0], [1, 1]]);
}

#[test]
fn a_line_keeps_the_order_in_which_threads_stored() {
    let in_any_order =
        outcomes_of_two(Mode::Adr, &[X, X2], [|r| r.store_u64(X, 1), |r| r.store_u64(X2, 1)]);
    exactly(&in_any_order, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
    let one_after_the_other = outcomes_of_two(
        Mode::Adr,
        &[X, X2],
        [
            |r| r.store_u64(X, 1),
            |r| {
                if r.load_u64(X)? == 1 {
                    r.store_u64(X2, 1)?;
                }
                Ok(())
            },
        ],
    );
    exactly(&one_after_the_other, &[[0, 0], [1, 0], [1, 1]]);
}

/// On x86 a locked instruction orders write-backs as a fence does (SDM vol. 2, CLWB). The
/// contract of the trait does not promise it, and the simulator keeps to the contract.
#[test]
fn an_exchange_is_no_fence_here() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.flush(X, 8)?;
        let old = r.compare_exchange_u64(Y, 0, 1)?;
        assert_eq!(old, Ok(0));
        Ok(())
    });
    exactly(&seen, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}

fn one() -> [u8; 8] {
    1_u64.to_ne_bytes()
}

#[test]
fn non_temporal_stores_have_no_order_even_in_a_line() {
    let seen = outcomes(Mode::Adr, &[X, X2], |r| {
        r.write_flush(X, &one())?;
        r.write_flush(X2, &one())
    });
    exactly(&seen, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
    let with_cached = outcomes(Mode::Adr, &[X, X2], |r| {
        r.write_flush(X, &one())?;
        r.store_u64(X2, 1)
    });
    exactly(&with_cached, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}

#[test]
fn a_fence_completes_the_non_temporal_stores_of_its_thread() {
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.write_flush(X, &one())?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [1, 1]]);
    let unfenced = outcomes(Mode::Adr, &[X, Y], |r| {
        r.write_flush(X, &one())?;
        r.store_u64(Y, 1)
    });
    exactly(&unfenced, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
    let other_thread = outcomes_of_two(
        Mode::Adr,
        &[X, Y],
        [
            |r| {
                r.write_flush(X, &one())?;
                r.store_u64(Z, 1)
            },
            |r| {
                if r.load_u64(Z)? == 1 {
                    // Neither its fence nor its write-back is the other thread's fence.
                    r.flush(X, 8)?;
                    r.drain()?;
                    r.store_u64(Y, 1)?;
                }
                Ok(())
            },
        ],
    );
    exactly(&other_thread, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}

/// A backend may write a short range through the cache, and the line with it, or past the cache
/// and nothing with it. The older store may be left behind.
#[test]
fn write_flush_flushes_no_older_store_of_the_line() {
    let seen = outcomes(Mode::Adr, &[X, X2, Y], |r| {
        r.store_u64(X, 1)?;
        r.write_flush(X2, &one())?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    let every = [0, 1].map(|x| [[x, 0, 0], [x, 1, 0], [x, 1, 1]]).concat();
    exactly(&seen, &every);
}

#[test]
fn the_younger_of_two_stores_to_a_word_wins_whichever_way_they_went() {
    // Past the cache, then through it: whatever arrives, a fence leaves no older value.
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.write_flush(X, &one())?;
        r.store_u64(X, 2)?;
        r.flush(X, 8)?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [2, 0], [2, 1]]);
    let seen = outcomes(Mode::Adr, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.write_flush(X, &2_u64.to_ne_bytes())?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [2, 0], [2, 1]]);
}

#[test]
fn a_younger_durable_store_hides_an_older_one_that_is_still_on_its_way() {
    // The other thread's fence makes its own store durable; the older one to the same word, not
    // fenced, must not come back over it.
    let seen = outcomes_of_two(
        Mode::Adr,
        &[X, Y],
        [
            |r| r.write_flush(X, &one()),
            |r| {
                if r.load_u64(X)? == 1 {
                    r.write_flush(X, &2_u64.to_ne_bytes())?;
                    r.drain()?;
                    r.store_u64(Y, 1)?;
                }
                Ok(())
            },
        ],
    );
    exactly(&seen, &[[0, 0], [1, 0], [2, 0], [2, 1]]);
}

#[test]
fn a_long_write_is_torn_between_words_and_a_word_is_not() {
    let seen = outcomes(Mode::Adr, &[X, X2, Y], |r| {
        let mut bytes = [0xFF; 16];
        bytes[8..].fill(0xEE);
        r.write(X, &bytes)?;
        r.store_u64(Y, u64::MAX)
    });
    let (x, x2, y) = (u64::MAX, 0xEEEE_EEEE_EEEE_EEEE, u64::MAX);
    exactly(&seen, &[[0, 0, 0], [x, 0, 0], [x, x2, 0], [0, 0, y], [x, 0, y], [x, x2, y]]);
}

#[test]
fn bytes_that_are_no_aligned_word_are_torn_one_by_one() {
    let seen = outcomes(Mode::Adr, &[X, X2], |r| r.write(6, &[1, 2, 3]));
    let (a, b, c) = (1_u64 << 48, 2_u64 << 56, 3);
    let x = |v: u64| u64::from_ne_bytes(v.to_le_bytes());
    exactly(&seen, &[[0, 0], [x(a), 0], [x(a | b), 0], [x(a | b), x(c)]]);
}

#[test]
fn caches_that_survive_keep_program_order_between_lines() {
    let seen = outcomes(Mode::Eadr, &[X, Y, X2], |r| {
        r.store_u64(X, 1)?;
        r.store_u64(Y, 1)?;
        r.write(X2, &[1; 8])
    });
    exactly(&seen, &[[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, u64::from_ne_bytes([1; 8])]]);
}

#[test]
fn with_caches_that_survive_a_write_is_torn_in_order() {
    let seen = outcomes(Mode::Eadr, &[56, 64], |r| r.write(56, &[0xFF; 16]));
    exactly(&seen, &[[0, 0], [u64::MAX, 0], [u64::MAX, u64::MAX]]);
}

#[test]
fn with_caches_that_survive_what_bypasses_them_still_needs_the_fence() {
    let seen = outcomes(Mode::Eadr, &[X, Y], |r| {
        r.write_flush(X, &one())?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
    let fenced = outcomes(Mode::Eadr, &[X, Y], |r| {
        r.write_flush(X, &one())?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&fenced, &[[0, 0], [1, 0], [1, 1]]);
    // A cached store over one that is on its way is durable at once, and stays on top.
    let over = outcomes(Mode::Eadr, &[X, Y], |r| {
        r.write_flush(X, &one())?;
        r.store_u64(X, 2)?;
        r.store_u64(Y, 1)
    });
    exactly(&over, &[[0, 0], [1, 0], [2, 0], [2, 1]]);
}

#[test]
fn torn_words_keep_no_order_in_a_line_but_whole_words() {
    let seen = outcomes(Mode::TornWords, &[X, X2], |r| {
        r.store_u64(X, u64::MAX)?;
        r.store_u64(X2, u64::MAX)
    });
    let all = u64::MAX;
    exactly(&seen, &[[0, 0], [all, 0], [0, all], [all, all]]);
    let fenced = outcomes(Mode::TornWords, &[X, X2, Y], |r| {
        r.write(X, &[0xFF; 16])?;
        r.flush(X, 16)?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&fenced, &[[0, 0, 0], [all, 0, 0], [0, all, 0], [all, all, 0], [all, all, 1]]);
    let bytes = outcomes(Mode::TornWords, &[X], |r| r.write(X, &[1, 1]));
    let x = |bytes: [u8; 2]| [u64::from_ne_bytes([bytes[0], bytes[1], 0, 0, 0, 0, 0, 0])];
    exactly(&bytes, &[x([0, 0]), x([1, 0]), x([0, 1]), x([1, 1])]);
}

#[test]
fn the_page_cache_writes_sectors_whole_and_in_any_order() {
    // One write, one sector: all of it or none. X and Y lie in different sectors.
    let seen = outcomes(Mode::PageCache, &[X, X2, Y], |r| {
        r.write(X, &[0xFF; 16])?;
        r.store_u64(Y, 1)
    });
    let all = u64::MAX;
    exactly(&seen, &[[0, 0, 0], [all, all, 0], [0, 0, 1], [all, all, 1]]);
    // A second write to the sector is its next version, in another cache line as well.
    let versions = outcomes(Mode::PageCache, &[X, 256], |r| {
        r.store_u64(X, 1)?;
        r.store_u64(256, 1)?;
        r.store_u64(X, 2)
    });
    exactly(&versions, &[[0, 0], [1, 0], [1, 1], [2, 1]]);
}

#[test]
fn the_page_cache_keeps_what_was_flushed_and_drained() {
    let seen = outcomes(Mode::PageCache, &[X, Y], |r| {
        r.write_flush(X, &one())?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&seen, &[[0, 0], [1, 0], [1, 1]]);
    // fdatasync(2) would take it along; the contract promises it for flushed ranges only.
    let unflushed = outcomes(Mode::PageCache, &[X, Y], |r| {
        r.store_u64(X, 1)?;
        r.drain()?;
        r.store_u64(Y, 1)
    });
    exactly(&unflushed, &[[0, 0], [1, 0], [0, 1], [1, 1]]);
}
