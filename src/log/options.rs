//! How a log is made and opened.

use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::cell::Cell;
use crate::format::check::Key;
use crate::format::header::{Found, Header, Kind};
use crate::format::opening;
use crate::format::salts::Salts;
use crate::publish::Commit;
use crate::region::{AnyRegion, Options, Region};

use super::layout::Layout;
use super::recovery;
use super::root::{Root, RootCell};
use super::segment::{Headers, SegmentHeader};
use super::survey::{How, Shorter};
use super::{Log, VERSION, VERSIONS};

/// Options for making and opening a log, in a file or in any region.
///
/// ```
/// use daxmap::Options;
/// use daxmap::log::LogOptions;
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("wal");
/// let region = Options::new().len(64 << 20);
/// let log = LogOptions::new().region(region).segment_bytes(1 << 20).open_or_create(&path)?;
/// log.append(b"a record")?;
/// log.close()?;
/// # Ok::<(), daxmap::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    region: Options,
    segment: Option<u64>,
    seed: Option<u64>,
    read_only: bool,
    accept_damage: bool,
    refuse_unsafe_shutdown: bool,
}

impl LogOptions {
    /// Read and write, the region's defaults, sixteen segments of at most 64 MiB, random salts.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            region: Options::new(),
            segment: None,
            seed: None,
            read_only: false,
            accept_damage: false,
            refuse_unsafe_shutdown: false,
        }
    }

    /// How the region of a file is created and opened: the level of durability it must have, and so
    /// on. Its length is that of a new file. A log that exists has the length of its file, be that
    /// shorter or, after [`Log::grow`], longer.
    #[must_use]
    pub fn region(mut self, options: Options) -> Self {
        self.region = options;
        self
    }

    /// Bytes of a segment, of a new log: a multiple of 4096 from 12288 to 2 GiB. 8192 of them are not
    /// for records. A segment is what is recycled at a time, and what each writer has; a commit fits
    /// in one. Default: a sixteenth of the region, from 16 KiB to 64 MiB.
    #[must_use]
    pub const fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment = Some(bytes);
        self
    }

    /// Makes salts a sequence that this seed determines, so that a simulated run can be repeated.
    /// For tests: whoever knows the salts can make bytes that a torn write turns into records.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Opens for reading only: nothing is repaired, and the file is not changed. Default: false.
    ///
    /// Another process may have the log open for writing. What is found is then the log as it was at a
    /// moment of the opening, without gaps; if records are truncated during every attempt, opening fails with
    /// [`ErrorKind::Busy`]. What is released or truncated later is reported by the reader that meets it.
    ///
    /// A copy of the file that was made while it was in use has parts of different moments. Opening it
    /// fails with [`ErrorKind::DamagedRecords`] where records are missing that the log knew to be durable;
    /// a gap among the newest ones, which it did not know yet, is not recognised. Copy a closed log.
    #[must_use]
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self.region = self.region.read_only(yes);
        self
    }

    /// Opens a log in which records are damaged, and passes over them. Without it, opening such a
    /// log fails with [`ErrorKind::DamagedRecords`]. [`Recovery`](super::Recovery) has all of the
    /// damage. The damaged bytes stay until their segment is released. Records of which nothing is left are
    /// given up by the first opening for writing: later ones report them as `missing`.
    #[must_use]
    pub const fn accept_damage(mut self, yes: bool) -> Self {
        self.accept_damage = yes;
        self
    }

    /// Refuses, with [`ErrorKind::UnsafeShutdown`], to open a log after an unsafe shutdown of its
    /// memory, or where it is not known that there was none: on a disk, that is always. Default:
    /// false; [`Recovery::unsafe_shutdown`](super::Recovery::unsafe_shutdown) has what is known.
    #[must_use]
    pub const fn refuse_unsafe_shutdown(mut self, yes: bool) -> Self {
        self.refuse_unsafe_shutdown = yes;
        self
    }

    /// Creates the file, which must not exist, with an empty log in it. A file of this name is
    /// always a whole log.
    ///
    /// # Errors
    ///
    /// As [`Options::create`] and [`format`](Self::format).
    pub fn create(&self, path: impl AsRef<Path>) -> Result<Log<AnyRegion>> {
        let path = path.as_ref();
        let create = || {
            let draft = self.region.draft(path)?;
            self.lay_out(&*draft)?;
            self.open_region(draft.commit(Commit::CreateOnly)?)
        };
        create().map_err(|error: Error| error.at(path))
    }

    /// Opens the log in a file, and recovers it.
    ///
    /// # Errors
    ///
    /// As [`Options::open`] and [`open_region`](Self::open_region).
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Log<AnyRegion>> {
        let path = path.as_ref();
        let region = || self.region.for_any_length().open(path);
        let open =
            || if self.read_only { self.open_beside(region) } else { self.open_region(region()?) };
        open().map_err(|error: Error| error.at(path))
    }

    /// Opens for reading, in a region that is had again if the log was made longer meanwhile.
    pub(super) fn open_beside<R: Region>(&self, region: impl Fn() -> Result<R>) -> Result<Log<R>> {
        let mut opened = region()?;
        loop {
            let len = opened.len();
            match self.recover(opened, Shorter::Told) {
                Err(error) if matches!(error.kind(), ErrorKind::TooShort { .. }) => {
                    opened = region()?;
                    if opened.len() <= len {
                        // A log is made longer after its file is.
                        let accepted = self.accept_damage;
                        let cut = if accepted { Shorter::Accepted } else { Shorter::Damaged };
                        return self.recover(opened, cut);
                    }
                }
                decided => return decided,
            }
        }
    }

    /// Opens the log in a file, or creates it if there is no file.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(&self, path: impl AsRef<Path>) -> Result<Log<AnyRegion>> {
        const RACES: u32 = 8;
        let path = path.as_ref();
        let mut result = self.open(path);
        for _ in 0..RACES {
            result = match result {
                Err(error) if error.errno() == Some(Errno::NOENT) => self.create(path),
                Err(error) if error.errno() == Some(Errno::EXIST) => self.open(path),
                decided => return decided,
            };
        }
        result
    }

    /// Makes an empty log of a region, whatever is in it. After a crash inside, the region holds no
    /// log.
    ///
    /// # Errors
    ///
    /// `TooShort` for fewer than two segments, `Unaligned` or `TooLarge` for the size of a segment;
    /// those of the region.
    pub fn format<R: Region>(&self, region: R) -> Result<Log<R>> {
        self.lay_out(&region)?;
        self.open_region(region)
    }

    /// Opens the log in a region: finds every whole record, drops a commit that a crash has cut, and
    /// repairs what is damaged in one of two copies.
    ///
    /// # Errors
    ///
    /// `WrongFormat` if there is no log, `NewerFormat`, `OlderFormat`; `UnsafeShutdown` if that is
    /// refused; `Damaged` or `DamagedRecords`, with the range, if something that was durable is not there;
    /// `TooShort`, for reading only, if the region is shorter than the log: it was cut, or somebody else
    /// made the log longer since the region was opened. Those of the region.
    pub fn open_region<R: Region>(&self, region: R) -> Result<Log<R>> {
        self.recover(
            region,
            match (self.read_only, self.accept_damage) {
                (false, _) => Shorter::Damaged,
                (true, false) => Shorter::Told,
                (true, true) => Shorter::Accepted,
            },
        )
    }

    fn recover<R: Region>(&self, region: R, shorter: Shorter) -> Result<Log<R>> {
        let (header, copies) = match Header::find(&region, Kind::Log, VERSIONS)? {
            Found::Header { header, copies } => (header, copies),
            Found::Blank => {
                let kind = ErrorKind::WrongFormat(Kind::Log.name());
                return Err(Error::new(Operation::Open, kind));
            }
        };
        let how = How {
            salts: self.salts(header.salt),
            read_only: self.read_only,
            accepts_damage: self.accept_damage,
            refuses_unsafe_shutdown: self.refuse_unsafe_shutdown,
            shorter,
        };
        recovery::open(region, header, copies, how)
    }

    /// Opens the log in a region, or formats the region if its first two pages are zero, or if an
    /// earlier formatting was cut by a crash.
    ///
    /// # Errors
    ///
    /// As [`open_region`](Self::open_region) and [`format`](Self::format).
    pub fn open_or_format<R: Region>(&self, region: R) -> Result<Log<R>> {
        match Header::find(&region, Kind::Log, VERSIONS)? {
            Found::Blank => self.format(region),
            Found::Header { .. } => self.open_region(region),
        }
    }

    /// Seeded salts differ from one opening to the next, as those of the kernel do.
    fn salts(&self, with: u64) -> Salts {
        self.seed.map_or(Salts::Kernel, |seed| Salts::seeded(seed ^ with))
    }

    /// Writes an empty log, and the header last.
    fn lay_out(&self, region: &impl Region) -> Result<()> {
        self.lay_out_from(region, 0)
    }

    /// The same of a log whose records up to an Lsn are released.
    pub(super) fn lay_out_from(&self, region: &impl Region, released: u64) -> Result<()> {
        let layout = Layout::choose(region.len(), self.segment)?;
        Header::erase(region, Kind::Log)?;
        let salt = self.salts(0).draw()?;
        let key = Key::new(salt);
        let count = layout.count(region.len());
        let headers = Headers { layout, key };
        for segment in 0..count as usize {
            for copy in [0, 1] {
                headers.write(region, segment, copy, &SegmentHeader::UNUSED)?;
            }
        }
        opening::write_new(region, key, false)?;
        // The root's drain is theirs, too.
        let (floor, durable) = (released + 1, released);
        let new = Root { segments: count, closed: true, ..Root::default() };
        let root = Root { released, floor, durable, ..new };
        RootCell::format(Layout::root(key), region, root)?;
        let numbers = [layout.segment, 0, 0, 0];
        Header { kind: Kind::Log, version: VERSION, salt, numbers }.complete(region)
    }
}

const _: () = assert!(Cell::bytes(super::root::ROOT_BYTES) == 8192);
