//! Interleavings of threads.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use daxmap::Region;
use daxmap_sim::{Body, Explorer, History, Mode, SimRegion};

use crate::Verdict;

/// Two threads that add one, with a load and a store.
fn increments() -> Vec<Body> {
    let body = || -> Body {
        Box::new(|region, notes| {
            let value = region.load_u64(0)?;
            region.store_u64(0, value + 1)?;
            region.persist(0, 8)?;
            notes.ack(1);
            Ok(())
        })
    };
    vec![body(), body()]
}

fn both_counted(region: &SimRegion, history: &History) -> Verdict {
    let (value, done) = (region.load_u64(0).unwrap(), history.acked().len() as u64);
    if value < done { Err(format!("{done} increments, {value} counted")) } else { Ok(()) }
}

#[test]
fn interleavings_are_explored_up_to_the_bound() {
    let explore = |preemptions| {
        Explorer::new(Mode::Adr, 1024)
            .preemptions(preemptions)
            .run_threads(&increments(), both_counted)
    };
    // One after the other, either first.
    let none = explore(0).expect_clean();
    assert_eq!(none.schedules, 2);
    let failure = explore(1).expect_failure();
    assert!(!failure.schedule.is_empty());
    assert_eq!(failure.to_string(), explore(1).expect_failure().to_string());
    let text = failure.to_string();
    assert!(text.contains("thread 0: store_u64") && text.contains("thread 1: store_u64"), "{text}");
}

#[test]
fn every_interleaving_is_run_once() {
    // Two threads of two operations: 4 over 2 orders, each seen.
    let orders = Arc::new(Mutex::new(BTreeSet::new()));
    let order = Arc::new(Mutex::new(Vec::new()));
    let body = |thread: u64, order: Arc<Mutex<Vec<u64>>>| -> Body {
        Box::new(move |region, notes| {
            for _ in 0..2 {
                region.load_u64(0)?;
                order.lock().unwrap().push(thread);
            }
            notes.ack(thread);
            Ok(())
        })
    };
    let bodies = [body(0, Arc::clone(&order)), body(1, Arc::clone(&order))];
    let into = Arc::clone(&orders);
    let report =
        Explorer::new(Mode::Adr, 1024).preemptions(10).run_threads(&bodies, move |_, history| {
            if history.acked().len() == 2 {
                let done = std::mem::take(&mut *order.lock().unwrap());
                into.lock().unwrap().insert(done);
            }
            Ok(())
        });
    assert_eq!(report.expect_clean().schedules, 6);
    let expected =
        [[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0], [1, 1, 0, 0]];
    assert_eq!(*orders.lock().unwrap(), BTreeSet::from(expected.map(|order| order.to_vec())));
}

#[test]
fn random_interleavings_find_it_too_and_repeat_themselves() {
    let explore = |seed| {
        let explorer = Explorer::new(Mode::Adr, 1024).preemptions(0).random_schedules(200);
        explorer.seed(seed).run_threads(&increments(), both_counted).expect_failure().schedule
    };
    assert_eq!(explore(5), explore(5));
    let schedules: BTreeSet<_> = (0..20).map(explore).collect();
    assert!(schedules.len() > 1, "the seed makes no difference");
}

#[test]
fn a_thread_that_spins_lets_the_others_go_on() {
    let report = Explorer::new(Mode::Adr, 1024).preemptions(1).schedules(300).run_threads(
        &[
            Box::new(|region, _| region.store_u64(0, 1)),
            Box::new(|region, _| {
                while region.load_u64(0)? == 0 {}
                Ok(())
            }),
        ],
        |_, _| Ok(()),
    );
    let _ = report.expect_clean();
}

#[test]
fn threads_that_wait_outside_the_region_are_reported() {
    let gate = Arc::new(Mutex::new(()));
    let body = |gate: Arc<Mutex<()>>| -> Body {
        Box::new(move |region, _| {
            let _held = gate.lock().unwrap();
            region.store_u64(0, 1)?;
            region.store_u64(8, 1)
        })
    };
    let bodies = vec![body(Arc::clone(&gate)), body(gate)];
    let report = Explorer::new(Mode::Adr, 1024).run_threads(&bodies, |_, _| Ok(()));
    let message = report.expect_failure().message;
    assert!(message.contains("waits outside the region"), "{message}");
}
