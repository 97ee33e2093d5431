//! How pages are made and opened.

use std::path::Path;
use std::sync::RwLock;

use rustix::io::Errno;

use super::records::{self, Records};
use super::{FIRST, Pages, Recovery, Way, Writer, file_len};
use crate::UnsafeShutdown;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::format::header::{Found, Header, Kind};
use crate::format::opening;
use crate::format::salts::Salts;
use crate::publish::Commit;
use crate::region::{Lock, Options, Region};

/// The only format version there is: versions before it had no opening mark, and no pages.
const FORMAT: u32 = 2;

/// Options and flags for making and opening [`Pages`].
#[derive(Clone, Debug)]
pub struct PageOptions {
    read_only: bool,
    refuse_unsafe_shutdown: bool,
    kernel: bool,
    seed: Option<u64>,
    region: Options,
}

impl Default for PageOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl PageOptions {
    /// For reading and writing, by a record, and [`Options::new`] for files.
    #[must_use]
    pub fn new() -> Self {
        Self {
            read_only: false,
            refuse_unsafe_shutdown: false,
            kernel: false,
            seed: None,
            region: Options::new(),
        }
    }

    /// Open for reading: nothing is changed, and writes fail. What a crash has interrupted is completed
    /// in memory only. Takes a shared lock, so that nobody writes meanwhile. Default: **false**.
    #[must_use]
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// Whether pages are written by the kernel where it offers that ([`Way::Kernel`]), and by a record
    /// elsewhere. Default: **false**, always by a record.
    ///
    /// For devices that write a page whole themselves (`queue/atomic_write_unit_max_bytes` in sysfs is
    /// not 0). On others, xfs does it by copy-on-write: on a loop device a page of 4 to 64 KiB took 8 to 17
    /// times what the record takes (`benches/pages.rs`, Linux 6.18, on a busy machine). A page that the kernel wrote
    /// whole is not in the page cache: the next read is one of the device.
    #[must_use]
    pub fn kernel(mut self, yes: bool) -> Self {
        self.kernel = yes;
        self
    }

    /// Refuses, with [`ErrorKind::UnsafeShutdown`], to open pages after an unsafe shutdown of their
    /// memory, or where it is not known that there was none: on a disk, that is always. Default:
    /// **false**; [`Recovery::unsafe_shutdown`] has what is known.
    #[must_use]
    pub fn refuse_unsafe_shutdown(mut self, yes: bool) -> Self {
        self.refuse_unsafe_shutdown = yes;
        self
    }

    /// Draws the salt of a new file from this seed and not from the kernel: for simulated runs, which
    /// must repeat. A salt that can be guessed lets bytes that were chosen before pass for a record.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How the file is opened and created: the level it must give, its permission bits, and so on.
    /// Length, access and lock are the pages' own matter.
    #[must_use]
    pub fn region(mut self, options: Options) -> Self {
        self.region = options;
        self
    }

    /// Creates the file, which must not exist, with `bytes` bytes of pages, all zero, durable on return.
    /// The file is [`FIRST`] bytes longer. A file of this name is always complete.
    ///
    /// # Errors
    ///
    /// As [`Options::draft`] and [`Draft::commit`](crate::publish::Draft::commit); `Os(EEXIST)`.
    pub fn create(&self, path: impl AsRef<Path>, bytes: u64) -> Result<Pages> {
        let path = path.as_ref();
        let create = || {
            self.check_writable()?;
            let len = file_len(Operation::Create, bytes)?;
            let draft = self.region.clone().len(len).lock(Lock::Exclusive).draft(path)?;
            let key = self.write_new(&*draft)?;
            let region = draft.commit(Commit::CreateOnly)?;
            let new = made(&region);
            Ok(self.assemble(region, key, new, Records::default()))
        };
        create().map_err(|error: Error| error.at(path))
    }

    /// Opens the file. What a crash has interrupted is complete on return.
    ///
    /// # Errors
    ///
    /// As [`Options::open`] and [`open_region`](Self::open_region).
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Pages> {
        let path = path.as_ref();
        let lock = if self.read_only { Lock::Shared } else { Lock::Exclusive };
        let options = self.region.for_any_length().read_only(self.read_only).lock(lock);
        self.open_region(options.open(path)?).map_err(|error| error.at(path))
    }

    /// Opens the file, or creates it with `bytes` bytes of pages if there is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(&self, path: impl AsRef<Path>, bytes: u64) -> Result<Pages> {
        const RACES: u32 = 8;
        let path = path.as_ref();
        let mut result = self.open(path);
        for _ in 0..RACES {
            // Somebody else may create or remove the file between two attempts.
            result = match result {
                Err(error) if error.errno() == Some(Errno::NOENT) => self.create(path, bytes),
                Err(error) if error.errno() == Some(Errno::EXIST) => self.open(path),
                decided => return decided,
            };
        }
        result
    }

    /// Makes pages of a region, durable on return. The pages are what the region has from [`FIRST`] on.
    ///
    /// # Errors
    ///
    /// `TooShort`; those of writing and draining.
    pub fn format<R: Region>(&self, region: R) -> Result<Pages<R>> {
        self.check_writable()?;
        let key = self.write_new(&region)?;
        let new = made(&region);
        Ok(self.assemble(region, key, new, Records::default()))
    }

    /// Opens the pages that a region holds, and completes what a crash has interrupted. Nobody else
    /// writes to the region, of which this is the only [`Pages`].
    ///
    /// Open the region with [`Lock::Exclusive`], the default: only the lock keeps a second writer out.
    /// Without it, each writer reads what the other wrote, but overwrites the other's records. A power
    /// loss can then tear a page that was acknowledged, and neither writer notices.
    ///
    /// # Errors
    ///
    /// `WrongFormat` if the region holds something else, or nothing; `NewerFormat`; `UnsafeShutdown` if
    /// that is refused; `TooShort` if it was cut; `Damaged` if both copies of the header are; and those
    /// of reading and writing.
    pub fn open_region<R: Region>(&self, region: R) -> Result<Pages<R>> {
        let Found::Header { header, copies } = Header::find(&region, Kind::Pages, FORMAT..=FORMAT)?
        else {
            return Err(Error::new(Operation::Open, ErrorKind::WrongFormat(Kind::Pages.name())));
        };
        check_len(&region, Operation::Open)?;
        let key = Key::new(header.salt);
        let mark = opening::check(&region, &header, self.refuse_unsafe_shutdown)?;
        let found = records::find(&region, key)?;
        let header_invalid = copies < 2 || mark.is_damaged();
        let recovery = Recovery {
            clean: found.is_empty() && !header_invalid,
            completed: found.len() as u32,
            header_invalid,
            unsafe_shutdown: mark.unsafe_shutdown,
        };
        if self.read_only {
            let mut unlaid = Vec::new();
            for record in &found {
                unlaid.extend(records::pages(&region, key, record)?);
            }
            let mut pages = self.assemble(region, key, recovery, Records::default());
            pages.unlaid = unlaid;
            return Ok(pages);
        }
        opening::begin(&region, key, &header, FORMAT)?.heal(&region)?;
        records::complete(&region, key, &found)?;
        opening::told(&region, key)?;
        Ok(self.assemble(region, key, recovery, Records::after(&found)))
    }

    fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::new(Operation::Create, ErrorKind::ReadOnly));
        }
        Ok(())
    }

    /// Everything but a name.
    fn write_new(&self, region: &impl Region) -> Result<Key> {
        check_len(region, Operation::Create)?;
        let salt = self.seed.map_or(Salts::Kernel, Salts::seeded).draw()?;
        let header = Header { kind: Kind::Pages, version: FORMAT, salt, numbers: [0; 4] };
        Header::erase(region, Kind::Pages)?;
        records::erase(region)?;
        let key = Key::new(salt);
        opening::write_new(region, key, true)?;
        region.drain()?;
        header.complete(region)?;
        Ok(key)
    }

    fn assemble<R: Region>(
        &self,
        region: R,
        key: Key,
        recovery: Recovery,
        records: Records,
    ) -> Pages<R> {
        let way = if self.kernel { Way::Kernel } else { Way::Record };
        Pages {
            region,
            key,
            read_only: self.read_only,
            recovery,
            process: crate::region::process::mark(),
            writer: RwLock::new(Writer { way, records, closed: false }),
            unlaid: Vec::new(),
        }
    }
}

/// Of pages that were just made.
fn made(region: &impl Region) -> Recovery {
    let unsafe_shutdown =
        region.shutdowns().map_or(UnsafeShutdown::Unknown, |_| UnsafeShutdown::None);
    Recovery { clean: true, unsafe_shutdown, ..Recovery::default() }
}

fn check_len(region: &impl Region, operation: Operation) -> Result<()> {
    let len = region.len();
    if len < FIRST {
        return Err(Error::new(operation, ErrorKind::TooShort { len, asked: FIRST }));
    }
    Ok(())
}
