//! What each structure says of unsafe shutdowns, and that its mark says open before anything else is
//! changed.

use super::*;
use crate::checkpoint::{self, WorkingSet};
use crate::format::PAGE;
use crate::format::header::{Found, Header, Kind};
use crate::log::LogOptions;
use crate::pages::{FIRST, PageOptions};
use crate::sim::{Explorer, Mode, SimRegion};
use crate::state::StateOptions;

const LEN: u64 = FIRST + (64 << 10);
const KINDS: [Kind; 4] = [Kind::Log, Kind::State, Kind::Checkpoint, Kind::Pages];

/// How a structure is opened and left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Closed,
    Killed,
}

#[derive(Clone, Copy, Debug, Default)]
struct How {
    read_only: bool,
    refuse: bool,
}

#[allow(clippy::unnecessary_wraps)] // as a region gives it
fn medium(identity: u8, count: u64) -> Option<Shutdowns> {
    Some(Shutdowns { identity: [identity; 16], count })
}

fn make(region: &SimRegion, kind: Kind) -> Result<()> {
    match kind {
        Kind::Log => LogOptions::new().segment_bytes(12288).seed(1).format(region)?.abandon(),
        Kind::State => StateOptions::new().seed(1).format(region, &1_u64)?.abandon(),
        Kind::Checkpoint => {
            let options = checkpoint::Options::new(4096).seed(1);
            WorkingSet::format(region, &options)?.abandon();
        }
        Kind::Pages => PageOptions::new().seed(1).format(region)?.abandon(),
    }
    Ok(())
}

/// Opens it, changes something, and leaves it.
fn open(region: &SimRegion, kind: Kind, how: How, left: Left) -> Result<UnsafeShutdown> {
    let How { read_only, refuse } = how;
    let found = match kind {
        Kind::Log => {
            let options = LogOptions::new().seed(1).read_only(read_only);
            let log = options.refuse_unsafe_shutdown(refuse).open_region(region)?;
            if !read_only {
                log.append(b"a record")?;
            }
            let found = log.recovery().unsafe_shutdown;
            if left == Left::Closed {
                log.close()?;
            } else {
                log.abandon();
            }
            found
        }
        Kind::State => {
            let options = StateOptions::<u64>::new().read_only(read_only);
            let state = options.refuse_unsafe_shutdown(refuse).open_region(region)?;
            if !read_only {
                state.update(|value| *value += 1)?;
            }
            let found = state.recovery().unsafe_shutdown;
            if left == Left::Closed {
                state.close()?;
            } else {
                state.abandon();
            }
            found
        }
        Kind::Checkpoint => {
            let options = checkpoint::Options::new(4096).seed(1).read_only(read_only);
            let mut set = WorkingSet::open(region, &options.refuse_unsafe_shutdown(refuse))?;
            if !read_only {
                set.write(0, b"changed")?;
                set.checkpoint()?;
            }
            let found = set.recovery().unsafe_shutdown;
            if left == Left::Closed {
                set.close()?;
            } else {
                set.abandon();
            }
            found
        }
        Kind::Pages => {
            let options = PageOptions::new().read_only(read_only);
            let pages = options.refuse_unsafe_shutdown(refuse).open_region(region)?;
            if !read_only {
                pages.write_atomic(4096, &[1; 4096])?;
            }
            let found = pages.recovery().unsafe_shutdown;
            if left == Left::Closed {
                pages.close()?;
            } else {
                pages.abandon();
            }
            found
        }
    };
    Ok(found)
}

/// The same, a reboot later.
fn later(region: &SimRegion, shutdowns: Option<Shutdowns>) -> SimRegion {
    region.settle();
    let later = region.crash(0);
    later.set_shutdowns(shutdowns);
    later
}

fn bytes(region: &SimRegion) -> Vec<u8> {
    let mut bytes = vec![0; region.len() as usize];
    region.read(0, &mut bytes).unwrap();
    bytes
}

/// A file that was made on this medium, and left.
fn made(kind: Kind, shutdowns: Option<Shutdowns>, left: Left) -> SimRegion {
    let region = SimRegion::new(Mode::Adr, LEN, LEN);
    region.set_shutdowns(shutdowns);
    make(&region, kind).unwrap();
    open(&region, kind, How::default(), left).unwrap();
    region
}

const READ: How = How { read_only: true, refuse: false };
const REFUSE: How = How { read_only: false, refuse: true };

#[test]
fn a_count_is_compared_with_that_of_the_last_opening() {
    use Left::{Closed, Killed};
    use UnsafeShutdown::{Moved, None as Same, Raised, Unknown};
    let (raised_open, raised_closed) = (Raised { was_open: true }, Raised { was_open: false });
    let max = u64::MAX;
    for kind in KINDS {
        for (before, left, now, expected) in [
            (medium(1, 7), Closed, medium(1, 7), Same),
            (medium(1, 7), Killed, medium(1, 7), Same),
            (medium(1, 0), Killed, medium(1, 0), Same),
            (medium(1, max), Killed, medium(1, max), Same),
            (medium(1, 7), Closed, medium(1, 8), raised_closed),
            (medium(1, 7), Killed, medium(1, 8), raised_open),
            (medium(1, 0), Killed, medium(1, max), raised_open),
            (medium(1, 7), Closed, medium(1, 6), Unknown),
            (medium(1, 7), Killed, medium(1, 6), Unknown),
            (medium(1, 7), Killed, medium(2, 7), Moved),
            (medium(1, 7), Closed, medium(2, 9), Moved),
            (medium(1, 7), Killed, None, Unknown),
            (None, Killed, medium(1, 7), Unknown),
            (None, Closed, None, Unknown),
            (medium(0, 0), Closed, None, Unknown),
            (None, Closed, medium(0, 0), Unknown),
        ] {
            let case = format!("{kind:?}, {before:?}, {left:?}, {now:?}");
            let region = later(&made(kind, before, left), now);
            let whole = bytes(&region);
            let read = open(&region, kind, READ, Killed).unwrap();
            assert_eq!(read, expected, "{case}");
            match open(&region, kind, REFUSE, Killed) {
                Ok(found) => assert_eq!((found, expected), (Same, Same), "{case}"),
                Err(error) => {
                    let refused = matches!(error.kind(), ErrorKind::UnsafeShutdown(found) if *found == expected);
                    assert!(refused && expected != Same, "{case}: {error}");
                    assert!(bytes(&region) == whole, "{case}: it was changed");
                }
            }
            let found = open(&region, kind, How::default(), Killed).unwrap();
            assert_eq!(found, expected, "{case}");
            // It was told; from now on, the present count counts.
            let again = open(&region, kind, How::default(), Killed).unwrap();
            assert_eq!(again, if now.is_some() { Same } else { Unknown }, "{case}");
        }
    }
}

#[test]
fn a_new_file_has_its_mediums_count() {
    for kind in KINDS {
        let region = SimRegion::new(Mode::Adr, LEN, LEN);
        region.set_shutdowns(medium(3, 5));
        make(&region, kind).unwrap();
        let found = open(&region, kind, READ, Left::Killed).unwrap();
        assert_eq!(found, UnsafeShutdown::None, "{kind:?}");
        let raised = later(&region, medium(3, 6));
        let found = open(&raised, kind, READ, Left::Killed).unwrap();
        assert_eq!(found, UnsafeShutdown::Raised { was_open: true }, "{kind:?}");
    }
}

/// One slot of the mark, all of it gone or any bit of it another.
#[test]
fn one_damaged_slot_of_the_mark_costs_nothing() {
    let header = |region: &SimRegion| match Header::find(region, Kind::State, 1..=2).unwrap() {
        Found::Header { header, .. } => header,
        Found::Blank => panic!("there is a state"),
    };
    let region = later(&made(Kind::State, medium(1, 7), Left::Killed), medium(1, 9));
    let header = header(&region);
    let raised = UnsafeShutdown::Raised { was_open: true };
    for at in [AT, AT + PAGE] {
        for bit in 0..(MARK_END - AT) * 8 {
            let mut byte = [0];
            region.read(at + bit / 8, &mut byte).unwrap();
            region.write(at + bit / 8, &[byte[0] ^ 1 << (bit % 8)]).unwrap();
            assert_eq!(look(&region, &header).unwrap().unsafe_shutdown, raised, "{at}, bit {bit}");
            region.write(at + bit / 8, &byte).unwrap();
        }
        region.fill_flush(at, MARK_END - AT, 0).unwrap();
        assert_eq!(look(&region, &header).unwrap().unsafe_shutdown, raised, "{at}, cleared");
        // The next opening makes it whole.
        let found = open(&region, Kind::State, How::default(), Left::Killed).unwrap();
        assert_eq!(found, raised);
        region.set_shutdowns(medium(1, 9 + at));
        assert_eq!(look(&region, &header).unwrap().unsafe_shutdown, raised, "{at}, whole again");
    }
}

/// A crash at every step of an opening, of a change and of a close, with a shutdown that was unsafe:
/// where anything of the file is another than it was, the mark has said that it was open. Never does
/// it say that nothing happened.
#[test]
fn the_mark_says_open_before_anything_else_is_changed() {
    for kind in KINDS {
        for (mode, left) in
            [(Mode::Adr, Left::Killed), (Mode::Eadr, Left::Closed), (Mode::PageCache, Left::Closed)]
        {
            let before = bytes(&later(&made(kind, medium(1, 7), left), None));
            let (setup, was) = (before.clone(), rest(&before));
            let report = Explorer::new(mode, LEN)
                .images(40)
                .samples(8)
                .depth(1)
                .setup(move |region| {
                    region.set_shutdowns(medium(1, 7));
                    region.write(0, &setup)
                })
                .run(
                    move |region, _| open(region, kind, How::default(), Left::Closed).map(drop),
                    move |region, _| {
                        region.set_shutdowns(medium(1, 8));
                        let changed = rest(&bytes(region)) != was;
                        let found = open(region, kind, READ, Left::Killed);
                        let found = found.map_err(|error| error.to_string())?;
                        let sound = match found {
                            UnsafeShutdown::Raised { was_open } => {
                                was_open || !changed || is_closed(region, kind)
                            }
                            _ => false,
                        };
                        if sound { Ok(()) } else { Err(format!("{found:?}, changed: {changed}")) }
                    },
                );
            assert!(report.expect_clean().crash_points > 10, "{kind:?}, {mode:?}");
        }
    }
}

/// All bytes but those of the mark.
fn rest(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in [AT, AT + PAGE] {
        bytes[at as usize..][..(MARK_END - AT) as usize].fill(0);
    }
    bytes
}

/// Whether all of what closing writes before the mark is there.
fn is_closed(region: &SimRegion, kind: Kind) -> bool {
    match kind {
        Kind::Log => {
            let log = LogOptions::new().read_only(true).open_region(region).unwrap();
            let (closed, last) = (log.recovery().was_closed, log.last().get());
            log.abandon();
            closed && last == 2
        }
        Kind::State => {
            let [one, other] = crate::state::inspect(region).unwrap().slots;
            one == other
        }
        Kind::Checkpoint => {
            let options = checkpoint::Options::new(0).read_only(true);
            let set = WorkingSet::open(region, &options).unwrap();
            let seen = set.recovery();
            // The slot of the mark may be torn.
            (seen.clean || seen.header_damaged) && seen.checkpoint == 2
        }
        Kind::Pages => {
            let pages = PageOptions::new().read_only(true).open_region(region).unwrap();
            let mut page = [0; 4096];
            pages.read(4096, &mut page).unwrap();
            pages.recovery().completed == 0 && page == [1; 4096]
        }
    }
}

/// An opening that sees that the count has risen, and is cut before it is complete: its caller was not
/// told, so the next one is.
#[test]
fn a_count_that_has_risen_is_told_by_the_first_opening_that_is_complete() {
    for kind in KINDS {
        let image = bytes(&later(&made(kind, medium(1, 7), Left::Killed), None));
        let begin = move |region: &SimRegion| {
            region.set_shutdowns(medium(1, 8));
            match kind {
                Kind::Log => LogOptions::new().seed(1).open_region(region)?.abandon(),
                Kind::State => StateOptions::<u64>::new().open_region(region)?.abandon(),
                Kind::Checkpoint => {
                    let options = checkpoint::Options::new(4096).seed(1);
                    WorkingSet::open(region, &options)?.abandon();
                }
                Kind::Pages => PageOptions::new().open_region(region)?.abandon(),
            }
            Ok(())
        };
        let whole = SimRegion::new(Mode::Adr, LEN, LEN);
        whole.write(0, &image).unwrap();
        begin(&whole).unwrap();
        assert_eq!(open(&whole, kind, READ, Left::Killed).unwrap(), UnsafeShutdown::None);
        let complete = rest(&bytes(&whole));
        let report = Explorer::new(Mode::Adr, LEN)
            .images(40)
            .samples(8)
            .depth(0)
            .setup(move |region| region.write(0, &image))
            .run(
                move |region, _| begin(region),
                move |region, _| {
                    region.set_shutdowns(medium(1, 8));
                    let found = open(region, kind, READ, Left::Killed);
                    match found.map_err(|error| error.to_string())? {
                        UnsafeShutdown::Raised { was_open: true } => Ok(()),
                        UnsafeShutdown::None if rest(&bytes(region)) == complete => Ok(()),
                        found => Err(format!("{found:?}")),
                    }
                },
            );
        assert!(report.expect_clean().crash_points > 3, "{kind:?}");
    }
}
