//! Which interleavings there are, and in which order threads take turns.

use std::sync::{Arc, Mutex};

use crate::schedule::{Plan, Scheduler};
use crate::thread::{become_thread, this_thread};
use crate::{Body, Explorer, Mode, Report};
use daxmap::Region;

/// So many threads that load so often, and the threads in the order of their loads, for each
/// interleaving.
fn orders(threads: u64, loads: usize, explorer: &Explorer) -> (Report, Vec<Vec<u64>>) {
    let order = Arc::new(Mutex::new(Vec::new()));
    let body = |thread| -> Body {
        let order = Arc::clone(&order);
        Box::new(move |region, _| {
            for _ in 0..loads {
                region.load_u64(0)?;
                order.lock().unwrap().push(thread);
            }
            Ok(())
        })
    };
    let bodies: Vec<Body> = (0..threads).map(body).collect();
    let report = explorer.run_threads(&bodies, |_, _| Ok(()));
    let each = threads as usize * loads;
    let orders = order.lock().unwrap().chunks(each).map(<[u64]>::to_vec).collect();
    (report.expect_clean(), orders)
}

#[test]
fn there_are_as_many_interleavings_as_the_bound_allows() {
    // Two threads of three loads. With one preemption, whoever begins is interrupted before its
    // second or third load, or not at all; with two, so is the other one besides.
    for (preemptions, expected) in [(0, 2), (1, 6), (2, 14), (9, 20)] {
        let explorer = Explorer::new(Mode::Adr, 64).preemptions(preemptions);
        let (report, mut found) = orders(2, 3, &explorer);
        assert_eq!((report.schedules, report.runs), (expected, expected), "{preemptions}");
        found.sort();
        found.dedup();
        assert_eq!(found.len() as u64, expected, "{preemptions}");
    }
    // Three threads, one after the other.
    assert_eq!(orders(3, 2, &Explorer::new(Mode::Adr, 64).preemptions(0)).0.schedules, 6);
    assert_eq!(orders(2, 3, &Explorer::new(Mode::Adr, 64).schedules(5)).0.schedules, 5);
}

#[test]
fn a_thread_is_interrupted_for_spinning_only_by_what_it_did_in_a_row() {
    let explorer = Explorer::new(Mode::Adr, 64).preemptions(0);
    for order in orders(3, 150, &explorer).1 {
        let switches = order.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(switches, 2, "450 loads, none had more than 150");
    }
}

#[test]
fn what_an_interleaving_has_in_common_with_the_one_before_is_not_crashed_again() {
    let store = |offset| -> Body {
        Box::new(move |region, _| {
            region.store_u64(offset, 1)?;
            region.store_u64(offset, 2)
        })
    };
    let bodies = [store(0), store(64)];
    let explorer = Explorer::new(Mode::Adr, 128).preemptions(1);
    let report = explorer.run_threads(&bodies, |_, _| Ok(())).expect_clean();
    // AABB, ABBA, BBAA, BAAB: at the start and after each store, but the first two of the second
    // and of the last are as they were.
    assert_eq!((report.schedules, report.crash_points), (4, 5 + 3 + 5 + 3));
}

#[test]
fn threads_that_never_end_are_given_up() {
    let spin = || -> Body {
        Box::new(|region, _| {
            for _ in 0..700_000 {
                region.load_u64(0)?;
            }
            Ok(())
        })
    };
    let report = Explorer::new(Mode::Adr, 64).run_threads(&[spin(), spin()], |_, _| Ok(()));
    let message = report.expect_failure().message;
    assert!(message.contains("do not come to an end"), "{message}");
}

/// A thread that could go on is interrupted once in eight operations: a quarter of the time
/// somebody is drawn, and half of these times it is the other one.
#[test]
fn random_interleavings_let_a_thread_run_for_a_while() {
    const LOADS: usize = 100;
    let explorer = Explorer::new(Mode::Adr, 64).preemptions(0).random_schedules(20);
    let (report, orders) = orders(2, LOADS, &explorer);
    assert_eq!(report.schedules, 22);
    // While neither is done.
    let (mut loads, mut switches) = (0, 0);
    for order in &orders[2..] {
        let counts = |at: usize, thread| order[..at].iter().filter(|of| **of == thread).count();
        let both = (1..order.len()).take_while(|&at| counts(at, 0).max(counts(at, 1)) < LOADS);
        for at in both {
            loads += 1;
            switches += usize::from(order[at] != order[at - 1]);
        }
    }
    let percent = switches * 100 / loads;
    assert!((9..16).contains(&percent), "{switches} of {loads}");
}

#[test]
fn a_turn_is_with_one_thread() {
    let scheduler = Scheduler::new(2, Plan::new(0));
    // The first was let start; a thread whose turn it is not is not made to wait for it here.
    scheduler.turn(1);
    scheduler.turn(0);
    assert_eq!(scheduler.picked(), [0]);
    scheduler.finish(0);
    scheduler.wait(1);
    scheduler.finish(1);
    assert_eq!(scheduler.result().1, None);
}

#[test]
fn a_simulated_thread_becomes_what_it_was() {
    let before = this_thread();
    assert!(before >= 1 << 10, "no simulated thread has the number of another");
    {
        let _simulated = become_thread(5);
        assert_eq!(this_thread(), 6);
        {
            let _other = become_thread(0);
            assert_eq!(this_thread(), 1);
        }
        assert_eq!(this_thread(), 6);
    }
    assert_eq!(this_thread(), before);
}
