//! How a state is made and opened.

use std::fmt;
use std::path::Path;
use std::sync::Mutex;

use rustix::io::Errno;

use super::image::Image;
use super::{FORMAT, FORMATS, Plain, Recovery, State, Writer};
use crate::UnsafeShutdown;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::cell::{self, Cell, Other, Stored};
use crate::format::check::Key;
use crate::format::header::{Found, HEADER_AREA, Header, Kind};
use crate::format::opening;
use crate::format::salts::Salts;
use crate::primitives::primitive;
use crate::publish::Commit;
use crate::region::{Options, Region};

type Upgrade<T> = dyn Fn(u32, &[u8]) -> Option<T> + Send + Sync;

/// Options and flags for making and opening a [`State`].
///
/// ```
/// use daxmap::state::{State, StateOptions};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("place");
/// // A longitude alone, in the first version of the program.
/// State::create(&path, &9.75_f64.to_bits())?.close()?;
///
/// // The second has a latitude as well.
/// let place = StateOptions::new()
///     .version(2)
///     .upgrade(|_version, bytes| {
///         let longitude = u64::from_ne_bytes(bytes.try_into().ok()?);
///         Some([longitude, 0.0_f64.to_bits()])
///     })
///     .open(&path)?;
/// assert_eq!(place.load()[0], 9.75_f64.to_bits());
/// assert_eq!(place.recovery().upgraded_from, Some(1));
/// # Ok::<(), daxmap::Error>(())
/// ```
pub struct StateOptions<T> {
    version: u32,
    capacity: u32,
    read_only: bool,
    refuse_unsafe_shutdown: bool,
    seed: Option<u64>,
    upgrade: Option<Box<Upgrade<T>>>,
    region: Options,
}

impl<T: Plain> Default for StateOptions<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Plain> StateOptions<T> {
    /// Layout version 1, room as the value's pages have it, no upgrade, and
    /// [`Options::new`] for files.
    #[must_use]
    pub fn new() -> Self {
        Self {
            version: 1,
            capacity: 0,
            read_only: false,
            refuse_unsafe_shutdown: false,
            seed: None,
            upgrade: None,
            region: Options::new(),
        }
    }

    /// The version of the value's layout: another number whenever the type changes, and a larger
    /// one, so that [`upgrade`](Self::upgrade) knows what it is given. Default: 1.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Makes a value of one with an older version of the layout: given that version and the bytes.
    /// Its result is durable before the open returns. With `None`, or without such a function,
    /// the open fails with [`ErrorKind::OtherLayout`] and changes nothing.
    #[must_use]
    pub fn upgrade(
        mut self,
        upgrade: impl Fn(u32, &[u8]) -> Option<T> + Send + Sync + 'static,
    ) -> Self {
        self.upgrade = Some(Box::new(upgrade));
        self
    }

    /// How large the value may ever become by upgrades, in bytes: decided when the state is made.
    /// Default: the size of `T`; in any case rounded up to what its pages have room for, which is
    /// 4072 bytes at least.
    #[must_use]
    pub fn capacity(mut self, bytes: u32) -> Self {
        self.capacity = bytes;
        self
    }

    /// Open for reading: nothing is changed, healed or locked, and stores fail. An upgraded value
    /// is in memory only. Default: false.
    #[must_use]
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// Refuses, with [`ErrorKind::UnsafeShutdown`], to open a state after an unsafe shutdown of its
    /// memory, or where it is not known that there was none: on a disk, that is always. Default:
    /// false; [`Recovery::unsafe_shutdown`] has what is known.
    #[must_use]
    pub fn refuse_unsafe_shutdown(mut self, yes: bool) -> Self {
        self.refuse_unsafe_shutdown = yes;
        self
    }

    /// Draws the salt of a new state from this seed and not from the kernel: for simulated runs,
    /// which must repeat. A salt that can be guessed lets bytes that were chosen before pass for a
    /// value that was stored.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How the file is opened and created: the level it must give, its permission bits, and so on.
    /// Length and access are the state's own matter.
    #[must_use]
    pub fn region(mut self, options: Options) -> Self {
        self.region = options;
        self
    }

    /// Creates the file, which must not exist, with this value, durable on return. A file of this
    /// name is always a complete state.
    ///
    /// # Errors
    ///
    /// As [`Options::draft`] and [`Draft::commit`](crate::publish::Draft::commit); `Os(EEXIST)`.
    pub fn create(&self, path: impl AsRef<Path>, value: &T) -> Result<State<T>> {
        let path = path.as_ref();
        let create = || {
            self.check_writable()?;
            let draft = self.region.clone().len(self.region_bytes()).draft(path)?;
            let places = self.write_new(&*draft, value)?;
            let region = draft.commit(Commit::CreateOnly)?;
            let new = made(&region);
            Ok(self.assemble(region, places, value, new))
        };
        create().map_err(|error: Error| error.at(path))
    }

    /// Opens the file. An empty or a blank one is none of this library's.
    ///
    /// # Errors
    ///
    /// As [`Options::open`] and [`open_region`](Self::open_region).
    pub fn open(&self, path: impl AsRef<Path>) -> Result<State<T>> {
        let path = path.as_ref();
        let region = self.region.for_any_length().read_only(self.read_only).open(path)?;
        self.open_region(region).map_err(|error| error.at(path))
    }

    /// Opens the file, or creates it with this value if there is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(&self, path: impl AsRef<Path>, value: &T) -> Result<State<T>> {
        const RACES: u32 = 8;
        let path = path.as_ref();
        let mut result = self.open(path);
        for _ in 0..RACES {
            // Somebody else may create or remove the file between two attempts.
            result = match result {
                Err(error) if error.errno() == Some(Errno::NOENT) => self.create(path, value),
                Err(error) if error.errno() == Some(Errno::EXIST) => self.open(path),
                decided => return decided,
            };
        }
        result
    }

    /// Makes a state of a region, whatever it holds, with this value, durable on return. The
    /// region is [`region_bytes`] long at least.
    ///
    /// # Errors
    ///
    /// `TooShort`; those of writing and draining.
    pub fn format<R: Region>(&self, region: R, value: &T) -> Result<State<T, R>> {
        self.check_writable()?;
        let places = self.write_new(&region, value)?;
        let new = made(&region);
        Ok(self.assemble(region, places, value, new))
    }

    /// Opens the state that a region holds, and makes whole what is not: a damaged copy of the
    /// header, the slot that a crash has torn.
    ///
    /// # Errors
    ///
    /// `WrongFormat` if the region holds something else, or nothing; `NewerFormat`; `UnsafeShutdown`
    /// if that is refused; `TooShort` if it was cut; `OtherLayout`; `Damaged` if both copies of something are; `TooLarge` if an
    /// upgraded value has no room; and those of reading and, for healing, of writing.
    pub fn open_region<R: Region>(&self, region: R) -> Result<State<T, R>> {
        match Header::find(&region, Kind::State, FORMATS)? {
            Found::Header { header, copies } => self.recover(region, &header, copies),
            Found::Blank => {
                Err(Error::new(Operation::Open, ErrorKind::WrongFormat(Kind::State.name())))
            }
        }
    }

    /// Opens the state that a region holds, or makes one if the first two pages of the region are zero
    /// or hold what a crash left of the making of one.
    ///
    /// # Errors
    ///
    /// As [`open_region`](Self::open_region) and [`format`](Self::format).
    pub fn open_or_format<R: Region>(&self, region: R, value: &T) -> Result<State<T, R>> {
        match Header::find(&region, Kind::State, FORMATS)? {
            Found::Header { header, copies } => self.recover(region, &header, copies),
            Found::Blank => self.format(region, value),
        }
    }

    fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::new(Operation::Create, ErrorKind::ReadOnly));
        }
        Ok(())
    }

    fn room(&self) -> u32 {
        Cell::roomy(self.capacity.max(size_of::<T>() as u32))
    }

    fn region_bytes(&self) -> u64 {
        region_bytes(self.room())
    }

    /// Everything but a name.
    fn write_new(&self, region: &impl Region, value: &T) -> Result<(Cell, Key)> {
        check_len(region, Operation::Create, self.region_bytes())?;
        let salts = self.seed.map_or(Salts::Kernel, Salts::seeded);
        let salt = salts.draw()?;
        let header = Header {
            kind: Kind::State,
            version: FORMAT,
            salt,
            numbers: [u64::from(self.room()), 0, 0, 0],
        };
        Header::erase(region, Kind::State)?;
        let key = Key::new(salt);
        let cell = Cell::new(HEADER_AREA, self.room(), key);
        let stored =
            Stored { sequence: 1, version: self.version, value: value.as_bytes().to_vec() };
        let mut buffer = Vec::with_capacity(Cell::buffer_bytes(self.room()));
        let mut write_value = || {
            opening::write_new(region, key, true)?;
            cell.settle(region, &mut buffer, &stored)
        };
        primitive!(
            "state.value_before_header",
            write_value().and_then(|()| header.complete(region)),
            header.complete(region).and_then(|()| write_value())
        )?;
        Ok((cell, key))
    }

    fn recover<R: Region>(&self, region: R, header: &Header, copies: u8) -> Result<State<T, R>> {
        let capacity = capacity(header)?;
        check_len(&region, Operation::Open, HEADER_AREA + Cell::bytes(capacity))?;
        let key = Key::new(header.salt);
        let cell = Cell::new(HEADER_AREA, capacity, key);
        let mark = opening::check(&region, header, self.refuse_unsafe_shutdown)?;
        let (header_invalid, mark_invalid) = (copies < 2, mark.is_damaged());
        let (mut newest, other) = read_newest(&region, &cell)?;
        let upgraded = self.upgraded(&newest, capacity)?;
        let mut recovery = Recovery {
            clean: !header_invalid && !mark_invalid && other == Other::Same,
            sequence: newest.sequence,
            slot_invalid: matches!(other, Other::Invalid | Other::Blank),
            header_invalid,
            mark_invalid,
            healed: false,
            upgraded_from: upgraded.as_ref().map(|_| newest.version),
            unsafe_shutdown: mark.unsafe_shutdown,
        };
        if primitive!("state.read_only", !self.read_only, true) {
            let buffer = &mut Vec::with_capacity(Cell::buffer_bytes(capacity));
            let header = opening::begin(&region, key, header, FORMAT)?;
            header.heal(&region)?;
            // Even if both slots look the same: the process that made them so may have been killed
            // before its drain.
            primitive!("state.heal", cell.settle(&region, buffer, &newest), Ok(()))?;
            recovery.healed = !recovery.clean;
            if let Some(value) = &upgraded {
                let sequence = cell::next(newest.sequence)?;
                let bytes = value.as_bytes();
                cell.store(&region, buffer, sequence, self.version, bytes)?;
                newest = Stored { sequence, version: self.version, value: bytes.to_vec() };
                cell.settle(&region, buffer, &newest)?;
                recovery.sequence = sequence;
            }
        }
        let value = match upgraded {
            Some(value) => value,
            None => decode(&newest, self.version)?,
        };
        if !self.read_only {
            opening::told(&region, key)?;
        }
        Ok(self.assemble(region, (cell, key), &value, recovery))
    }

    /// The value that the upgrade makes of an older one; none if it is of this version.
    fn upgraded(&self, newest: &Stored, capacity: u32) -> Result<Option<T>> {
        if newest.version >= self.version {
            return decode::<T>(newest, self.version).map(|_| None);
        }
        let value = self.upgrade.as_ref().and_then(|make| make(newest.version, &newest.value));
        let value = value.ok_or_else(|| other_layout::<T>(newest, self.version))?;
        if size_of::<T>() > capacity as usize {
            let too_large = ErrorKind::TooLarge { max: u64::from(capacity) };
            return Err(Error::new(Operation::Open, too_large));
        }
        Ok(Some(value))
    }

    fn assemble<R: Region>(
        &self,
        region: R,
        (cell, key): (Cell, Key),
        value: &T,
        recovery: Recovery,
    ) -> State<T, R> {
        let writer = Writer {
            image: Image::of(value),
            spare: Image::of(value),
            sequence: recovery.sequence,
            whole: true,
            settled: true,
            lost: false,
            closed: false,
        };
        State {
            region,
            cell,
            key,
            version: self.version,
            read_only: self.read_only,
            recovery,
            process: crate::region::process::mark(),
            current: Mutex::new(Image::of(value)),
            writer: Mutex::new(writer),
        }
    }
}

/// Of a state that was just made.
fn made(region: &impl Region) -> Recovery {
    let unsafe_shutdown =
        region.shutdowns().map_or(UnsafeShutdown::Unknown, |_| UnsafeShutdown::None);
    Recovery { clean: true, sequence: 1, unsafe_shutdown, ..Recovery::default() }
}

/// Bytes that a region needs for a state with room for values of `capacity` bytes.
#[must_use]
pub const fn region_bytes(capacity: u32) -> u64 {
    HEADER_AREA + Cell::bytes(Cell::roomy(capacity))
}

/// The room that the header says there is.
pub(super) fn capacity(header: &Header) -> Result<u32> {
    u32::try_from(header.numbers[0]).map_err(|_| {
        let damaged = ErrorKind::Damaged("a header with room for more than 4 GiB");
        Error::new(Operation::Open, damaged)
    })
}

pub(super) fn check_len(region: &impl Region, operation: Operation, asked: u64) -> Result<()> {
    let len = region.len();
    if len < asked {
        return Err(Error::new(operation, ErrorKind::TooShort { len, asked }));
    }
    Ok(())
}

/// The newest value, and what the other slot has.
pub(super) fn read_newest(region: &impl Region, cell: &Cell) -> Result<(Stored, Other)> {
    // Another process that stores may change both slots while they are read: not this often.
    const TRIES: u32 = 16;
    for _ in 0..TRIES {
        let found = cell.find(region)?;
        if let Some(newest) = found.newest {
            return Ok((newest, found.other));
        }
    }
    let damaged = ErrorKind::Damaged("both slots of the value");
    Err(Error::new(Operation::Open, damaged).over(HEADER_AREA, region.len() - HEADER_AREA))
}

/// The value, if it is of this layout.
pub(super) fn decode<T: Plain>(stored: &Stored, version: u32) -> Result<T> {
    let value = T::read_from_bytes(&stored.value).ok().filter(|_| stored.version == version);
    value.ok_or_else(|| other_layout::<T>(stored, version))
}

fn other_layout<T>(stored: &Stored, version: u32) -> Error {
    let kind = ErrorKind::OtherLayout {
        found: stored.version,
        found_bytes: stored.value.len() as u32,
        expected: version,
        expected_bytes: size_of::<T>() as u64,
    };
    Error::new(Operation::Open, kind)
}

impl<T> fmt::Debug for StateOptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateOptions")
            .field("version", &self.version)
            .field("capacity", &self.capacity)
            .field("read_only", &self.read_only)
            .field("upgrade", &self.upgrade.is_some())
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}
