//! The page through which a test and the plugin talk.
//!
//! # Safety
//!
//! A mapping of a file that two processes change: accessed only as atomics.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

const PAGE_BYTES: u64 = 4096;

/// The words of the page, 8 bytes each, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Word {
    /// Set by the test: the processor stops before the event of this number. 0 is never.
    StopAt,
    /// Set by the test: once this step is acknowledged, the processor stops before the next event.
    /// 0 is never; the plugin clears it.
    StopAfterStep,
    /// Set by the plugin: the number of the event it has stopped before; 0 while it runs.
    Stopped,
    /// Events so far: write-backs of persistent memory, lines that non-temporal stores begin to
    /// fill, and fences that had something to wait for.
    Events,
    /// Cache lines of persistent memory written back.
    WriteBacks,
    /// Lines of persistent memory that non-temporal stores began to fill.
    NonTemporal,
    /// Fences that had something to wait for.
    Fences,
    /// Write-backs whose address no page table translated. What they concern is not known.
    Unresolved,
    /// What the guest's program last acknowledged.
    Acknowledged,
}

/// The mapped page.
#[derive(Debug)]
pub struct Control(MmapRaw);

impl Control {
    /// Maps the page, which is created, with zeros, where there is none.
    ///
    /// # Errors
    ///
    /// Of open, ftruncate and mmap.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() != PAGE_BYTES {
            file.set_len(PAGE_BYTES)?;
        }
        Ok(Self(MmapRaw::map_raw(&file)?))
    }

    #[allow(clippy::cast_ptr_alignment)] // mappings begin at a page
    fn word(&self, word: Word) -> &AtomicU64 {
        // SAFETY: inside the mapping, which is a page and lives as long as `self`, because there
        // are fewer words than fit a page; aligned because mappings are; accessed as an atomic by
        // everybody.
        unsafe { &*self.0.as_mut_ptr().cast::<AtomicU64>().add(word as usize) }
    }

    /// Reads a word.
    #[must_use]
    pub fn get(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::SeqCst)
    }

    /// Writes a word.
    pub fn set(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::SeqCst);
    }

    /// Adds one to a word.
    pub fn count(&self, word: Word) {
        self.word(word).fetch_add(1, Ordering::SeqCst);
    }
}
