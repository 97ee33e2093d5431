//! The log: what it looks like in the region, how it is appended to, how it is recovered.
//!
//! ```text
//! 0      magic, 8 bytes
//! 8      epoch of the newest start, 8 bytes: one aligned word, never torn
//! 4096   records, one after the other, each at a multiple of 8:
//!            0   length of the message, 4 bytes     16  sequence number, 8 bytes
//!            4   CRC-32 of all the rest, 4 bytes    24  client, 8 bytes
//!            8   epoch, 8 bytes                     32  the client's number, 8 bytes
//!                                                   40  the message
//! ```
//!
//! All numbers are little-endian, the epoch in the header as the machine has it. The log ends
//! before the first record that is not whole, has not the next sequence number, or belongs to an
//! earlier epoch than the record before it.

use std::path::Path;

use daxmap::{AnyRegion, Options, Region};

const MAGIC: u64 = 0x31_30_67_6f_6c_6b_63_61; // "acklog01"
const EPOCH_AT: u64 = 8;
const RECORDS_AT: u64 = 4096;
const RECORD_HEADER: usize = 40;
/// Longest message, in bytes: a wrong length field is then recognised before it is believed.
pub const MESSAGE_MAX: usize = 64 << 10;
/// Length of a new log, in bytes. It doubles when it is full.
const LOG_BYTES: u64 = 16 << 20;

/// One message in the log.
#[derive(Debug)]
pub struct Record {
    pub client: u64,
    pub number: u64,
    pub message: Vec<u8>,
    epoch: u64,
    sequence: u64,
}

/// A log that is appended to.
pub struct Log {
    region: AnyRegion,
    tail: u64,
    sequence: u64,
    epoch: u64,
}

impl Log {
    /// Opens the log, or makes it, and finds its end.
    pub fn open(path: &Path) -> daxmap::Result<Self> {
        // Opening syncs what an earlier process wrote and nobody drained: what recovery reads
        // below is not only in the page cache.
        let region = match Options::new().open(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                Options::new().len(LOG_BYTES).create(path)?
            }
            result => result?,
        };
        if region.load_u64(0)? != MAGIC {
            region.store_u64(0, MAGIC)?;
            region.persist(0, 8)?;
        }
        let (tail, sequence) = read(&region, drop)?;
        // Before anything is appended. A record behind the end, from an append that the crash
        // did not let finish, could otherwise follow a new record that happens to have the
        // length of the one it once followed, with the right number and the right checksum.
        let epoch = region.load_u64(EPOCH_AT)? + 1;
        region.store_u64(EPOCH_AT, epoch)?;
        region.persist(EPOCH_AT, 8)?;
        Ok(Self { region, tail, sequence, epoch })
    }

    /// How many records there are.
    pub fn len(&self) -> u64 {
        self.sequence
    }

    /// What `commit` promises here, in words.
    pub fn promise(&self) -> String {
        self.region.report().verdict_sentence()
    }

    /// Appends a message: in the log, not durable.
    pub fn append(&mut self, client: u64, number: u64, message: &[u8]) -> daxmap::Result<()> {
        let mut bytes = Vec::with_capacity(RECORD_HEADER + message.len());
        bytes.extend((message.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        for word in [self.epoch, self.sequence + 1, client, number] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(message);
        let sum = checksum(&bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        let end = self.tail + bytes.len() as u64;
        if end > self.region.len() {
            self.region.grow(self.region.len() * 2)?;
        }
        self.region.write_flush(self.tail, &bytes)?;
        self.tail = end.next_multiple_of(8);
        self.sequence += 1;
        Ok(())
    }

    /// Makes all that was appended durable. After an error nothing is known of it, and every
    /// later call fails: the way on is to open the log again.
    pub fn commit(&self) -> daxmap::Result<()> {
        self.region.drain()
    }
}

/// All records of a log, for somebody who only reads it.
pub fn read_file(path: &Path, each: impl FnMut(Record)) -> daxmap::Result<()> {
    let region = Options::new().read_only(true).open(path)?;
    read(&region, each).map(drop)
}

/// Hands out the records from the first to the last that is whole; returns where the next one
/// goes, and the last one's sequence number.
fn read(region: &dyn Region, mut each: impl FnMut(Record)) -> daxmap::Result<(u64, u64)> {
    let (mut tail, mut sequence, mut epoch) = (RECORDS_AT, 0, 0);
    while let Some(record) = record_at(region, tail)? {
        if record.sequence != sequence + 1 || record.epoch < epoch {
            break;
        }
        (sequence, epoch) = (record.sequence, record.epoch);
        tail += (RECORD_HEADER + record.message.len()).next_multiple_of(8) as u64;
        each(record);
    }
    Ok((tail, sequence))
}

/// The record there, if one is, and whole.
fn record_at(region: &dyn Region, at: u64) -> daxmap::Result<Option<Record>> {
    if at + RECORD_HEADER as u64 > region.len() {
        return Ok(None);
    }
    let mut header = [0; RECORD_HEADER];
    region.read(at, &mut header)?;
    let word = |index: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[index * 8..][..8]);
        u64::from_le_bytes(bytes)
    };
    let [length, sum] = [word(0) as u32, (word(0) >> 32) as u32];
    // A length of zero is what a log holds where nothing was written.
    let end = at + RECORD_HEADER as u64 + u64::from(length);
    if length == 0 || length as usize > MESSAGE_MAX || end > region.len() {
        return Ok(None);
    }
    let mut bytes = header.to_vec();
    bytes.resize(RECORD_HEADER + length as usize, 0);
    region.read(at + RECORD_HEADER as u64, &mut bytes[RECORD_HEADER..])?;
    if checksum(&bytes) != sum {
        return Ok(None);
    }
    Ok(Some(Record {
        epoch: word(1),
        sequence: word(2),
        client: word(3),
        number: word(4),
        message: bytes.split_off(RECORD_HEADER),
    }))
}

/// Over the length and everything behind the checksum's own field.
fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}
