//! Tickets where each writer has a segment of its own: those with lower Lsns come first, be they other
//! threads'.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::hooked::{At, What};
use super::*;
use crate::sim::{Body, Explorer};

/// Longer than a submission takes that waits for nothing.
const SHORT: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(60);

/// A commit with a lower Lsn stops before it is durable: what it comes to, the submission comes to.
fn beside(what: impl FnOnce(&Hooked)) -> (Log<Hooked>, Result<Range<Lsn>>) {
    let log = options().format(Hooked::new(region(4))).unwrap();
    let mut writer = log.writer();
    // Each has its segment.
    assert!(log.submit([payload(1)]).unwrap().is_durable());
    writer.append(&payload(2)).unwrap();
    let (told, waits) = channel();
    log.core.region.plan(At::Drain, What::Stops);
    let outcome = std::thread::scope(|scope| {
        let lower = scope.spawn(move || {
            let _ = catch_unwind(AssertUnwindSafe(|| writer.append(&payload(3))));
        });
        log.core.region.meet_once();
        let higher = scope.spawn(|| {
            let ticket = log.submit([payload(4)]).unwrap();
            let is_durable = ticket.is_durable();
            let outcome = ticket.wait();
            assert_eq!(is_durable, outcome.is_ok());
            told.send(outcome).unwrap();
        });
        // It has its Lsn, or will never have it.
        let began = std::time::Instant::now();
        while log.core.watermark.next() < 5 && began.elapsed() < LIMIT {
            std::thread::yield_now();
        }
        let early = waits.recv_timeout(SHORT);
        what(&log.core.region);
        log.core.region.meet_once();
        assert_eq!(early.unwrap_err(), RecvTimeoutError::Timeout);
        let outcome = waits.recv_timeout(LIMIT).expect("it waits for nothing any more");
        lower.join().unwrap();
        higher.join().unwrap();
        outcome
    });
    (log, outcome)
}

#[test]
fn a_submission_comes_after_those_with_lower_lsns() {
    let (log, outcome) = beside(|_| ());
    assert_eq!(outcome.unwrap(), Lsn::new(4)..Lsn::new(5));
    assert_eq!((log.durable_up_to(), all(&log)), (Lsn::new(4), expected(1..5)));
    log.close().unwrap();
}

#[test]
fn a_commit_that_fails_is_final_for_tickets_above_it() {
    for what in [What::Fails, What::Panics] {
        let (log, outcome) = beside(|region| region.plan(At::Stopped, what));
        assert!(outcome.unwrap_err().is_failed(), "{what:?}");
        assert!(log.submit([b"later"]).unwrap_err().is_failed(), "{what:?}");
        assert!(log.drive().unwrap_err().is_failed(), "{what:?}");
        // Nothing was written for it.
        assert_eq!((log.core.watermark.next(), log.durable_up_to()), (5, Lsn::new(2)), "{what:?}");
        // A commit says of itself alone that it is durable.
        assert_eq!(log.append(b"mine").unwrap(), Lsn::new(5), "{what:?}");
        log.abandon();
    }
}

/// Where one sync serves all, of a region whose next sync succeeds.
#[test]
fn a_blocking_commit_that_fails_is_final_for_tickets_above_it_where_one_sync_serves_all() {
    for at in [At::Write, At::Drain] {
        for what in [What::Fails, What::Panics] {
            let len = layout::SEGMENTS + 4 * SEGMENT;
            let log = options()
                .format(Hooked::new(SimRegion::new(Mode::PageCache, len, 2 * len)))
                .unwrap();
            log.append(&payload(1)).unwrap();
            let before = log.submit([payload(2)]).unwrap();
            let (done, told) = channel();
            log.core.region.plan(at, what);
            let failed = catch_unwind(AssertUnwindSafe(|| log.append(&payload(3))));
            assert!(!matches!(failed, Ok(Ok(_))), "{at:?} {what:?}");
            assert!(log.submit([payload(4)]).is_err(), "{at:?} {what:?}");
            before.on_durable(move |result| done.send(result).unwrap());
            assert!(log.drive().unwrap_err().is_failed(), "{at:?} {what:?}");
            // What is before it has its own fate.
            assert_eq!(told.try_recv().unwrap().unwrap(), Lsn::new(2)..Lsn::new(3));
            assert_eq!(log.durable_up_to(), Lsn::new(2), "{at:?} {what:?}");
            log.abandon();
        }
    }
}

/// What is before a failed commit is durable, and its ticket says so: the bound is at the failed one, not
/// where its writer looked before it drew.
#[test]
fn a_failed_commit_keeps_nobody_back_who_is_before_it() {
    let log = options().format(Hooked::new(region(4))).unwrap();
    let core = &log.core;
    let before = log.submit([payload(1)]).unwrap();
    log.core.region.plan(At::Write, What::Fails);
    log.append(&payload(2)).unwrap_err();
    assert!(before.is_durable() && before.wait().is_ok());
    assert_eq!((core.watermark.get(), core.watermark.next()), (2, 3));
    log.abandon();
}

/// The same where it looked for its bound, and another one drew before it did.
#[test]
fn a_commit_that_looked_early_and_failed_keeps_nobody_back_who_is_before_it() {
    let log = options().format(region(4)).unwrap();
    let core = &log.core;
    let bound = core.watermark.register();
    bound.hold(core.watermark.next());
    log.append(&payload(1)).unwrap();
    let lsn = core.watermark.draw_behind(1);
    assert_eq!((lsn, core.watermark.get()), (2, 1));
    drop(crate::log::writer::Unfinished { core, bound: &bound, lsn });
    assert_eq!((core.watermark.get(), all(&log)), (2, expected(1..2)));
    assert!(log.submit([b"later"]).is_err());
    log.abandon();
}

/// Threads that commit, and threads that submit, on memory: a crash at any moment leaves what a ticket
/// said is durable, and all before it.
#[test]
fn a_ticket_vouches_for_all_before_it() {
    const LEN: u64 = layout::SEGMENTS + 4 * SEGMENT;
    type SharedLog = Arc<Mutex<Option<Arc<Log<SimRegion>>>>>;
    for mode in [Mode::Adr, Mode::Eadr] {
        let shared: SharedLog = Arc::default();
        let setup = {
            let shared = Arc::clone(&shared);
            move |region: &SimRegion| {
                let log = Arc::new(options().format(region.clone())?);
                // Each has a segment before.
                let mut writers: Vec<_> = (0..3).map(|_| log.writer()).collect();
                for writer in &mut writers {
                    writer.append(b"first")?;
                }
                drop(writers);
                if let Some(before) = shared.lock().unwrap().replace(log).and_then(Arc::into_inner)
                {
                    before.abandon();
                }
                Ok(())
            }
        };
        let bodies: Vec<Body> = (0..3)
            .map(|thread| {
                let shared = Arc::clone(&shared);
                let body: Body = Box::new(move |_, notes| {
                    let log = shared.lock().unwrap().clone().expect("the setup has opened it");
                    for _ in 0..2 {
                        if thread == 0 {
                            let end = log.submit([b"submitted"])?.wait()?.end;
                            notes.ack(end.get() - 1);
                        } else {
                            log.append(b"committed")?;
                        }
                    }
                    Ok(())
                });
                body
            })
            .collect();
        let report = Explorer::new(mode, LEN)
            .setup(setup)
            .depth(1)
            .images(30)
            .samples(4)
            .schedules(16)
            .random_schedules(16)
            .run_threads(&bodies, |region, history| {
                let log = options().open_region(region.clone()).map_err(|e| e.to_string())?;
                let found: Vec<u64> = all(&log).iter().map(|(lsn, _)| *lsn).collect();
                let acked = history.acked().iter().max().map_or(0, |lsn| *lsn);
                let right = (1..=acked).all(|lsn| found.contains(&lsn));
                right.then_some(()).ok_or_else(|| format!("{acked} and all before: {found:?}"))
            });
        assert!(report.expect_clean().schedules > 20, "{mode:?}");
    }
}

#[test]
fn the_lowest_failure_counts() {
    let core = &options().format(region(4)).unwrap().core;
    let cause = || Arc::new(Error::new(Operation::Append, ErrorKind::Damaged("a test")));
    core.deferred.fail(7, cause());
    core.deferred.fail(5, cause());
    core.deferred.fail(6, cause());
    let is_ok = |lsn_end| core.deferred.outcome(lsn_end).unwrap().is_ok();
    assert!(is_ok(5) && !is_ok(6));
}

fn one_sync_for_all() -> Log<Hooked> {
    let len = layout::SEGMENTS + 4 * SEGMENT;
    options().format(Hooked::new(SimRegion::new(Mode::PageCache, len, 2 * len))).unwrap()
}

/// What was lost holds the watermark, whatever fails after it.
#[test]
fn a_second_failure_does_not_take_the_watermark_past_the_first() {
    let log = one_sync_for_all();
    log.append(&payload(1)).unwrap();
    let lost = [2, 3].map(|lsn| log.submit([payload(lsn)]).unwrap());
    log.core.region.plan(At::Drain, What::Fails);
    assert!(log.drive().unwrap_err().is_failed());
    assert_eq!(log.durable_up_to(), Lsn::FIRST);
    // A blocking commit above it, which fails as well.
    log.core.region.plan(At::Write, What::Fails);
    log.append(&payload(4)).unwrap_err();
    assert_eq!((log.durable_up_to(), log.last()), (Lsn::FIRST, Lsn::FIRST));
    assert!(log.release_up_to(Lsn::new(2)).is_err());
    assert_eq!(all(&log), expected(1..2));
    assert!(lost.into_iter().all(|ticket| !ticket.is_durable() && ticket.wait().is_err()));
    log.abandon();
}

/// A commit whose own sync fails after another one has made it durable has not failed: a ticket above it
/// was told that everything below is durable.
#[test]
fn what_was_told_stays_told_where_a_lower_commit_fails_later() {
    let log = one_sync_for_all();
    log.append(&payload(1)).unwrap();
    log.core.region.plan(At::Drain, What::Stops);
    std::thread::scope(|scope| {
        let lower = scope.spawn(|| log.append(&payload(2)));
        let ticket = std::sync::OnceLock::new();
        log.core.region.meet_twice(|| {
            let higher = log.submit([payload(3)]).unwrap();
            log.drive().unwrap();
            assert!(higher.is_durable());
            ticket.set(higher).unwrap();
            log.core.region.plan(At::Stopped, What::Fails);
        });
        assert_eq!(lower.join().unwrap().unwrap(), Lsn::new(2));
        let higher = ticket.into_inner().unwrap();
        assert!(higher.is_durable() && higher.wait().is_ok());
    });
    assert_eq!((log.durable_up_to(), all(&log)), (Lsn::new(3), expected(1..4)));
    log.release_up_to(Lsn::new(3)).unwrap();
    log.close().unwrap();
}

/// A truncation takes the watermark no further than what failed below it.
#[test]
fn the_watermark_stays_below_what_failed_after_a_truncation() {
    let watermark = &mut options().format(region(4)).unwrap().core.watermark;
    let [failed, other] = [watermark.register(), watermark.register()];
    let lsn = watermark.draw(&failed, 1);
    failed.hold(lsn);
    watermark.draw(&other, 5);
    other.done();
    watermark.rewind(lsn + 3);
    assert_eq!((watermark.highest(), watermark.next()), (lsn, lsn + 3));
}
