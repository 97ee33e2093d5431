//! Panics in the caller's code: nothing of what it had begun is committed, and nothing is lost for it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::hooked::{At, What};
use super::*;

/// An iterator that panics after its second record, or a record that does.
fn panicking(in_record: bool) -> impl Iterator<Item = Trap> {
    [Trap(false), Trap(false), Trap(true)].into_iter().inspect(move |trap| {
        assert!(in_record || !trap.0, "the caller's iterator");
    })
}

struct Trap(bool);

impl AsRef<[u8]> for Trap {
    fn as_ref(&self) -> &[u8] {
        assert!(!self.0, "the caller's record");
        b"never committed"
    }
}

fn caught<T>(work: impl FnOnce() -> T) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    assert!(result.is_err(), "it panics");
}

#[test]
fn of_an_iterator_that_panics_nothing_is_committed_and_nothing_leaks() {
    for mode in [Mode::Adr, Mode::PageCache] {
        let len = layout::SEGMENTS + 2 * SEGMENT;
        let region = SimRegion::new(mode, len, len);
        let log = options().format(region.clone()).unwrap();
        let mut next = 1;
        for round in 0..30 {
            caught(|| log.append_many(panicking(round % 2 == 0)));
            assert_eq!(log.append(&payload(next)).unwrap(), Lsn::new(next));
            next += 1;
            let mut writer = log.writer();
            writer.stage(&payload(next)).unwrap();
            caught(|| writer.append_many(panicking(round % 2 == 0)));
            // What was staged before is staged.
            assert_eq!(writer.staged(), 1);
            let lsns = writer.append_many([payload(next + 1)]).unwrap();
            assert_eq!(lsns, Lsn::new(next)..Lsn::new(next + 2));
            next += 2;
            log.release_up_to(Lsn::new(next - 2)).unwrap();
        }
        // A writer that the panic takes with it takes what it has staged, too.
        caught(|| {
            let mut writer = log.writer();
            writer.append(&[1; 1000]).unwrap();
            writer.stage(b"never committed").unwrap();
            panic!("between stage and commit");
        });
        assert_eq!(log.last(), Lsn::new(next));
        log.release_up_to(log.last()).unwrap();
        assert_eq!(log.space().used_bytes + log.space().free_bytes, 2 * (SEGMENT - layout::BLOCKS));
        let most = vec![1; log.commit_bytes_max() as usize];
        assert_eq!(log.append(&most).unwrap(), Lsn::new(next + 1));
        drop(log);
        let log = options().open_region(region).unwrap();
        assert_eq!(all(&log), [(next + 1, most)]);
    }
}

#[test]
fn what_an_iterator_appends_itself_comes_first() {
    let log = options().format(region(2)).unwrap();
    let inner = (0..3_u8).map(|number| {
        log.append(&[number]).unwrap();
        caught(|| log.append_many(panicking(true)));
        [10 + number]
    });
    assert_eq!(log.append_many(inner).unwrap(), Lsn::new(4)..Lsn::new(7));
    let payloads: Vec<_> = all(&log).into_iter().flat_map(|(_, payload)| payload).collect();
    assert_eq!(payloads, [0, 1, 2, 10, 11, 12]);
}

/// A block may be there or not: nobody writes behind it.
#[test]
fn a_writer_whose_commit_panicked_writes_no_more() {
    for mode in [Mode::Adr, Mode::PageCache] {
        for at in [At::Write, At::Drain] {
            let len = layout::SEGMENTS + 2 * SEGMENT;
            let region = Hooked::new(SimRegion::new(mode, len, len));
            let log = options().format(&region).unwrap();
            let mut writer = log.writer();
            writer.append(&payload(1)).unwrap();
            region.plan(at, What::Panics);
            caught(|| writer.append(&payload(2)));
            for _ in 0..2 {
                let error = writer.append(b"behind it").unwrap_err();
                let ErrorKind::Damaged(why) = error.kind() else { panic!("{error}") };
                assert!(why.contains("did not return"), "{mode:?}, {at:?}: {error}");
            }
            drop(writer);
            log.abandon();
            let log = options().open_region(&region).unwrap();
            let found = all(&log);
            assert!(found == expected(1..2) || found == expected(1..3), "{mode:?}, {at:?}");
            assert_eq!(log.append(b"next").unwrap(), Lsn::new(found.len() as u64 + 1));
        }
    }
}
