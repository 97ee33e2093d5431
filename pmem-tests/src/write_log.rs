//! The log that the kernel's dm-log-writes keeps of a device, and what the device held at any
//! moment of it.
//!
//! A write is in the log from the flush on that made it durable, or at once if it was a FUA write.
//! So the first entries of the log, to whatever length, are what a power cut leaves of a device
//! that loses everything it may. Stores through a DAX mapping pass the log by.
//!
//! The format is that of drivers/md/dm-log-writes.c (Linux 6.12); all numbers are little-endian.
//! The first sector of the log device is the superblock:
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | magic |
//! | 8..16 | version, 1 |
//! | 16..24 | number of entries |
//! | 24..28 | bytes of a sector |
//!
//! Each entry begins at a sector, and what was written follows from the next one on:
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | first sector on the device |
//! | 8..16 | number of sectors |
//! | 16..24 | flags: 1 flush, 2 FUA, 4 discard, 8 mark, 16 metadata |
//! | 24..32 | bytes of the mark, which follow in this sector |

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::blockdev::Image;

const MAGIC: u64 = 0x6a_7366_7773_6872;
const VERSION: u64 = 1;
const SUPER_BYTES: usize = 28;
const ENTRY_BYTES: usize = 32;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
const METADATA: u64 = 16;

/// What an entry of the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes were written at this offset of the device; they are in the log at `from`.
    Write {
        /// Where, in bytes.
        at: u64,
        /// How many bytes.
        len: u64,
        /// Where the log has them, in bytes.
        from: u64,
    },
    /// A range was discarded.
    Discard {
        /// Where, in bytes.
        at: u64,
        /// How many bytes.
        len: u64,
    },
    /// A flush without data.
    Flush,
    /// Somebody's mark.
    Mark(String),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub what: What,
    /// A flush, or a write that was durable when it was done: everything before it is.
    pub is_durable: bool,
}

/// A log, read.
#[derive(Debug)]
pub struct WriteLog {
    device: File,
    entries: Vec<Entry>,
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn damaged(what: &str, at: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("log of writes: {what} at byte {at}"))
}

impl WriteLog {
    /// Reads the entries of a log device, or of a copy of one.
    ///
    /// # Errors
    ///
    /// Of reading; `InvalidData` if it is no such log, or goes on past its end.
    pub fn read(device: File) -> io::Result<Self> {
        let len = device.metadata()?.len();
        let mut head = [0; SUPER_BYTES];
        device.read_exact_at(&mut head, 0)?;
        if number(&head, 0) != MAGIC || number(&head, 8) != VERSION {
            return Err(damaged("no superblock", 0));
        }
        let sector = u64::from(u32::from_le_bytes(std::array::from_fn(|i| head[24 + i])));
        if !sector.is_power_of_two() || !(512..=65536).contains(&sector) {
            return Err(damaged("no size of sectors", 24));
        }
        let mut entries = Vec::new();
        let mut at = sector;
        for _ in 0..number(&head, 16) {
            let (entry, next) = read_entry(&device, at, sector)?;
            if next > len {
                return Err(damaged("an entry past the end", at));
            }
            entries.push(entry);
            at = next;
        }
        Ok(Self { device, entries })
    }

    /// All entries, in their order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Does to an image what one entry did to the device.
    ///
    /// # Errors
    ///
    /// Of reading the log; `InvalidData` if the entry lies outside of the image.
    pub fn apply(&self, entry: &Entry, image: &mut Image) -> io::Result<()> {
        match entry.what {
            What::Write { at, len, from } => {
                if at.checked_add(len).is_none_or(|end| end > image.len()) {
                    return Err(damaged("a write outside of the device", from));
                }
                let mut bytes = vec![0; len as usize];
                self.device.read_exact_at(&mut bytes, from)?;
                image.write(at, &bytes);
            }
            What::Discard { at, len } => {
                if at.checked_add(len).is_none_or(|end| end > image.len()) {
                    return Err(damaged("a discard outside of the device", at));
                }
                image.zero(at, len);
            }
            What::Flush | What::Mark(_) => {}
        }
        Ok(())
    }
}

/// The entry at a byte of the log, and where the next one is.
fn read_entry(device: &File, at: u64, sector: u64) -> io::Result<(Entry, u64)> {
    let mut head = [0; ENTRY_BYTES];
    device.read_exact_at(&mut head, at)?;
    let [first, count, flags, mark_bytes] = [0, 8, 16, 24].map(|i| number(&head, i));
    let bytes = |sectors: u64| sectors.checked_mul(sector).ok_or_else(|| damaged("a length", at));
    let (target, len, data) = (bytes(first)?, bytes(count)?, at + sector);
    if flags & !(FLUSH | FUA | DISCARD | MARK | METADATA) != 0 {
        return Err(damaged("unknown flags", at));
    }
    let what = if flags & MARK != 0 {
        if mark_bytes > sector - ENTRY_BYTES as u64 {
            return Err(damaged("a mark longer than its sector", at));
        }
        let mut mark = vec![0; mark_bytes as usize];
        device.read_exact_at(&mut mark, at + ENTRY_BYTES as u64)?;
        let mark = String::from_utf8_lossy(&mark);
        What::Mark(mark.trim_end_matches('\0').to_owned())
    } else if flags & DISCARD != 0 {
        What::Discard { at: target, len }
    } else if len == 0 {
        What::Flush
    } else {
        What::Write { at: target, len, from: data }
    };
    let follows = if matches!(what, What::Write { .. }) { len } else { 0 };
    let next = data.checked_add(follows).ok_or_else(|| damaged("a length", at))?;
    Ok((Entry { what, is_durable: flags & (FLUSH | FUA) != 0 }, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: usize = 512;

    /// A log of these entries: sector, sectors, flags, and what follows the head or fills sectors.
    fn log(entries: &[(u64, u64, u64, &[u8])]) -> io::Result<WriteLog> {
        let mut bytes = Vec::new();
        for word in [MAGIC, VERSION, entries.len() as u64] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend((SECTOR as u32).to_le_bytes());
        bytes.resize(SECTOR, 0);
        for &(first, count, flags, data) in entries {
            let mark = flags & MARK != 0;
            for word in [first, count, flags, if mark { data.len() as u64 } else { 0 }] {
                bytes.extend(word.to_le_bytes());
            }
            if !mark {
                bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
            }
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        }
        let file = tempfile::tempfile()?;
        file.write_all_at(&bytes, 0)?;
        WriteLog::read(file)
    }

    #[test]
    fn entries_are_read_and_applied_in_order() {
        let (ones, twos) = ([1; 2 * SECTOR], [2; SECTOR]);
        let log = log(&[
            (4, 2, 0, &ones),
            (0, 0, FLUSH, &[]),
            (0, 0, MARK, b"here"),
            (5, 1, FUA | METADATA, &twos),
            (4, 1, DISCARD, &[]),
            (0, 0, MARK, b"there"),
        ])
        .unwrap();
        let durable: Vec<bool> = log.entries().iter().map(|entry| entry.is_durable).collect();
        assert_eq!(durable, [false, true, false, true, false, false]);
        assert_eq!(log.entries()[2].what, What::Mark("here".to_owned()));
        let mut image = Image::new(16 * SECTOR as u64);
        let mut seen = Vec::new();
        for entry in log.entries() {
            log.apply(entry, &mut image).unwrap();
            let mut found = [0; 3 * SECTOR];
            image.read(4 * SECTOR as u64, &mut found);
            seen.push([found[0], found[SECTOR], found[2 * SECTOR]]);
        }
        assert_eq!(seen[2], [1, 1, 0]);
        assert_eq!(seen[3], [1, 2, 0]);
        assert_eq!(seen[5], [0, 2, 0]);
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let refused = |entries: &[(u64, u64, u64, &[u8])]| {
            log(entries).unwrap_err().kind() == io::ErrorKind::InvalidData
        };
        assert!(refused(&[(0, u64::MAX, 0, &[])]));
        assert!(refused(&[(0, 1 << 40, 0, &[])]));
        assert!(refused(&[(0, 0, 64, &[])]));
        assert!(refused(&[(0, 0, MARK, &[7; 500])]));
        let zeros = tempfile::tempfile().unwrap();
        zeros.set_len(4096).unwrap();
        assert_eq!(WriteLog::read(zeros).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let log = log(&[(100, 1, 0, &[1; SECTOR])]).unwrap();
        assert!(log.apply(&log.entries()[0], &mut Image::new(4096)).is_err());
    }
}
