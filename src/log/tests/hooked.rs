//! A region of which one call stops, fails or panics; and what a writer leaves behind where beginning a
//! segment does not come to its end.

use std::sync::{Barrier, Mutex};

use super::*;

/// A call of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Write,
    Drain,
    /// The one that has stopped, when it goes on.
    Stopped,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// It waits twice for the barrier, before it does anything.
    Stops,
    /// It changes nothing, and is an error.
    Fails,
    /// It changes nothing, and panics.
    Panics,
}

#[derive(Debug)]
pub(super) struct Hooked {
    region: SimRegion,
    drains: bool,
    planned: Mutex<Option<(At, What)>>,
    barrier: Barrier,
    /// Its length, if it does not become longer with the region below.
    fixed: Option<u64>,
}

impl Hooked {
    pub(super) fn new(region: SimRegion) -> Self {
        let (planned, barrier) = (Mutex::new(None), Barrier::new(2));
        Self { region, drains: true, planned, barrier, fixed: None }
    }

    /// A region as it was opened: as long as it is now.
    pub(super) fn fixed(region: SimRegion) -> Self {
        Self { fixed: Some(region.len()), ..Self::new(region) }
    }

    /// A region whose process is killed before it drains.
    pub(super) fn undrained(region: SimRegion) -> Self {
        Self { drains: false, ..Self::new(region) }
    }

    /// Plans what becomes of the next such call.
    pub(super) fn plan(&self, at: At, what: What) {
        *self.planned.lock().unwrap() = Some((at, what));
    }

    /// Meets a call that stops: where it does, and where it goes on.
    pub(super) fn meet_once(&self) {
        self.barrier.wait();
    }

    /// Does something while a call stops.
    pub(super) fn meet_twice(&self, meanwhile: impl FnOnce()) {
        self.barrier.wait();
        meanwhile();
        self.barrier.wait();
    }

    fn meet(&self, at: At) -> Result<()> {
        let planned = self.planned.lock().unwrap().take_if(|planned| planned.0 == at);
        match planned {
            None => Ok(()),
            Some((_, What::Stops)) => {
                self.barrier.wait();
                self.barrier.wait();
                self.meet(At::Stopped)
            }
            // Any error will do.
            Some((_, What::Fails)) => self.region.load_u64(u64::MAX).map(drop),
            Some((_, What::Panics)) => panic!("the region's code"),
        }
    }
}

impl Region for Hooked {
    fn len(&self) -> u64 {
        self.fixed.unwrap_or_else(|| self.region.len())
    }
    fn durability(&self) -> crate::Durability {
        self.region.durability()
    }
    fn granularity(&self) -> crate::Granularity {
        self.region.granularity()
    }
    fn backend(&self) -> crate::Backend {
        self.region.backend()
    }
    fn is_emulated(&self) -> bool {
        true
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.region.read(offset, buf)
    }
    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.meet(At::Write)?;
        self.region.write(offset, data)
    }
    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.meet(At::Write)?;
        self.region.write_flush(offset, data)
    }
    fn fill_flush(&self, offset: u64, len: u64, byte: u8) -> Result<()> {
        self.region.fill_flush(offset, len, byte)
    }
    fn flush(&self, offset: u64, len: u64) -> Result<()> {
        self.region.flush(offset, len)
    }
    fn drain(&self) -> Result<()> {
        self.meet(At::Drain)?;
        if self.drains { self.region.drain() } else { Ok(()) }
    }
    fn sync_all(&self) -> Result<()> {
        if self.drains { self.region.sync_all() } else { Ok(()) }
    }
    fn deep_flush(&self, offset: u64, len: u64) -> Result<()> {
        self.region.flush(offset, len)
    }
    fn load_u64(&self, offset: u64) -> Result<u64> {
        self.region.load_u64(offset)
    }
    fn store_u64(&self, offset: u64, value: u64) -> Result<()> {
        self.region.store_u64(offset, value)
    }
    fn compare_exchange_u64(
        &self,
        offset: u64,
        current: u64,
        new: u64,
    ) -> Result<std::result::Result<u64, u64>> {
        self.region.compare_exchange_u64(offset, current, new)
    }
    #[allow(unsafe_code)]
    unsafe fn slice(&self, _: u64, _: u64) -> Result<&[u8]> {
        Ok(&[])
    }
    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn slice_mut(&self, _: u64, _: u64) -> Result<&mut [u8]> {
        Ok(&mut [])
    }
    fn grow(&self, new_len: u64) -> Result<()> {
        self.region.grow(new_len)
    }
    fn close(&self) -> Result<()> {
        self.region.close()
    }
}

/// Its next life writes the other copy of the header: a crash that tore both would leave none.
#[test]
fn a_full_segment_is_handed_on_when_its_header_is_durable() {
    let region = Hooked::new(region(2));
    let log = options().format(&region).unwrap();
    let (mut one, mut other) = (log.writer(), log.writer());
    one.append(&vec![1; log.commit_bytes_max() as usize]).unwrap();
    region.plan(At::Drain, What::Stops);
    let early = std::thread::scope(|scope| {
        let appending = scope.spawn(|| one.append(b"in the next segment"));
        region.barrier.wait();
        // Nothing of the full segment is needed from here on.
        let released = log.release_up_to(Lsn::FIRST);
        let early = other.append(b"early");
        region.barrier.wait();
        released.unwrap();
        assert!(appending.join().unwrap().is_ok());
        early
    });
    let early = early.unwrap_err();
    assert!(matches!(early.kind(), ErrorKind::TooManyWriters { segments: 2 }), "{early}");
    assert_eq!(other.append(b"in time").unwrap(), Lsn::new(3));
}

#[test]
fn a_segment_that_could_not_be_begun_is_given_back() {
    for at in [At::Write, At::Drain] {
        let region = Hooked::new(region(2));
        let log = options().format(&region).unwrap();
        let (mut one, mut other) = (log.writer(), log.writer());
        one.append(&payload(1)).unwrap();
        region.plan(at, What::Fails);
        let refused = other.append(&payload(2)).unwrap_err();
        assert!(!refused.is_failed(), "{at:?}: {refused}");
        assert_eq!(other.append(&payload(2)).unwrap(), Lsn::new(2), "{at:?}");
        drop((one, other));
        log.abandon();
        assert_eq!(all(&options().open_region(&region).unwrap()), expected(1..3), "{at:?}");
    }
}

/// One that somebody has left, with records and with room: the records stay, the room is used.
#[test]
fn a_segment_that_could_not_be_gone_on_with_is_given_back() {
    for at in [At::Write, At::Drain] {
        let region = Hooked::new(region(2));
        let log = options().format(&region).unwrap();
        let half = vec![5; log.commit_bytes_max() as usize / 2];
        let (mut one, mut other) = (log.writer(), log.writer());
        one.append(&half).unwrap();
        other.append(&payload(2)).unwrap();
        drop(other);
        region.plan(at, What::Fails);
        let larger = [&half[..], &[5; 100]].concat();
        one.append(&larger).unwrap_err();
        assert_eq!(one.append(&larger).unwrap(), Lsn::new(3), "{at:?}");
        drop(one);
        log.abandon();
        let records = [(1, half), (2, payload(2)), (3, larger)];
        assert_eq!(all(&options().open_region(&region).unwrap()), records, "{at:?}");
    }
}
