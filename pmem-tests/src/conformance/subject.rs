//! What a backend under test must be able to do.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use daxmap::probe::Report;
use daxmap::{AnyRegion, Backend, Durability, Granularity, Options, Region, Result};

/// How to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The only writer.
    ReadWrite,
    /// A reader.
    ReadOnly,
    /// One more writer, without the advisory lock.
    Unlocked,
}

/// What is known about a subject beforehand, from elsewhere than the library.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The backend its regions must name.
    pub backend: Backend,
    /// The level they must name.
    pub durability: Durability,
    /// The flush unit they must name.
    pub granularity: Granularity,
    /// Whether they must call themselves emulated.
    pub emulated: bool,
    /// Lengths are multiples of this many bytes.
    pub len_unit: u64,
    /// Whether the regions are opened with the fault guard.
    pub guarded: bool,
    /// Whether they lend out memory to store into.
    pub writable_views: bool,
}

/// A backend: makes regions of files that it finds again by name.
pub trait Subject: Sync {
    /// What to call it in a report.
    fn name(&self) -> &str;

    /// What its regions must say of themselves.
    fn facts(&self) -> Facts;

    /// A region of `len` bytes of zero in a file that does not exist yet, growable to `max_len`.
    /// Where lengths have a unit, `len` is rounded up to it.
    fn create(&self, file: &str, len: u64, max_len: u64) -> Result<Box<dyn Region>>;

    /// Opens a file made by `create`, at its full length.
    fn open(&self, file: &str, access: Access) -> Result<Box<dyn Region>>;

    /// Opens a file made by `create` with options that `change` makes of the subject's; `None` if the
    /// subject has none.
    fn opened_with(
        &self,
        file: &str,
        change: &dyn Fn(Options) -> Options,
    ) -> Option<Result<AnyRegion>> {
        let _ = (file, change);
        None
    }

    /// A file made by `create`, open for reading and writing; `None` if it cannot be made a region of.
    fn file(&self, file: &str) -> Option<File> {
        let _ = file;
        None
    }

    /// A region of an open file; `None` if there are no options to make it with.
    fn adopt(&self, file: File) -> Option<Result<AnyRegion>> {
        let _ = file;
        None
    }

    /// The report of a region of this file, and the region it was taken from; `None` if the
    /// subject makes none.
    fn report(&self, file: &str) -> Option<(Report, Box<dyn Region>)>;

    /// Sets the file's length as another process would. `false` if this cannot be done.
    fn cut(&self, file: &str, len: u64) -> bool;

    /// The file's bytes as another process would read them with read(2); `None` if it cannot.
    fn stored(&self, file: &str) -> Option<Vec<u8>>;

    /// Removes the file, if it is there.
    fn remove(&self, file: &str);
}

fn with_access(options: &Options, access: Access) -> Options {
    match access {
        Access::ReadWrite => options.clone(),
        Access::ReadOnly => options.clone().read_only(true),
        Access::Unlocked => options.clone().lock(false),
    }
}

fn taken(region: AnyRegion) -> (Report, Box<dyn Region>) {
    (region.report().clone(), Box::new(region))
}

/// Files in a directory.
#[derive(Debug)]
pub struct FileSubject {
    name: String,
    directory: PathBuf,
    options: Options,
    facts: Facts,
}

impl FileSubject {
    /// Regions made with these options in this directory, which must exist.
    #[must_use]
    pub fn new(name: &str, directory: impl Into<PathBuf>, options: Options, facts: Facts) -> Self {
        Self { name: name.to_owned(), directory: directory.into(), options, facts }
    }
}

impl Subject for FileSubject {
    fn name(&self) -> &str {
        &self.name
    }

    fn facts(&self) -> Facts {
        self.facts
    }

    fn create(&self, file: &str, len: u64, max_len: u64) -> Result<Box<dyn Region>> {
        let options = self.options.clone().len(len).max_len(max_len);
        Ok(Box::new(options.create(self.directory.join(file))?))
    }

    fn open(&self, file: &str, access: Access) -> Result<Box<dyn Region>> {
        Ok(Box::new(with_access(&self.options, access).open(self.directory.join(file))?))
    }

    fn opened_with(
        &self,
        file: &str,
        change: &dyn Fn(Options) -> Options,
    ) -> Option<Result<AnyRegion>> {
        Some(change(self.options.clone()).open(self.directory.join(file)))
    }

    fn file(&self, file: &str) -> Option<File> {
        File::options().read(true).write(true).open(self.directory.join(file)).ok()
    }

    fn adopt(&self, file: File) -> Option<Result<AnyRegion>> {
        Some(self.options.from_file(file))
    }

    fn report(&self, file: &str) -> Option<(Report, Box<dyn Region>)> {
        Some(taken(self.options.open(self.directory.join(file)).ok()?))
    }

    fn cut(&self, file: &str, len: u64) -> bool {
        let file = File::options().write(true).open(self.directory.join(file));
        file.and_then(|file| file.set_len(len)).is_ok()
    }

    fn stored(&self, file: &str) -> Option<Vec<u8>> {
        fs::read(self.directory.join(file)).ok()
    }

    fn remove(&self, file: &str) {
        let _ = fs::remove_file(self.directory.join(file));
    }
}

/// Files without a name, in memory.
#[derive(Debug)]
pub struct MemorySubject {
    name: String,
    options: Options,
    facts: Facts,
    files: Mutex<HashMap<String, OwnedFd>>,
}

impl MemorySubject {
    /// Regions made in memory with these options.
    #[must_use]
    pub fn new(name: &str, options: Options, facts: Facts) -> Self {
        Self { name: name.to_owned(), options, facts, files: Mutex::default() }
    }

    /// A way to the file that opens it anew.
    fn path(&self, file: &str) -> PathBuf {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = files.get(file).map_or(-1, AsRawFd::as_raw_fd);
        format!("/proc/self/fd/{fd}").into()
    }
}

impl Subject for MemorySubject {
    fn name(&self) -> &str {
        &self.name
    }

    fn facts(&self) -> Facts {
        self.facts
    }

    fn create(&self, file: &str, len: u64, max_len: u64) -> Result<Box<dyn Region>> {
        let region = self.options.clone().len(len).max_len(max_len).in_memory()?;
        // A description of its own: a duplicate would share the lock.
        let own = format!("/proc/self/fd/{}", AsFd::as_fd(&region).as_raw_fd());
        let own = File::open(own).expect("an open file can be opened again through /proc");
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(file.to_owned(), own.into());
        Ok(Box::new(region))
    }

    fn open(&self, file: &str, access: Access) -> Result<Box<dyn Region>> {
        Ok(Box::new(with_access(&self.options, access).open(self.path(file))?))
    }

    fn opened_with(
        &self,
        file: &str,
        change: &dyn Fn(Options) -> Options,
    ) -> Option<Result<AnyRegion>> {
        Some(change(self.options.clone()).open(self.path(file)))
    }

    fn file(&self, file: &str) -> Option<File> {
        File::options().read(true).write(true).open(self.path(file)).ok()
    }

    fn adopt(&self, file: File) -> Option<Result<AnyRegion>> {
        Some(self.options.from_file(file))
    }

    fn report(&self, file: &str) -> Option<(Report, Box<dyn Region>)> {
        Some(taken(self.options.open(self.path(file)).ok()?))
    }

    fn cut(&self, file: &str, len: u64) -> bool {
        let file = File::options().write(true).open(self.path(file));
        file.and_then(|file| file.set_len(len)).is_ok()
    }

    fn stored(&self, file: &str) -> Option<Vec<u8>> {
        fs::read(self.path(file)).ok()
    }

    fn remove(&self, file: &str) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(file);
    }
}

/// A device-DAX node: one device, used for one file after another.
#[derive(Debug)]
pub struct DeviceSubject {
    name: String,
    device: PathBuf,
    options: Options,
    facts: Facts,
    /// Length of the file that the device holds now.
    len: Mutex<u64>,
}

impl DeviceSubject {
    /// Regions of this device, whose alignment is `facts.len_unit`.
    #[must_use]
    pub fn new(name: &str, device: impl Into<PathBuf>, options: Options, facts: Facts) -> Self {
        let (name, device) = (name.to_owned(), device.into());
        Self { name, device, options, facts, len: Mutex::new(0) }
    }

    fn options(&self, access: Access) -> Options {
        let len = *self.len.lock().unwrap_or_else(PoisonError::into_inner);
        with_access(&self.options, access).view(len)
    }
}

impl Subject for DeviceSubject {
    fn name(&self) -> &str {
        &self.name
    }

    fn facts(&self) -> Facts {
        self.facts
    }

    fn create(&self, _file: &str, len: u64, _max_len: u64) -> Result<Box<dyn Region>> {
        let len = len.next_multiple_of(self.facts.len_unit);
        *self.len.lock().unwrap_or_else(PoisonError::into_inner) = len;
        let region = self.options(Access::ReadWrite).open(&self.device)?;
        region.fill_flush(0, len, 0)?;
        region.drain()?;
        Ok(Box::new(region))
    }

    fn open(&self, _file: &str, access: Access) -> Result<Box<dyn Region>> {
        Ok(Box::new(self.options(access).open(&self.device)?))
    }

    fn opened_with(
        &self,
        _file: &str,
        change: &dyn Fn(Options) -> Options,
    ) -> Option<Result<AnyRegion>> {
        Some(change(self.options(Access::ReadWrite)).open(&self.device))
    }

    fn report(&self, _file: &str) -> Option<(Report, Box<dyn Region>)> {
        Some(taken(self.options(Access::ReadWrite).open(&self.device).ok()?))
    }

    fn cut(&self, _file: &str, _len: u64) -> bool {
        false
    }

    fn stored(&self, _file: &str) -> Option<Vec<u8>> {
        None
    }

    fn remove(&self, _file: &str) {}
}
