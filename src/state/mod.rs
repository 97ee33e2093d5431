//! A typed value that is never torn: after any crash the old one or the new one.
//!
//! A [`State`] keeps one plain-data struct in a region, in two slots that are written in turn.
//! A store is one write and one drain: on persistent memory one fence, elsewhere one
//! `fdatasync`.
//!
//! ```
//! use daxmap::state::State;
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
//! #[repr(C)]
//! struct Root {
//!     generation: u64,
//!     tree: u64,
//! }
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("root");
//! let root = State::open_or_create(&path, &Root { generation: 0, tree: 0 })?;
//! root.update(|root| {
//!     root.generation += 1;
//!     root.tree = 4096;
//! })?; // durable
//! assert_eq!(root.load().generation, 1);
//! root.close()?;
//!
//! let root = State::<Root>::open(&path)?;
//! assert!(root.recovery().clean);
//! assert_eq!(root.load().tree, 4096);
//! # Ok::<(), daxmap::Error>(())
//! ```
//!
//! # What a crash leaves
//!
//! - During a store, the value before it or the value after it, as a whole. Once the store has
//!   returned `Ok`, the value after it, under the crashes that [`State::durability`] names.
//! - During the making of a file, no file of that name: it gets its name when it is complete.
//!   During [`StateOptions::format`] of a region, what the region held, or nothing that can be
//!   opened; once it has returned `Ok`, the first value.
//! - During an open, with its healing and its upgrade, what was there or what the open was making
//!   of it. A value that an open has returned was made durable before, even if the process that
//!   stored it was killed on the way.
//!
//! # What damage leaves
//!
//! Everything is there twice, in different pages, behind check values. Of a file that was closed, and of
//! an open one that has not been stored into since, one damaged copy is noticed, reported in
//! [`Recovery`] and written anew. Of the last store before a crash there is one copy: damaged, it
//! looks like a store that the crash has torn, the value before it is what is found, and
//! [`Recovery::slot_invalid`] says that there was something. With both damaged, opening fails with
//! [`ErrorKind::Damaged`].
//!
//! A file that is copied while it is stored into gives a copy that holds one of the values it had
//! meanwhile, or one that is `Damaged`: copy a closed file, or one opened for reading.
//!
//! # Other versions of the type
//!
//! The value carries a version of its layout ([`StateOptions::version`]) and its size. Where they
//! are not those of the program, opening fails with
//! [`ErrorKind::OtherLayout`], unless the version is an older one
//! and [`StateOptions::upgrade`] has a function that makes the new value of the old bytes. Bytes are
//! stored as they are in memory: fields that are to be read on another machine have a byte order
//! ([`zerocopy::byteorder`](https://docs.rs/zerocopy/latest/zerocopy/byteorder/)).
//!
//! `FORMAT.md` describes the file byte by byte.

mod image;
mod inspect;
mod options;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use self::image::Image;
pub use self::inspect::{Inspection, Slot, inspect};
pub use self::options::{StateOptions, region_bytes};
use crate::UnsafeShutdown;
use crate::durability::Durability;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::cell::{self, Cell, Slot as CellSlot, Stored};
use crate::format::check::Key;
use crate::format::opening;
use crate::primitives::primitive;
use crate::region::{AnyRegion, Region};

/// The newest format version known here.
const FORMAT: u32 = 2;
/// The versions that can be read. Opening for writing brings version 1, which has no opening mark, up
/// to the newest.
const FORMATS: RangeInclusive<u32> = 1..=FORMAT;

/// What a [`State`] can hold: plain data without padding, by zerocopy's derives
///
/// ```
/// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
/// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
/// #[repr(C)]
/// # struct Root(u64);
/// # fn plain<T: daxmap::state::Plain>() {}
/// # plain::<Root>();
/// ```
///
/// and every number and array of such.
pub trait Plain: FromBytes + IntoBytes + Immutable + KnownLayout {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> Plain for T {}

/// What an open found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[allow(clippy::struct_excessive_bools)] // independent facts
pub struct Recovery {
    /// The state was closed, or not stored into since it was opened or made, and both copies of
    /// everything are whole.
    pub clean: bool,
    /// Number of the store whose value was found, counted from 1, which is the first value.
    pub sequence: u64,
    /// One slot held something that does not validate: a store that a crash has torn and that had
    /// not returned, or damage.
    pub slot_invalid: bool,
    /// One copy of the header was damaged, or cut off by a crash while the state was made.
    pub header_invalid: bool,
    /// One slot of the opening mark was damaged, or torn by a crash while the state was opened or
    /// closed.
    pub mark_invalid: bool,
    /// What was invalid or older was written anew; false if the state was opened for reading.
    pub healed: bool,
    /// The layout version that the value was upgraded from.
    pub upgraded_from: Option<u32>,
    /// Whether the memory under the state lost power unsaved since it was last opened for writing.
    pub unsafe_shutdown: UnsafeShutdown,
}

/// A durable value of type `T` in a region.
///
/// May be shared between threads: stores and updates follow one another, and loads do not wait for
/// them. `T` is aligned to at most 64 bytes. A type of any size will do, but opening and loading
/// return values, which go over the stack: [`with`](Self::with) and [`update`](Self::update) do not.
///
/// Dropping a state does what [`close`](Self::close) does, without a word about errors.
pub struct State<T: Plain, R: Region = AnyRegion> {
    region: R,
    cell: Cell,
    key: Key,
    version: u32,
    read_only: bool,
    recovery: Recovery,
    /// The process that opened it: a forked child must not write what it took along.
    process: u64,
    /// The last value whose store has returned `Ok`. Locked for moments only.
    current: Mutex<Image<T>>,
    /// Locked during a store.
    writer: Mutex<Writer<T>>,
}

#[allow(clippy::struct_excessive_bools)] // independent facts
struct Writer<T> {
    image: Image<T>,
    /// Room for the next current value.
    spare: Image<T>,
    sequence: u64,
    /// False while the image may hold something else than the current value.
    whole: bool,
    /// Both slots hold the current value.
    settled: bool,
    /// The current value is not what was stored: see [`State::update_mut`].
    lost: bool,
    /// The file is marked as closed.
    closed: bool,
}

impl<T> Writer<T> {
    /// Refuses to store where nothing may be.
    fn check(&self, read_only: bool) -> Result<()> {
        if read_only {
            return Err(Error::new(Operation::Write, ErrorKind::ReadOnly));
        }
        if primitive!("state.lost", self.lost, false) {
            let kind =
                ErrorKind::Damaged("a change failed, and the value before could not be read");
            return Err(Error::new(Operation::Write, kind));
        }
        Ok(())
    }
}

impl<T: Plain> State<T> {
    /// Creates the file, which must not exist, with this value, durable on return. It is just long
    /// enough. [`StateOptions`] has more choices.
    ///
    /// # Errors
    ///
    /// As [`Options::draft`](crate::Options::draft) and
    /// [`Draft::commit`](crate::publish::Draft::commit); `Os(EEXIST)`.
    pub fn create(path: impl AsRef<Path>, value: &T) -> Result<Self> {
        StateOptions::new().create(path, value)
    }

    /// Opens the file. See [`StateOptions::open_region`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        StateOptions::new().open(path)
    }

    /// Opens the file, or creates it with this value if there is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(path: impl AsRef<Path>, value: &T) -> Result<Self> {
        StateOptions::new().open_or_create(path, value)
    }
}

impl<T: Plain, R: Region> State<T, R> {
    /// The value of the last store that has returned `Ok`.
    pub fn load(&self) -> T {
        self.with(copy_of)
    }

    /// Looks at the same value without a copy of it. Other loads, and the end of a store, wait
    /// meanwhile.
    #[inline]
    pub fn with<O>(&self, look: impl FnOnce(&T) -> O) -> O {
        look(lock(&self.current).get())
    }

    /// Replaces the value, durable on return.
    ///
    /// # Errors
    ///
    /// `ReadOnly`, and those of [`Region::write_flush`] and [`Region::drain`]. The value in memory
    /// is then the one before. On the medium it is this one or the one before where
    /// [`Error::is_durability_unknown`] says so; otherwise it is the one before.
    pub fn store(&self, value: &T) -> Result<()> {
        self.replace(|writer| writer.image.set(value))
    }

    /// Changes the value, durable on return; returns what the closure returned. If the closure
    /// panics, nothing has changed. It must not store into the same state: it would wait for itself.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store).
    pub fn update<O>(&self, change: impl FnOnce(&mut T) -> O) -> Result<O> {
        self.replace(|writer| {
            if !std::mem::replace(&mut writer.whole, false) {
                writer.image.copy_from(&lock(&self.current));
            }
            change(writer.image.value())
        })
    }

    #[inline]
    fn replace<O>(&self, fill: impl FnOnce(&mut Writer<T>) -> O) -> Result<O> {
        let writer = &mut *lock(&self.writer);
        writer.check(self.read_only)?;
        let sequence = cell::next(writer.sequence)?;
        let result = fill(writer);
        writer.whole = false;
        // Some of it may reach the medium even if this fails.
        writer.settled = false;
        let Writer { image, spare, .. } = writer;
        let word = (sequence, self.version);
        // The copy for the loads: made while the value is on its way, and shown when it is durable.
        let copy = |image: &[u8]| spare.bytes().copy_from_slice(image);
        self.cell.store_image(&self.region, image.bytes(), word, size_of::<T>(), copy)?;
        writer.sequence = sequence;
        std::mem::swap(&mut *lock(&self.current), &mut writer.spare);
        writer.whole = true;
        Ok(result)
    }

    /// As [`update`](Self::update), of a state that nobody else is looking at: in its place, without
    /// locks and without a copy. On persistent memory 4 KiB take about half as long, since the next
    /// value's check value is computed while the last one is still on its way.
    ///
    /// If it fails, or the closure panics, the value before is read back from the region. Should
    /// that fail as well, [`load`](Self::load) gives the value as the closure left it, and nothing
    /// can be stored any more, by [`close`](Self::close) neither: open the state anew.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store); `Damaged` after a value could not be read back.
    pub fn update_mut<O>(&mut self, change: impl FnOnce(&mut T) -> O) -> Result<O> {
        let Self { region, cell, version, current, writer, .. } = self;
        let writer = writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        let current = current.get_mut().unwrap_or_else(PoisonError::into_inner);
        writer.check(self.read_only)?;
        let sequence = cell::next(writer.sequence)?;
        writer.whole = false;
        let mut undo = Undo { region, cell, version: *version, writer, current, done: false };
        let result = change(undo.current.value());
        undo.writer.settled = false;
        let (image, word) = (undo.current.bytes(), (sequence, *version));
        cell.store_image(region, image, word, size_of::<T>(), |_| ())?;
        undo.writer.sequence = sequence;
        undo.done = true;
        Ok(result)
    }

    /// Reads the value anew from a region that another process stores into: for a state that was
    /// opened for reading. True if there was a newer one. It may be one whose store has not
    /// returned, and that a crash may still take back.
    ///
    /// # Errors
    ///
    /// As [`StateOptions::open_region`]; `OtherLayout` if the writer upgraded it meanwhile.
    pub fn refresh(&self) -> Result<bool> {
        let writer = &mut *lock(&self.writer);
        if !self.read_only {
            return Ok(false);
        }
        let found = options::read_newest(&self.region, &self.cell)?;
        if found.0.sequence <= writer.sequence {
            return Ok(false);
        }
        let value = options::decode::<T>(&found.0, self.version)?;
        writer.sequence = found.0.sequence;
        lock(&self.current).set(&value);
        Ok(true)
    }

    /// What the open found and did.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// Number of the store whose value this is, counted from 1, which is the first value.
    pub fn sequence(&self) -> u64 {
        lock(&self.writer).sequence
    }

    /// What a store that has returned `Ok` survives.
    pub fn durability(&self) -> Durability {
        self.region.durability()
    }

    /// The region. What is written to it through this reference, the state does not notice.
    pub fn region(&self) -> &R {
        &self.region
    }

    /// Writes the value to both slots, so that no single damage costs it, and closes the region.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store) and [`Region::close`].
    pub fn close(self) -> Result<()> {
        let settled = self.finish();
        let closed = self.region.close();
        settled.and(closed)
    }

    /// Gives the state up without touching the region again, as if the process had been killed: for
    /// tests of what a crash leaves. [`close`](Self::close) is the orderly way.
    pub fn abandon(self) {
        lock(&self.writer).closed = true;
    }
}

/// Puts the value before back unless the change of it was done.
struct Undo<'a, T: Plain, R: Region> {
    region: &'a R,
    cell: &'a Cell,
    version: u32,
    writer: &'a mut Writer<T>,
    current: &'a mut Image<T>,
    done: bool,
}

impl<T: Plain, R: Region> Drop for Undo<'_, T, R> {
    #[inline]
    fn drop(&mut self) {
        if !self.done {
            self.read_back();
        }
    }
}

impl<T: Plain, R: Region> Undo<'_, T, R> {
    #[cold]
    fn read_back(&mut self) {
        // It is in the slot that the change did not go to.
        let before = self.cell.read(self.region, self.writer.sequence);
        let value = match before {
            Ok(CellSlot::Valid(stored)) if stored.sequence == self.writer.sequence => {
                options::decode::<T>(&stored, self.version).ok()
            }
            _ => None,
        };
        match value {
            Some(value) => self.current.set(&value),
            None => self.writer.lost = true,
        }
    }
}

impl<T: Plain, R: Region> State<T, R> {
    /// Writes the current value to both slots, then the mark that the file is closed.
    fn finish(&self) -> Result<()> {
        let writer = &mut *lock(&self.writer);
        if writer.check(self.read_only).is_err()
            || writer.closed
            || self.process != crate::region::process::mark()
        {
            return Ok(());
        }
        if !writer.settled {
            let value = lock(&self.current).get().as_bytes().to_vec();
            let newest = Stored { sequence: writer.sequence, version: self.version, value };
            self.cell.settle(&self.region, &mut Vec::new(), &newest)?;
            writer.settled = true;
        }
        opening::close(&self.region, self.key)?;
        writer.closed = true;
        Ok(())
    }
}

impl<T: Plain, R: Region> Drop for State<T, R> {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

impl<T: Plain, R: Region> fmt::Debug for State<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("version", &self.version)
            .field("read_only", &self.read_only)
            .field("recovery", &self.recovery)
            .finish_non_exhaustive()
    }
}

fn copy_of<T: Plain>(value: &T) -> T {
    let copy = T::read_from_bytes(value.as_bytes());
    copy.unwrap_or_else(|_| unreachable!("the bytes of a T are as many as a T has"))
}

/// A closure that panicked has left nothing half done that is used later.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
