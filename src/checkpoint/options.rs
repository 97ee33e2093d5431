//! How a working set is made and opened.

use std::path::Path;

use rustix::io::Errno;

use super::settings::{KEEP_MAX, Settings};
use super::{Strategy, WorkingSet, file};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::format::check::Key;
use crate::format::header::{Header, Kind};
use crate::format::opening;
use crate::format::salts::Salts;
use crate::publish::Commit;
use crate::region::{AnyRegion, Region};

/// Options for making and opening a working set.
///
/// ```no_run
/// # fn main() -> daxmap::Result<()> {
/// use daxmap::checkpoint;
///
/// let mut set = checkpoint::Options::new(64 << 20).keep(3).open_or_create("/var/lib/game/world")?;
/// set.write(0, b"one cell")?;
/// set.checkpoint()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) bytes: u64,
    pub(super) keep: Option<u32>,
    pub(super) seed: Option<u64>,
    pub(super) from: Option<u64>,
    pub(super) read_only: bool,
    pub(super) compare: bool,
    pub(super) refuse_unsafe_shutdown: bool,
    strategy: Option<Strategy>,
    file_bytes: Option<u64>,
    region: crate::Options,
}

impl Options {
    /// A working set of so many bytes, at least 1; 0, for opening, stands for whatever the file
    /// has. Nothing kept but the newest checkpoint.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self {
            bytes,
            keep: None,
            seed: None,
            from: None,
            read_only: false,
            compare: false,
            refuse_unsafe_shutdown: false,
            strategy: None,
            file_bytes: None,
            region: crate::Options::new(),
        }
    }

    /// How many earlier checkpoints are kept besides the newest: 0 to [`KEEP_MAX`]. A file keeps
    /// at most as many as it was made for; fewer can be asked for when it is opened, and those in
    /// excess go with the next checkpoint. Default: as many as the file was made for; a new file, 0.
    #[must_use]
    pub const fn keep(mut self, checkpoints: u32) -> Self {
        self.keep = Some(checkpoints);
        self
    }

    /// Length of a new file in bytes. Default: as much as lets every checkpoint succeed, however
    /// much changes: two and [`keep`](Self::keep) times the set, and the page tables. A
    /// checkpoint that finds no room in a smaller file is refused with [`ErrorKind::Full`] and
    /// changes nothing; [`WorkingSet::grow`] makes room.
    #[must_use]
    pub const fn file_bytes(mut self, bytes: u64) -> Self {
        self.file_bytes = Some(bytes);
        self
    }

    /// How checkpoints of a new file reach it. Default: what is cheapest there
    /// ([`WorkingSet::strategy`] says which). [`Strategy::Redo`] keeps no earlier checkpoints, and
    /// a file for it has always its full length.
    #[must_use]
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = Some(strategy);
        self
    }

    /// How the file is opened and created: level, permission bits, emulation. Its length is
    /// decided here.
    #[must_use]
    pub fn region(mut self, options: crate::Options) -> Self {
        self.region = options;
        self
    }

    /// Open for reading only: nothing is healed, nothing can be saved, and another may have the
    /// file open for writing. If that one saves faster than this one can read, for a second, opening
    /// fails with [`ErrorKind::Busy`].
    #[must_use]
    pub fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    /// Refuses, with [`ErrorKind::UnsafeShutdown`], to open a file after an unsafe shutdown of its
    /// memory, or where it is not known that there was none: on a disk, that is always. Default:
    /// false; [`Recovery::unsafe_shutdown`](super::Recovery::unsafe_shutdown) has what is known.
    #[must_use]
    pub const fn refuse_unsafe_shutdown(mut self, yes: bool) -> Self {
        self.refuse_unsafe_shutdown = yes;
        self
    }

    /// Opens the file at this kept checkpoint, for when the newest one is damaged. Those after it
    /// go when the next checkpoint is durable: a crash before that leaves them as they were, unless
    /// the region has no room for them beside it.
    #[must_use]
    pub const fn from_checkpoint(mut self, sequence: u64) -> Self {
        self.from = Some(sequence);
        self
    }

    /// Finds stores through pointers by comparison, even where the kernel could tell
    /// ([`Tracking`](super::Tracking)).
    #[must_use]
    pub const fn compare(mut self, yes: bool) -> Self {
        self.compare = yes;
        self
    }

    /// For simulated runs, which must repeat: the salt of a new file follows from the seed instead
    /// of coming from the kernel, and no checkpoint is given a time. A file whose salt can be
    /// guessed is safe against accidents, not against chosen content.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes a file of this name, with a working set of zeros, and opens it. The name shows a
    /// complete file at every moment, or none.
    ///
    /// # Errors
    ///
    /// `Os(EEXIST)`; `Empty` for a set of 0 bytes; `TooLarge`; as
    /// [`daxmap::Options::draft`](crate::Options::draft) and
    /// [`Draft::commit`](crate::publish::Draft::commit).
    pub fn create(&self, path: impl AsRef<Path>) -> Result<WorkingSet<AnyRegion>> {
        let path = path.as_ref();
        let create = || {
            if self.read_only {
                return Err(Error::new(Operation::Create, ErrorKind::ReadOnly));
            }
            // What suits the region is known when there is one: room for either.
            let both = [Strategy::Shadow, Strategy::Redo].map(|strategy| self.settings(strategy));
            let [shadow, redo] = both.map(|settings| settings.map(|s| file::file_bytes(&s)));
            let len = match (self.strategy, self.file_bytes) {
                (_, Some(len)) => len,
                (Some(Strategy::Redo), None) => redo?,
                (Some(Strategy::Shadow), None) => shadow?,
                (None, None) if self.keep.unwrap_or(0) > 0 => shadow?,
                (None, None) => shadow?.max(redo?),
            };
            let draft = self.region.clone().len(len).draft(path)?;
            self.format(&*draft)?;
            WorkingSet::open(draft.commit(Commit::CreateOnly)?, self)
        };
        create().map_err(|error: Error| error.at(path))
    }

    /// Opens an existing file and restores its last complete checkpoint. A file that is no
    /// checkpoint file is left as it is.
    ///
    /// # Errors
    ///
    /// Those of [`daxmap::Options::open`](crate::Options::open), `Locked` for a second writer among
    /// them, and of [`WorkingSet::open`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<WorkingSet<AnyRegion>> {
        let path = path.as_ref();
        let region = self.region.for_any_length().read_only(self.read_only).open(path)?;
        WorkingSet::open(region, self).map_err(|error| error.at(path))
    }

    /// Opens the file, or makes it if there is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(&self, path: impl AsRef<Path>) -> Result<WorkingSet<AnyRegion>> {
        const RACES: u32 = 8;
        let path = path.as_ref();
        let mut result = self.open(path);
        for _ in 0..RACES {
            // Somebody else may create or remove the file between two attempts.
            result = match result {
                Err(error) if error.errno() == Some(Errno::NOENT) => self.create(path),
                Err(error) if error.errno() == Some(Errno::EXIST) => self.open(path),
                decided => return decided,
            };
        }
        result
    }

    /// What a new file with this strategy is made for.
    fn settings(&self, strategy: Strategy) -> Result<Settings> {
        let refuse = |kind| Err(Error::new(Operation::Create, kind));
        let keep = self.keep.unwrap_or(0);
        // A hundredth of the address space, with everything that is kept of it.
        let max = (u64::MAX >> 8) / u64::from(KEEP_MAX);
        if self.bytes == 0 {
            return refuse(ErrorKind::Empty);
        }
        if self.bytes > max {
            return refuse(ErrorKind::TooLarge { max });
        }
        if keep > KEEP_MAX {
            return refuse(ErrorKind::TooLarge { max: u64::from(KEEP_MAX) });
        }
        if keep > 0 && strategy == Strategy::Redo {
            return refuse(ErrorKind::Unsupported("earlier checkpoints, with a redo record"));
        }
        Ok(Settings { bytes: self.bytes, keep, strategy, file_bytes: 0 })
    }

    /// Writes a working set of zeros into a region; durable on return.
    pub(super) fn format(&self, region: &impl Region) -> Result<()> {
        let len = region.len();
        let suits = Strategy::for_region(region.granularity(), self.keep.unwrap_or(0)).0;
        let mut settings = self.settings(self.strategy.unwrap_or(suits))?;
        if self.strategy.is_none() && len < file::least_bytes(&settings) {
            settings = self.settings(Strategy::Shadow)?;
        }
        let least = file::least_bytes(&settings);
        if len < least {
            return Err(Error::new(Operation::Create, ErrorKind::TooShort { len, asked: least }));
        }
        settings.file_bytes = len;
        let salt = self.seed.map_or(Salts::Kernel, Salts::seeded).draw()?;
        let header = settings.header(salt);
        // Whatever was here is no more, before anything new is.
        Header::erase(region, Kind::Checkpoint)?;
        opening::write_new(region, Key::new(salt), false)?;
        // By a drain of its own: every state that a crash can leave of a creation can be tried.
        region.drain()?;
        file::format(region, &settings, Key::new(salt))?;
        header.complete(region)
    }
}
