//! Submissions: who is told what, when, and what a crash leaves of them.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::hooked::{At, What};
use super::*;
use crate::sim::{Body, Explorer, SplitMix64};

const LIMIT: Duration = Duration::from_secs(60);

/// A region whose unit of durability is a page: what is written takes a sync.
fn pages(segments: u64) -> SimRegion {
    let len = layout::SEGMENTS + segments * SEGMENT;
    SimRegion::new(Mode::PageCache, len, 2 * len)
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Woken {
    fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<R: Region>(ticket: &mut Ticket<'_, R>, woken: &Arc<Woken>) -> Poll<Result<Range<Lsn>>> {
    let waker = Waker::from(Arc::clone(woken));
    Pin::new(ticket).poll(&mut Context::from_waker(&waker))
}

fn submit<R: Region>(log: &Log<R>, number: u64) -> Ticket<'_, R> {
    let ticket = log.submit([payload(number)]).unwrap();
    assert_eq!(ticket.lsns(), Lsn::new(number)..Lsn::new(number + 1));
    ticket
}

#[test]
fn submissions_are_seen_when_they_are_durable_and_one_sync_serves_all() {
    let region = pages(4);
    let log = options().format(region.clone()).unwrap();
    let tickets: Vec<_> = (1..=5).map(|number| submit(&log, number)).collect();
    assert!(all(&log).is_empty() && log.durable_up_to() == Lsn::ZERO);
    assert!(tickets.iter().all(|ticket| !ticket.is_durable()));
    // Others see them at once.
    assert_eq!(LogReader::in_region(region.clone(), Lsn::ZERO).unwrap().count(), 5);
    for seed in 0..40 {
        let found = all(&options().open_region(region.crash(seed)).unwrap());
        assert_eq!(found, expected(1..found.len() as u64 + 1), "each, after those before it");
    }
    let mut tickets = tickets.into_iter();
    let third = tickets.nth(2).unwrap();
    // By another thread than the one that wrote them.
    let waited = std::thread::scope(|scope| scope.spawn(|| third.wait()).join().unwrap());
    assert_eq!(waited.unwrap(), Lsn::new(3)..Lsn::new(4));
    // Those behind it were written, too, when the sync began.
    assert!(tickets.all(|ticket| ticket.is_durable()));
    assert_eq!((all(&log), log.durable_up_to()), (expected(1..6), Lsn::new(5)));
    for seed in 0..40 {
        assert_eq!(all(&options().open_region(region.crash(seed)).unwrap()), expected(1..6));
    }
    assert_eq!(log.drive().unwrap(), Lsn::new(5));
    let none = log.submit([[0; 0]; 0]).unwrap();
    assert!(none.lsns().is_empty() && none.is_durable());
}

#[test]
fn on_persistent_memory_a_submission_is_durable_when_it_returns() {
    let region = region(4);
    let log = options().format(region.clone()).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    for number in 1..=3 {
        let ticket = submit(&log, number);
        assert!(ticket.is_durable());
        let found = all(&options().open_region(region.crash(number)).unwrap());
        assert_eq!(found, expected(1..number + 1));
        let told = Arc::clone(&told);
        ticket.on_durable(move |result| told.lock().unwrap().push(result.unwrap()));
    }
    assert_eq!(told.lock().unwrap().len(), 3);
    assert_eq!(submit(&log, 4).wait().unwrap(), Lsn::new(4)..Lsn::new(5));
}

/// A ticket that came before, one of the failed sync in each way of waiting, and what comes after it.
#[test]
fn a_sync_that_fails_reaches_everybody_it_concerns_and_nobody_else() {
    let log = options().format(Hooked::new(pages(4))).unwrap();
    let before = submit(&log, 1);
    log.drive().unwrap();
    let [waits, mut polls, called, untold] = [2, 3, 4, 5].map(|number| submit(&log, number));
    let (done, told) = channel();
    called.on_durable(move |result| done.send(result).unwrap());
    log.core.region.plan(At::Drain, What::Fails);
    let error = waits.wait().unwrap_err();
    assert!(error.is_failed(), "{error}");
    let woken = Arc::new(Woken::default());
    assert!(matches!(poll(&mut polls, &woken), Poll::Ready(Err(error)) if error.is_failed()));
    assert!(told.try_recv().unwrap().is_err_and(|error| error.is_failed()));
    assert!(!untold.is_durable() && untold.wait().unwrap_err().is_failed());
    assert!(before.is_durable() && before.wait().is_ok());
    assert!(log.submit([b"later"]).unwrap_err().is_failed());
    assert!(log.drive().unwrap_err().is_failed());
    assert_eq!((log.durable_up_to(), all(&log)), (Lsn::FIRST, expected(1..2)));
    drop(polls);
    assert!(log.close().unwrap_err().is_failed());
}

#[test]
fn a_write_that_fails_fails_what_follows_and_not_what_was_before() {
    let region = pages(4);
    let log = options().format(Hooked::new(region.clone())).unwrap();
    let before = submit(&log, 1);
    log.core.region.plan(At::Write, What::Fails);
    assert!(log.submit([payload(2)]).is_err());
    assert!(log.submit([payload(2)]).is_err());
    assert!(log.append(b"later").is_err());
    assert_eq!(before.wait().unwrap(), Lsn::FIRST..Lsn::new(2));
    assert_eq!((log.durable_up_to(), all(&log)), (Lsn::FIRST, expected(1..2)));
    assert!(log.drive().is_err());
    log.abandon();
    assert_eq!(all(&options().open_region(region).unwrap()), expected(1..2));
}

/// There may be a hole where a commit was to be.
#[test]
fn nothing_is_submitted_behind_a_commit_that_failed() {
    let log = options().format(Hooked::new(pages(4))).unwrap();
    drop(submit(&log, 1));
    log.core.region.plan(At::Write, What::Fails);
    assert!(log.append(&payload(2)).is_err());
    assert!(log.submit([payload(3)]).is_err());
    assert!(log.drive().unwrap_err().is_failed());
    assert_eq!((log.durable_up_to(), all(&log)), (Lsn::FIRST, expected(1..2)));
    log.abandon();
}

#[test]
fn a_panic_in_a_sync_is_an_error_for_those_who_wait() {
    let log = options().format(Hooked::new(pages(4))).unwrap();
    let [leads, mut other] = [1, 2].map(|number| submit(&log, number));
    log.core.region.plan(At::Drain, What::Panics);
    assert!(catch_unwind(AssertUnwindSafe(|| leads.wait())).is_err());
    assert!(!other.is_durable());
    assert!(matches!(poll(&mut other, &Arc::default()), Poll::Ready(Err(_))));
    assert!(log.submit([b"later"]).is_err());
    drop(other);
    log.abandon();
}

/// While a sync is under way, the next submissions gather: one poll leaves a waker, and another one in
/// its place; a ticket is dropped; and the end of the sync wakes who is to lead the next one.
#[test]
fn those_who_poll_are_woken_to_lead_the_next_sync() {
    let log = options().format(Hooked::new(pages(4))).unwrap();
    let first = submit(&log, 1);
    log.core.region.plan(At::Drain, What::Stops);
    let wakers: [Arc<Woken>; 4] = Default::default();
    let [second, mut third, mut fourth] = std::thread::scope(|scope| {
        let leads = scope.spawn(|| first.wait());
        let mut waiting = None;
        log.core.region.meet_twice(|| {
            let [mut second, mut third, mut fourth] = [2, 3, 4].map(|number| submit(&log, number));
            assert!(poll(&mut second, &wakers[0]).is_pending());
            for (ticket, woken) in [(&mut second, 1), (&mut third, 2), (&mut fourth, 3)] {
                assert!(poll(ticket, &wakers[woken]).is_pending());
            }
            waiting = Some([second, third, fourth]);
        });
        assert_eq!(leads.join().unwrap().unwrap(), Lsn::FIRST..Lsn::new(2));
        waiting.unwrap()
    });
    // Not the waker that was replaced. What they wait for is not durable.
    assert_eq!([0, 1, 2, 3].map(|woken| wakers[woken].count()), [0, 1, 1, 1]);
    assert!(!second.is_durable() && log.durable_up_to() == Lsn::FIRST);
    // The one that was woken first is given up: it hinders nobody.
    drop(second);
    let done = poll(&mut third, &wakers[2]);
    assert!(matches!(done, Poll::Ready(Ok(lsns)) if lsns == (Lsn::new(3)..Lsn::new(4))));
    assert!(matches!(poll(&mut fourth, &wakers[3]), Poll::Ready(Ok(_))));
    assert_eq!(all(&log), expected(1..5));
    drop((third, fourth));
    log.abandon();
}

/// A ticket that is dropped while its waker waits: the waker is gone with it, and the records are not.
#[test]
fn dropping_a_ticket_cancels_nothing() {
    let region = pages(4);
    let log = options().format(Hooked::new(region.clone())).unwrap();
    let (first, woken) = (submit(&log, 1), Arc::new(Woken::default()));
    log.core.region.plan(At::Drain, What::Stops);
    std::thread::scope(|scope| {
        let leads = scope.spawn(|| first.wait());
        log.core.region.meet_twice(|| {
            let mut second = submit(&log, 2);
            assert!(poll(&mut second, &woken).is_pending());
            drop(second);
            drop(submit(&log, 3));
        });
        leads.join().unwrap().unwrap();
    });
    assert_eq!((woken.count(), Arc::strong_count(&woken)), (0, 1));
    assert_eq!(log.drive().unwrap(), Lsn::new(3));
    assert_eq!(all(&options().open_region(region.crash(1)).unwrap()), expected(1..4));
    log.abandon();
}

/// One callback panics, one submits again, one is told last: each once, in the order of Lsns.
#[test]
fn callbacks_may_panic_and_may_use_the_log() {
    let log = Arc::new(options().format(Hooked::new(pages(4))).unwrap());
    let (done, told) = channel();
    submit(&log, 1).on_durable(|_| std::panic::resume_unwind(Box::new("the caller's code")));
    let (again, sent) = (Arc::clone(&log), done.clone());
    submit(&log, 2).on_durable(move |result| {
        sent.send(result.unwrap()).unwrap();
        let ticket = again.submit_shared([payload(4)]).unwrap();
        assert!(!ticket.is_durable());
        ticket.on_durable(move |result| sent.send(result.unwrap()).unwrap());
    });
    submit(&log, 3).on_durable(move |result| done.send(result.unwrap()).unwrap());
    assert!(told.try_recv().is_err());
    assert_eq!(log.drive().unwrap(), Lsn::new(3));
    assert_eq!(log.drive().unwrap(), Lsn::new(4));
    let lsns: Vec<u64> = told.try_iter().map(|lsns| lsns.start.get()).collect();
    assert_eq!(lsns, [2, 3, 4]);
    assert_eq!(all(&log), expected(1..5));
}

/// A blocking commit makes durable what was submitted before it, and its record can be read at once.
#[test]
fn a_commit_completes_what_was_submitted_before_it() {
    let log = options().format(pages(4)).unwrap();
    let (done, told) = channel();
    submit(&log, 1).on_durable(move |result| done.send(result.unwrap()).unwrap());
    let second = submit(&log, 2);
    assert_eq!(log.append(&payload(3)).unwrap(), Lsn::new(3));
    assert!(second.is_durable());
    assert_eq!(told.try_recv().unwrap(), Lsn::FIRST..Lsn::new(2));
    assert_eq!(log.read(Lsn::new(3)).unwrap(), payload(3));
    log.release_up_to(Lsn::new(3)).unwrap();
}

#[test]
fn a_truncation_and_the_close_come_after_what_was_submitted() {
    let region = pages(4);
    let mut log = options().format(region.clone()).unwrap();
    (1..=4).for_each(|number| drop(submit(&log, number)));
    log.truncate_after(Lsn::new(2)).unwrap();
    let (done, told) = channel();
    submit(&log, 3).on_durable(move |result| done.send(result.unwrap()).unwrap());
    log.close().unwrap();
    assert_eq!(told.try_recv().unwrap(), Lsn::new(3)..Lsn::new(4));
    let log = options().open_region(region).unwrap();
    assert!(log.recovery().was_closed);
    assert_eq!(all(&log), expected(1..4));
}

/// Submissions, commits and drives by chance, over many segments: the order holds, and a crash leaves what
/// was durable, and of the rest the beginning.
#[test]
fn whatever_the_order_of_calls_a_crash_leaves_a_beginning() {
    for seed in 0..8 {
        let mut random = SplitMix64::new(seed);
        let region = pages(5);
        let log = options().format(region.clone()).unwrap();
        let (mut tickets, mut next, mut payloads) = (Vec::new(), 1, Vec::new());
        for _ in 0..60 {
            let len = if random.below(4) == 0 { 1500 } else { random.below(90) };
            let bytes = vec![next as u8; len as usize];
            match random.below(8) {
                0..=4 => {
                    let Ok(ticket) = log.submit([&bytes]) else { break };
                    payloads.push((next, bytes));
                    next += 1;
                    tickets.push(ticket);
                }
                5 => {
                    let Ok(lsn) = log.append(&bytes) else { break };
                    assert_eq!((lsn, log.last()), (Lsn::new(next), Lsn::new(next)));
                    payloads.push((next, bytes));
                    next += 1;
                }
                6 if !tickets.is_empty() => {
                    let at = random.below(tickets.len() as u64) as usize;
                    assert!(tickets.remove(at).wait().is_ok());
                }
                _ => {
                    log.drive().unwrap();
                }
            }
            let durable = log.durable_up_to().get();
            for ticket in &tickets {
                assert_eq!(ticket.is_durable(), ticket.lsns().end.get() <= durable + 1);
            }
            let found = all(&options().open_region(region.crash(random.below(1 << 40))).unwrap());
            assert!(found.len() as u64 >= durable, "{durable} were durable: {found:?}");
            assert_eq!(found, payloads[..found.len()]);
        }
        drop(tickets);
        log.abandon();
    }
}

/// Every crash of submissions, drives and commits among them.
#[test]
fn every_crash_of_submissions_leaves_a_beginning() {
    const LEN: u64 = layout::SEGMENTS + 3 * SEGMENT;
    for mode in Mode::ALL {
        let report = Explorer::new(mode, LEN)
            .images(60)
            .samples(20)
            .depth(1)
            .setup(|region| options().format(region.clone()).map(Log::abandon))
            .run(
                |region, notes| {
                    let log = options().open_region(region.clone())?;
                    for round in 0..3 {
                        let first = log.submit([payload(4 * round + 1)])?;
                        let second = log.submit([payload(4 * round + 2)])?;
                        first.wait()?;
                        notes.ack(4 * round + 1);
                        if second.is_durable() {
                            notes.ack(4 * round + 2);
                        }
                        drop(log.submit([payload(4 * round + 3)])?);
                        notes.ack(log.append(&payload(4 * round + 4))?.get());
                    }
                    log.abandon();
                    Ok(())
                },
                |region, history| {
                    let log = options().open_region(region.clone());
                    let found = all(&log.map_err(|error| error.to_string())?);
                    let acked = history.acked().last().map_or(0, |last| *last);
                    let right =
                        found.len() as u64 >= acked && found == expected(1..found.len() as u64 + 1);
                    right.then_some(()).ok_or_else(|| format!("{acked} acknowledged: {found:?}"))
                },
            );
        assert!(report.expect_clean().crash_points > 10, "{mode:?}");
    }
}

/// Simulated threads that submit, and wait, drive or leave it: what one leads makes durable what another
/// one wrote, in every order that was tried, and a crash at any moment leaves what was acknowledged.
#[test]
fn what_one_thread_leads_is_durable_for_all() {
    const LEN: u64 = layout::SEGMENTS + 3 * SEGMENT;
    type SharedLog = Arc<Mutex<Option<Arc<Log<SimRegion>>>>>;
    let shared: SharedLog = Arc::default();
    let setup = {
        let shared = Arc::clone(&shared);
        move |region: &SimRegion| {
            let log = Arc::new(options().format(region.clone())?);
            let before = shared.lock().unwrap().replace(log);
            if let Some(before) = before.and_then(Arc::into_inner) {
                before.abandon();
            }
            Ok(())
        }
    };
    let bodies: Vec<Body> = (0..3_u64)
        .map(|thread| {
            let shared = Arc::clone(&shared);
            let body: Body = Box::new(move |_, notes| {
                let log = shared.lock().unwrap().clone().expect("the setup has opened it");
                for record in 0..2 {
                    let mark = thread * 10 + record + 1;
                    notes.begin(mark);
                    let ticket = log.submit([mark.to_le_bytes()])?;
                    match thread {
                        0 => drop(ticket.wait()?.start),
                        1 => drop(log.drive()?),
                        // Somebody else's sync, or none.
                        _ if ticket.is_durable() => {}
                        _ => continue,
                    }
                    notes.ack(mark);
                }
                Ok(())
            });
            body
        })
        .collect();
    let report = Explorer::new(Mode::PageCache, LEN)
        .setup(setup)
        .depth(1)
        .images(60)
        .samples(4)
        .schedules(40)
        .random_schedules(40)
        .run_threads(&bodies, |region, history| {
            let log = options().open_region(region.clone()).map_err(|error| error.to_string())?;
            let found: Vec<u64> = all(&log)
                .iter()
                .map(|(_, payload)| u64::from_le_bytes(payload[..].try_into().unwrap()))
                .collect();
            match history.acked().iter().find(|mark| !found.contains(mark)) {
                Some(mark) => Err(format!("{mark} was acknowledged, there are {found:?}")),
                None => Ok(()),
            }
        });
    assert!(report.expect_clean().schedules > 30);
}

/// Threads that submit, wait, poll and are called back, on a file, with and without blocking commits
/// among them: each is told once.
#[test]
fn threads_on_a_file_are_told_once_each() {
    const THREADS: u64 = 8;
    const EACH: u64 = 40;
    for blocks in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let set = LogOptions::new().region(Options::new().len(4 << 20)).segment_bytes(256 << 10);
        let log = Arc::new(set.create(&path).unwrap());
        let told = Arc::new(AtomicU32::new(0));
        let (done, ended) = channel();
        for thread in 0..THREADS {
            let (log, told, done) = (Arc::clone(&log), Arc::clone(&told), done.clone());
            std::thread::spawn(move || {
                for number in 0..EACH {
                    let ticket = log.submit_shared([[thread as u8; 100]; 2]).unwrap();
                    // A commit that has not returned yet holds readers back, be it durable.
                    let is_seen =
                        move |log: &Log<_>, end: Lsn| blocks || end <= log.durable_up_to().next();
                    let end = ticket.lsns().end;
                    match (thread + number) % 4 {
                        0 => assert!(ticket.wait().is_ok_and(|lsns| is_seen(&log, lsns.end))),
                        1 => assert!(is_seen(&log, polled(ticket).end)),
                        2 => {
                            let (log, told) = (Arc::clone(&log), Arc::clone(&told));
                            ticket.on_durable(move |result| {
                                assert!(is_seen(&log, result.unwrap().end));
                                told.fetch_add(1, Ordering::SeqCst);
                            });
                        }
                        _ if blocks => {
                            log.append(&[thread as u8; 100]).unwrap();
                            assert!(ticket.is_durable());
                        }
                        _ => assert!(end <= log.drive().unwrap().next() && ticket.is_durable()),
                    }
                }
                done.send(()).unwrap();
            });
        }
        for _ in 0..THREADS {
            ended.recv_timeout(LIMIT).expect("somebody was not told");
        }
        log.drive().unwrap();
        assert_eq!(u64::from(told.load(Ordering::SeqCst)), THREADS * EACH / 4);
        let appended = if blocks { THREADS * EACH / 4 } else { 0 };
        let records = log.reader(Lsn::ZERO).unwrap().count() as u64;
        assert_eq!(records, THREADS * EACH * 2 + appended);
    }
}

/// Waits as a task does.
fn polled<R: Region>(mut ticket: Ticket<'_, R>) -> Range<Lsn> {
    let woken = Arc::new(Woken::default());
    loop {
        match poll(&mut ticket, &woken) {
            Poll::Ready(lsns) => return lsns.unwrap(),
            Poll::Pending => {
                while woken.0.swap(0, Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
            }
        }
    }
}

/// A thread that leads a sync, and goes on when its submission has long been durable and released: the
/// segment may hold other records by then.
#[test]
fn a_leader_that_is_late_says_nothing_of_a_segment_that_began_again() {
    let region = pages(3);
    let log = options().format(Hooked::new(region.clone())).unwrap();
    let most = log.commit_bytes_max() as usize;
    let first = log.submit([vec![1; most * 3 / 4]]).unwrap();
    log.core.region.plan(At::Drain, What::Stops);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| first.wait());
        log.core.region.meet_twice(|| {
            // Each fills a segment; then the first one begins again, with a short record.
            for _ in 0..2 {
                log.append(&vec![2; most]).unwrap();
                log.release_up_to(log.last()).unwrap();
            }
            assert_eq!(log.append(&payload(4)).unwrap(), Lsn::new(4));
        });
        assert_eq!(waits.join().unwrap().unwrap(), Lsn::FIRST..Lsn::new(2));
    });
    assert_eq!(submit(&log, 5).wait().unwrap(), Lsn::new(5)..Lsn::new(6));
    assert_eq!(log.append(&payload(6)).unwrap(), Lsn::new(6));
    for seed in 0..40 {
        assert_eq!(all(&options().open_region(region.crash(seed)).unwrap()), expected(4..7));
    }
    log.close().unwrap();
    assert_eq!(all(&options().open_region(region).unwrap()), expected(4..7));
}
