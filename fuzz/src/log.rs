//! Logs to start from, with what is in them.

use daxmap::log::{Log, LogOptions, Lsn};
use daxmap_sim::{Mode, SimRegion};
use daxmap::Result;

use crate::bytes;

/// How many logs [`whole`] makes, at most.
pub const LOGS: u8 = 12;

const SEGMENT: u64 = 12288;
const LEN: u64 = 16384 + 4 * SEGMENT;

/// A log as it is on the medium, and the records that are in it.
pub struct Whole {
    /// The region.
    pub bytes: Vec<u8>,
    /// Lsn and payload.
    pub records: Vec<(u64, Vec<u8>)>,
    /// The log was closed.
    pub closed: bool,
}

/// The payload of the record with this Lsn, of its `era`: after a truncation, others get the same
/// Lsns.
fn payload(lsn: u64, era: u64) -> Vec<u8> {
    let len = match lsn % 7 {
        0 => 0,
        3 => 1500,
        other => other * 19,
    };
    let mut payload = crate::value(lsn + (era << 32)).map(u64::to_le_bytes).concat();
    payload.resize(len as usize, lsn as u8);
    payload
}

/// Makes a log: of few records or of many, in first and in later lives, truncated at the back or
/// not; closed, or left as by a kill.
///
/// # Errors
///
/// None, of a region in memory.
pub fn whole(number: u8) -> Result<Whole> {
    let (closed, history) = (number % 2 == 1, number / 2 % (LOGS / 2));
    let region = SimRegion::new(Mode::Eadr, LEN, LEN);
    let mut log = LogOptions::new().segment_bytes(SEGMENT).seed(1).format(region.clone())?;
    let mut records = Vec::new();
    let mut released = 0;
    append(&log, &mut records, [1, 5, 12, 30, 9, 3][usize::from(history)], 0)?;
    if history == 3 {
        released = 25;
        log.release_up_to(Lsn::new(released))?;
        append(&log, &mut records, 20, 0)?;
    }
    if history >= 4 {
        log.truncate_after(Lsn::new(2))?;
        records.truncate(2);
        append(&log, &mut records, 6, 1)?;
    }
    if history == 5 {
        drop(log);
        log = LogOptions::new().seed(2).open_region(region.clone())?;
        append(&log, &mut records, 4, 1)?;
    }
    records.retain(|(lsn, _)| *lsn > released);
    let open = bytes(&region);
    log.close()?;
    let bytes = if closed { bytes(&region) } else { open };
    Ok(Whole { bytes, records, closed })
}

/// Appends so many records, every third time two as one commit.
fn append(
    log: &Log<SimRegion>,
    records: &mut Vec<(u64, Vec<u8>)>,
    count: u64,
    era: u64,
) -> Result<()> {
    let end = log.last().get() + count;
    while log.last().get() < end {
        let lsn = log.last().get() + 1;
        let many = if lsn.is_multiple_of(3) { 2 } else { 1 };
        let payloads: Vec<_> = (lsn..lsn + many).map(|lsn| payload(lsn, era)).collect();
        log.append_many(&payloads)?;
        records.extend((lsn..).zip(payloads));
    }
    Ok(())
}
