//! The three files, and what write-backs, non-temporal stores and fences do to them.
//!
//! # Safety
//!
//! Mappings of files that the guest changes through its own mapping: accessed only as atomics.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memmap2::MmapRaw;

use crate::{Control, LINE_BYTES, Word};

/// A file of 8-byte words.
pub(crate) struct Words(MmapRaw);

impl Words {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self(MmapRaw::map_raw(&file)?))
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The word at a byte offset, a multiple of 8; `None` past the end.
    #[allow(clippy::cast_ptr_alignment)] // mappings begin at a page, and the offset is checked
    pub(crate) fn word(&self, offset: u64) -> Option<&AtomicU64> {
        if !offset.is_multiple_of(8) || offset.checked_add(8)? > self.len() {
            return None;
        }
        // SAFETY: inside the mapping and aligned, by the line above; the mapping lives as long as
        // `self`.
        Some(unsafe { &*self.0.as_mut_ptr().add(offset as usize).cast::<AtomicU64>() })
    }

    fn line(&self, offset: u64) -> [u64; 8] {
        std::array::from_fn(|i| {
            let word = self.word(offset + 8 * i as u64);
            word.expect("lines are inside the NVDIMM").load(Ordering::Relaxed)
        })
    }

    fn set_line(&self, offset: u64, line: [u64; 8]) {
        for (i, value) in line.into_iter().enumerate() {
            let word = self.word(offset + 8 * i as u64);
            word.expect("lines are inside the NVDIMM").store(value, Ordering::Relaxed);
        }
    }
}

/// The persistent memory of the guest, and what of it a power cut would leave.
pub(crate) struct Memory {
    base: u64,
    live: Words,
    arrived: Words,
    durable: Words,
    control: Control,
    /// Lines on their way, by offset.
    pending: HashSet<u64>,
    /// The line of the last non-temporal store.
    streaming: Option<u64>,
}

impl Memory {
    /// Opens the files `arrived`, `durable` and `control` in `directory`, and `live`. The NVDIMM is
    /// at the physical address `base`.
    pub(crate) fn open(directory: &Path, live: &Path, base: u64) -> io::Result<Self> {
        let memory = Self {
            base,
            live: Words::open(live)?,
            arrived: Words::open(&directory.join("arrived"))?,
            durable: Words::open(&directory.join("durable"))?,
            control: Control::open(&directory.join("control"))?,
            pending: HashSet::new(),
            streaming: None,
        };
        let len = memory.live.len();
        if memory.arrived.len() != len
            || memory.durable.len() != len
            || !len.is_multiple_of(LINE_BYTES)
        {
            return Err(io::Error::other("live, arrived and durable differ in size"));
        }
        Ok(memory)
    }

    fn offset(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.base)?;
        (offset < self.live.len()).then_some(offset)
    }

    /// The line at this physical address is written back.
    pub(crate) fn write_back(&mut self, address: u64) {
        let Some(offset) = self.offset(address) else { return };
        self.event(Word::WriteBacks);
        let line = offset & !(LINE_BYTES - 1);
        self.arrived.set_line(line, self.live.line(line));
        self.pending.insert(line);
    }

    /// These bytes have been stored around the caches.
    pub(crate) fn non_temporal(&mut self, address: u64, bytes: u64) {
        let Some(offset) = self.offset(address) else { return };
        let first_line = offset & !(LINE_BYTES - 1);
        if self.streaming.replace(first_line) != Some(first_line) {
            self.event(Word::NonTemporal);
        }
        let last = (offset + bytes - 1).min(self.live.len() - 1);
        let mut line = first_line;
        while line <= last {
            let mut mixed = self.arrived.line(line).map(u64::to_ne_bytes);
            let stored = self.live.line(line).map(u64::to_ne_bytes);
            let first = offset.max(line);
            for at in first..=last.min(line + LINE_BYTES - 1) {
                let at = (at - line) as usize;
                mixed[at / 8][at % 8] = stored[at / 8][at % 8];
            }
            self.arrived.set_line(line, mixed.map(u64::from_ne_bytes));
            self.pending.insert(line);
            line += LINE_BYTES;
        }
    }

    /// The processor waits for what is on its way.
    pub(crate) fn fence(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        self.event(Word::Fences);
        for line in std::mem::take(&mut self.pending) {
            self.durable.set_line(line, self.arrived.line(line));
        }
    }

    /// A write-back of something that no page table knows.
    pub(crate) fn unresolved(&self) {
        self.control.count(Word::Unresolved);
    }

    /// The guest's program says that everything up to `step` is durable.
    pub(crate) fn acknowledge(&self, step: u64) {
        self.control.set(Word::Acknowledged, step);
        let wanted = self.control.get(Word::StopAfterStep);
        if wanted != 0 && wanted <= step {
            self.control.set(Word::StopAfterStep, 0);
            self.control.set(Word::StopAt, self.control.get(Word::Events) + 1);
        }
    }

    /// Counts, and stops the processor if the test wants it stopped here.
    fn event(&self, kind: Word) {
        let number = self.control.get(Word::Events) + 1;
        let wanted = self.control.get(Word::StopAt);
        if wanted != 0 && wanted <= number {
            self.control.set(Word::Stopped, number);
            while self.control.get(Word::StopAt) == wanted {
                std::thread::sleep(Duration::from_micros(200));
            }
            self.control.set(Word::Stopped, 0);
        }
        self.control.set(Word::Events, number);
        self.control.count(kind);
    }
}
