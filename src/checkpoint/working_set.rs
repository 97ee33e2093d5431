//! The working set: memory, what changed in it, and the file that it is saved to.

use std::ptr::NonNull;
use std::time::{Duration, Instant, SystemTime};

use super::changes::Changes;
use super::choice::{Strategy, Tracking};
use super::complete;
use super::file::{File, Found};
use super::memory::Memory;
use super::options::Options;
use super::pointers::Pointers;
use super::record::{Checkpoint, check_label};
use super::recovery::Recovery;
use super::settings::{Settings, VERSION};
use crate::durability::Durability;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::format::header::Kind;
use crate::format::opening;
use crate::primitives::primitive;
use crate::region::Region;

/// Memory that reaches its file when it is told to, all or nothing. See the
/// [module](super) for what is promised.
///
/// It is one thread's at a time, as a `Vec` is: what changes it takes `&mut self`. So a safe
/// program cannot store while a checkpoint reads, and a store costs no lock and no atomic.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // independent of each other
pub struct WorkingSet<R: Region> {
    region: R,
    settings: Settings,
    key: Key,
    memory: Memory,
    changes: Changes,
    pointers: Pointers,
    compare: bool,
    file: File,
    recovery: Recovery,
    /// The newest number that the file has ever given.
    last: u64,
    read_only: bool,
    timed: bool,
    /// The process that this working set is of.
    process: u64,
    /// The error after which the file is not what this value thinks.
    failed: Option<Error>,
    closed: bool,
}

impl<R: Region> WorkingSet<R> {
    /// Makes a working set of zeros in the region, whatever was there before, and opens it.
    ///
    /// # Errors
    ///
    /// `Empty` for a set of 0 bytes; `TooShort` if the region cannot hold it once; `TooLarge`; and
    /// those of the region.
    pub fn format(region: R, options: &Options) -> Result<Self> {
        options.format(&region)?;
        Self::open(region, options)
    }

    /// Restores the last complete checkpoint from the region, and heals what has two copies and
    /// lost one, unless it is opened for reading only.
    ///
    /// # Errors
    ///
    /// `WrongFormat` if the region holds something else, or nothing; `NewerFormat`; `UnsafeShutdown`
    /// if that is refused; `TooShort` if the file was cut; `SizeMismatch` if the set has another size than asked for; `Damaged` with the range
    /// of the file that is, if a check value does not fit; `NoCheckpoint` if the one asked for is
    /// not kept; `Busy` if it is opened for reading, and a writer saves faster than it can be read for
    /// a second; `Os(ENOMEM)`.
    pub fn open(region: R, options: &Options) -> Result<Self> {
        let (patience, mut seen) = (Patience::begin(), None);
        loop {
            match Self::load(&region, options) {
                Ok(loaded) => return loaded.attach(region, options),
                // Somebody else may have saved meanwhile, and used the pages of the checkpoint
                // that was being read.
                Err(error)
                    if primitive!("checkpoint.reader_looks_again", options.read_only, false)
                        && matches!(error.kind(), ErrorKind::Damaged(_)) =>
                {
                    // Twice the same, and nobody saved meanwhile: it is damage.
                    let now = Some(complete::newest(&region)?);
                    if seen == now {
                        return Err(error);
                    }
                    seen = now;
                    patience.check()?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens what the region holds, or makes a set of zeros if it holds nothing: if its first 8192
    /// bytes are zero, or a crash has cut this call short before.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`format`](Self::format).
    pub fn open_or_format(region: R, options: &Options) -> Result<Self> {
        if complete::find(&region)?.is_none() {
            options.format(&region)?;
        }
        Self::open(region, options)
    }

    fn load(region: &R, options: &Options) -> Result<Loaded> {
        let Some(found) = complete::find(region)? else {
            let what = ErrorKind::WrongFormat(Kind::Checkpoint.name());
            return Err(Error::new(Operation::Open, what));
        };
        let settings = found.settings;
        if options.bytes != 0 && options.bytes != settings.bytes {
            let kind = ErrorKind::SizeMismatch { found: settings.bytes, asked: options.bytes };
            return Err(Error::new(Operation::Open, kind));
        }
        let mark = opening::check(region, &found.header, options.refuse_unsafe_shutdown)?;
        let mut memory = Memory::zeroed(settings.pages())?;
        let (file, state) = File::load(region, &settings, found.key, options.from, &mut memory)?;
        Ok(Loaded { found, mark, memory, file, state })
    }

    /// Bytes of the working set.
    pub fn len(&self) -> u64 {
        self.settings.bytes
    }

    /// Always false: a working set has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The working set.
    pub fn bytes(&self) -> &[u8] {
        &self.memory.bytes()[..self.settings.bytes as usize]
    }

    /// Copies bytes out of the working set.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.check(Operation::Read, offset, buf.len() as u64)?;
        buf.copy_from_slice(&self.bytes()[at..at + buf.len()]);
        Ok(())
    }

    /// Copies bytes into the working set. They are in the file after the next
    /// [`checkpoint`](Self::checkpoint), and not before.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`; nothing is changed then.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let at = self.check(Operation::Write, offset, data.len() as u64)?;
        primitive!("checkpoint.mark_write", self.changes.mark(offset, data.len() as u64), ());
        self.memory.bytes_mut()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    /// The bytes of a range, for changing them in place. All of them count as changed.
    ///
    /// # Errors
    ///
    /// `OutOfBounds`.
    pub fn slice_mut(&mut self, offset: u64, len: u64) -> Result<&mut [u8]> {
        let at = self.check(Operation::View, offset, len)?;
        primitive!("checkpoint.mark_slice", self.changes.mark(offset, len), ());
        Ok(&mut self.memory.bytes_mut()[at..at + len as usize])
    }

    /// The first byte of the working set, for stores through a pointer. From the first call on
    /// every checkpoint looks for the pages that were stored into, as
    /// [`tracking`](Self::tracking) says. A page is written if any byte of it was.
    ///
    /// The pointer is good for [`len`](Self::len) bytes until the working set is dropped: from
    /// the first call on the memory does not move.
    ///
    /// # Safety of its use
    ///
    /// What is behind it is reached by unsafe code only, which sees to it that
    ///
    /// - no access through the pointer goes past the end, or comes after the drop;
    /// - no store through it happens while a method of the working set runs, or while a slice that
    ///   [`bytes`](Self::bytes) or [`slice_mut`](Self::slice_mut) returned is in use; nor a load,
    ///   with `slice_mut`;
    /// - threads that share it order their accesses themselves.
    ///
    /// A read into this memory that the kernel or a device carries out is a store: it has ended before
    /// a method of the working set runs.
    ///
    /// # Memory that is pinned
    ///
    /// Pages that somebody has pinned are stored into past the page table, and the kernel marks
    /// nothing. Where the kernel counts what is pinned (`VmPin` in proc(5): buffers registered with
    /// io_uring or for RDMA), every checkpoint compares all pages until nothing is. It does not count
    /// what VFIO, AF_XDP and video drivers pin: with these, set
    /// [`Options::compare`](super::Options::compare), or such stores are not saved.
    ///
    /// # Errors
    ///
    /// `Unsupported` in a forked child.
    pub fn pointer(&mut self) -> Result<NonNull<u8>> {
        self.check_process(Operation::View)?;
        self.pointers.start(&mut self.memory, self.compare);
        Ok(self.memory.base())
    }

    fn check(&self, operation: Operation, offset: u64, len: u64) -> Result<usize> {
        let bytes = self.settings.bytes;
        if offset.checked_add(len).is_none_or(|end| end > bytes) {
            let kind = ErrorKind::OutOfBounds { len: bytes };
            return Err(Error::new(operation, kind).over(offset, len));
        }
        Ok(offset as usize)
    }

    /// Saves the working set as it is now. When it returns, the checkpoint survives what
    /// [`durability`](Self::durability) names; a crash before leaves the checkpoint before, whole.
    ///
    /// Costs what changed since the last checkpoint: the pages or lines, and two drains, one if
    /// nothing changed. The region's drain covers the calling thread.
    ///
    /// # Errors
    ///
    /// `Full` if the file has no room: nothing was written, the changes stay changes, and the way
    /// on is [`grow`](Self::grow), or fewer changes. `ReadOnly`, `Closed`, `Unsupported` in a
    /// forked child. After any other error the file holds the checkpoint before or this one, and
    /// every later call that would write fails with `Failed`: reopen.
    pub fn checkpoint(&mut self) -> Result<Checkpoint> {
        self.checkpoint_labelled("")
    }

    /// [`checkpoint`](Self::checkpoint), with a name of up to [`LABEL_MAX`](super::LABEL_MAX)
    /// bytes.
    ///
    /// # Errors
    ///
    /// As there, and `TooLarge` for the label.
    pub fn checkpoint_labelled(&mut self, label: &str) -> Result<Checkpoint> {
        check_label(label)?;
        self.check_writable(Operation::Checkpoint)?;
        self.pointers.collect(&self.memory, &mut self.changes);
        self.file.check_room(&self.changes)?;
        let sequence = crate::format::cell::next(self.last)?;
        let time = self.timed.then(SystemTime::now);
        let bytes = self.file.bytes(&self.changes);
        let checkpoint = Checkpoint { sequence, time, bytes, label: label.to_owned() };
        let saved = self.file.save(&self.region, &self.memory, &self.changes, &checkpoint);
        if let Err(error) = saved {
            let error = error.during(Operation::Checkpoint);
            self.failed = Some(error.clone());
            return Err(error);
        }
        self.last = sequence;
        self.changes.clear();
        Ok(checkpoint)
    }

    fn check_writable(&self, operation: Operation) -> Result<()> {
        let refuse = |kind| Err(Error::new(operation, kind));
        if self.closed {
            return refuse(ErrorKind::Closed);
        }
        if self.read_only {
            return refuse(ErrorKind::ReadOnly);
        }
        self.check_process(operation)?;
        if let Some(error) = primitive!("checkpoint.latch", &self.failed, &None::<Error>) {
            let poisoned = ErrorKind::Failed(std::sync::Arc::new(error.clone()));
            return Err(Error::new(operation, poisoned).unknown());
        }
        Ok(())
    }

    /// A child has a copy of the memory and the same file: two would write one root.
    fn check_process(&self, operation: Operation) -> Result<()> {
        if primitive!("checkpoint.fork", crate::region::process::mark() != self.process, false) {
            let why = "in a forked child, where the working set is a copy of its parent's";
            return Err(Error::new(operation, ErrorKind::Unsupported(why)));
        }
        Ok(())
    }

    /// The checkpoints that can be restored, the oldest first; the last one is the newest.
    pub fn list(&self) -> Vec<Checkpoint> {
        self.file.list()
    }

    /// Makes the working set what it was at a kept checkpoint. The file does not change: the
    /// next checkpoint saves this as the newest.
    ///
    /// # Errors
    ///
    /// `NoCheckpoint` if none of this number is kept; `Damaged` with the range of the file that
    /// is. The working set is then as it was.
    pub fn restore(&mut self, sequence: u64) -> Result<()> {
        self.check_writable(Operation::Restore)?;
        self.pointers.collect(&self.memory, &mut self.changes);
        self.file.restore(&self.region, sequence, &mut self.memory, &mut self.changes)
    }

    /// Reads every page of a kept checkpoint and compares it with its check value.
    ///
    /// # Errors
    ///
    /// `Damaged`, with the first range of the file that is; `NoCheckpoint`.
    pub fn verify(&self, sequence: u64) -> Result<()> {
        self.file.verify(&self.region, sequence)
    }

    /// Makes the file longer, up to `len` bytes, so that it has room for more. Never shorter.
    ///
    /// # Errors
    ///
    /// Those of [`Region::grow`]; `ReadOnly` and the like.
    pub fn grow(&mut self, len: u64) -> Result<()> {
        self.check_writable(Operation::Grow)?;
        self.region.grow(len)?;
        self.file.grown(&self.region);
        Ok(())
    }

    /// What was found when the file was opened.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// How checkpoints reach the file: what the file was made for.
    pub fn strategy(&self) -> Strategy {
        self.settings.strategy
    }

    /// Why it is that.
    pub fn why(&self) -> &'static str {
        let suits = Strategy::for_region(self.region.granularity(), self.settings.keep);
        if suits.0 == self.settings.strategy {
            suits.1
        } else {
            "the file was made for it, on another medium or because it was asked for"
        }
    }

    /// How changes are found.
    pub fn tracking(&self) -> Tracking {
        self.pointers.tracking()
    }

    /// What a checkpoint survives.
    pub fn durability(&self) -> Durability {
        self.region.durability()
    }

    /// The region that holds the file.
    pub fn region(&self) -> &R {
        &self.region
    }

    /// Gives the working set up without touching the file again, as if the process had been
    /// killed: for tests of what a crash leaves. [`close`](Self::close) is the orderly way.
    pub fn abandon(mut self) {
        self.closed = true;
    }

    /// Closes the file so that at rest any single damaged copy costs nothing. What was not
    /// saved is gone. Dropping does the same and cannot report.
    ///
    /// # Errors
    ///
    /// `Failed` after an error that left the file unknown; those of the region. The checkpoints
    /// are as they were.
    pub fn close(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        if self.closed || self.read_only {
            return Ok(());
        }
        self.check_writable(Operation::Close)?;
        self.closed = true;
        primitive!("checkpoint.settle_at_close", self.file.settle(&self.region), Ok(()))?;
        opening::close(&self.region, self.key)?;
        self.region.close()
    }
}

impl<R: Region> Drop for WorkingSet<R> {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// How long a reader looks again when what it reads is being replaced. The last look may end later.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looking again, for so long and no longer.
pub(super) struct Patience(Instant);

impl Patience {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    /// # Errors
    ///
    /// `Busy` when it is over.
    pub(super) fn check(&self) -> Result<()> {
        if self.0.elapsed() < PATIENCE {
            return Ok(());
        }
        Err(Error::new(Operation::Open, ErrorKind::Busy))
    }
}

/// What `load` read.
struct Loaded {
    found: complete::Complete,
    mark: opening::Seen,
    memory: Memory,
    file: File,
    state: Found,
}

impl Loaded {
    /// Heals what can be healed, and makes durable what was found: a process that was killed may
    /// not have drained it.
    fn attach<R: Region>(self, region: R, options: &Options) -> Result<WorkingSet<R>> {
        let Self { found, mark, memory, mut file, state } = self;
        let settings = found.settings;
        if !options.read_only {
            let header = opening::begin(&region, found.key, &found.header, VERSION)?;
            primitive!("checkpoint.heal_header", header.heal(&region), Ok(()))?;
            primitive!("checkpoint.settle_at_open", file.settle(&region), Ok(()))?;
            file.set_keep(options.keep.unwrap_or(settings.keep));
            opening::told(&region, found.key)?;
        }
        let newest = file.newest().map_or(0, |newest| newest.sequence);
        let recovery = Recovery {
            checkpoint: newest,
            clean: state.settled && found.copies == 2 && !mark.is_damaged(),
            cut_short: state.cut_short,
            header_damaged: found.copies < 2 || mark.is_damaged(),
            damaged: state.damaged,
            unsafe_shutdown: mark.unsafe_shutdown,
            bytes_read: state.bytes_read,
        };
        Ok(WorkingSet {
            region,
            settings,
            key: found.key,
            changes: Changes::none(settings.pages()),
            pointers: Pointers::None,
            compare: options.compare,
            memory,
            file,
            recovery,
            last: state.last,
            read_only: options.read_only,
            timed: options.seed.is_none(),
            process: crate::region::process::mark(),
            failed: None,
            closed: false,
        })
    }
}
