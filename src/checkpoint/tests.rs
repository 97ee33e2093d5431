//! What only the inside can make: files of other kinds and versions, and tables that lie.

use super::settings::VERSION;
use super::{Options, WorkingSet};
use crate::format::header::{Header, Kind};
use crate::{AnyRegion, ErrorKind, Region};

fn region() -> AnyRegion {
    crate::Options::new().len(1 << 20).in_memory().unwrap()
}

fn refused(header: Header) -> ErrorKind {
    let region = region();
    header.complete(&region).unwrap();
    let mut before = vec![0; 1 << 20];
    region.read(0, &mut before).unwrap();
    let result = WorkingSet::open_or_format(&region, &Options::new(4096)).map(WorkingSet::abandon);
    let mut after = vec![0; 1 << 20];
    region.read(0, &mut after).unwrap();
    assert!(before == after, "it was changed");
    result.unwrap_err().kind().clone()
}

fn header(kind: Kind, version: u32, numbers: [u64; 4]) -> Header {
    Header { kind, version, salt: 9, numbers }
}

#[test]
fn other_kinds_and_newer_versions_are_refused_and_left_alone() {
    let numbers = [4096, 0, 1 << 20, 0];
    for kind in [Kind::Log, Kind::State] {
        assert!(matches!(refused(header(kind, VERSION, numbers)), ErrorKind::WrongFormat(_)));
    }
    let newer = refused(header(Kind::Checkpoint, VERSION + 1, numbers));
    assert!(
        matches!(newer, ErrorKind::NewerFormat { found, newest: VERSION } if found == VERSION + 1)
    );
}

#[test]
fn headers_that_make_no_sense_are_no_panic() {
    let sound = [4096, 0, 1 << 20, 0];
    for (place, number) in [
        (0, 0),
        (0, u64::MAX),
        (0, u64::MAX / 1024),
        (1, 256),
        (1, u64::from(u32::MAX)),
        (1, 77 << 32),
    ] {
        let mut numbers = sound;
        numbers[place] = number;
        let kind = refused(header(Kind::Checkpoint, VERSION, numbers));
        assert!(matches!(kind, ErrorKind::Damaged(_)), "{numbers:x?}: {kind:?}");
    }
    let long = refused(header(Kind::Checkpoint, VERSION, [4096, 0, u64::MAX, 0]));
    assert!(matches!(long, ErrorKind::TooShort { .. }));
    // A set that is larger than the memory there is, without a root.
    for bytes in [1 << 47, u64::MAX / 1025] {
        let large = refused(header(Kind::Checkpoint, VERSION, [bytes, 0, 1 << 20, 0]));
        assert!(matches!(large, ErrorKind::Damaged(_)), "{large:?}");
    }
}
