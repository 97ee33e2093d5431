//! The smallest log worth crashing: 64-byte records, each with its number and a checksum.
//!
//! It is what the simulator is measured with, and what the corpus of seeded bugs starts from.

use daxmap::{Region, Result};
use daxmap_sim::{History, Notes, SimRegion};

/// Bytes of a record: one cache line.
pub const RECORD: u64 = 64;

/// The record with this number, from 1: the number, a payload made from it, a CRC-32 of both.
#[must_use]
pub fn record(number: u64) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    for (index, byte) in bytes[8..60].iter_mut().enumerate() {
        *byte = (number.wrapping_mul(31) as u8).wrapping_add(index as u8) | 1;
    }
    let sum = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// True if these bytes are a record with this number.
#[must_use]
pub fn is_record(bytes: &[u8; 64], number: u64) -> bool {
    bytes[..8] == number.to_le_bytes() && bytes[60..] == crc32fast::hash(&bytes[..60]).to_le_bytes()
}

/// How a batch of records is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// `write`, `flush` of all, `drain`.
    Cached(u64),
    /// `write_flush` of each, `drain`.
    Streamed(u64),
}

impl Batch {
    /// How many records it has.
    #[must_use]
    pub fn records(self) -> u64 {
        let (Self::Cached(count) | Self::Streamed(count)) = self;
        count
    }
}

/// Appends the batches, and acknowledges the number of each batch's last record when it is
/// durable.
pub fn append(region: &SimRegion, notes: &Notes, batches: &[Batch]) -> Result<()> {
    let mut number = 0;
    for batch in batches {
        let first = number;
        let count = batch.records();
        notes.begin(first + count);
        for _ in 0..count {
            let at = number * RECORD;
            number += 1;
            match batch {
                Batch::Cached(_) => region.write(at, &record(number))?,
                Batch::Streamed(_) => region.write_flush(at, &record(number))?,
            }
        }
        if matches!(batch, Batch::Cached(_)) {
            region.flush(first * RECORD, count * RECORD)?;
        }
        region.drain()?;
        notes.ack(number);
    }
    Ok(())
}

/// How many records recovery finds: up to the first that is none.
pub fn recover(region: &impl Region) -> Result<u64> {
    let mut bytes = [0; 64];
    let mut number = 0;
    while (number + 1) * RECORD <= region.len() {
        region.read(number * RECORD, &mut bytes)?;
        if !is_record(&bytes, number + 1) {
            break;
        }
        number += 1;
    }
    Ok(number)
}

/// What was acknowledged is there, and nothing that was never begun.
pub fn check(region: &SimRegion, history: &History) -> std::result::Result<(), String> {
    let found = recover(region).map_err(|error| error.to_string())?;
    history.recovered(&found);
    let (acked, begun) = (history.last_acked().unwrap_or(0), history.last_begun().unwrap_or(0));
    if found < acked {
        return Err(format!("{acked} records were acknowledged, {found} are there"));
    }
    if found > begun {
        return Err(format!("{begun} records were begun, {found} are there"));
    }
    Ok(())
}

/// As [`check`], by a recovery that writes: it zeroes what follows the last record, so that a
/// torn record is not taken for one later.
pub fn check_repairing(region: &SimRegion, history: &History) -> std::result::Result<(), String> {
    repair(region).map_err(|error| error.to_string())?;
    check(region, history)
}

fn repair(region: &impl Region) -> Result<()> {
    let at = recover(region)? * RECORD;
    let mut bytes = [0; 64];
    if at + RECORD <= region.len() {
        region.read(at, &mut bytes)?;
        if bytes != [0; 64] {
            region.write(at, &[0; 64])?;
            region.persist(at, RECORD)?;
        }
    }
    Ok(())
}
