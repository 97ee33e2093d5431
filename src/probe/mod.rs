//! What lies under a path: the facts, the verdict, and what to change.
//!
//! [`probe`] answers for a path, [`probe_file`] for a file that is already open, and [`mounts`] lists
//! where files can be. All read only, need no privilege and no library of others; a FIFO or a
//! socket is never opened, and of block devices only a loop device, to ask which file it has, and an
//! NVMe device to which the kernel sends no flushes, to ask its controller whether it needs them.
//!
//! The trial mapping of the very file decides whether it is DAX; every other fact explains. Facts
//! come from one module each: statx, the trial mapping and ioctls of the open file (`subject`, `trial`, `ioctl`),
//! one mount (`statmount`), the mount table (`mountinfo`), block devices (`block`), nvdimm namespaces and regions (`nvdimm`),
//! their devices (`nmem`), device DAX (`devdax`), bad ranges (`badblocks`), huge page alignment (`extents`). `gather` collects
//! them; `verdict` judges them, by the table of layers in `layers` and the obstacles in `obstacles`;
//! `reasons` has the words.
//!
//! ```
//! let report = daxmap::probe::probe("/tmp")?;
//! println!("{}", report.verdict_sentence());
//! for reason in &report.reasons {
//!     println!("{reason}");
//! }
//! # Ok::<(), daxmap::Error>(())
//! ```

mod bad_in;
mod bad_memory;
mod badblocks;
mod block;
mod commands;
mod devdax;
mod device_mapper;
mod extents;
mod facts;
mod fallbacks;
mod filesystem;
mod filesystem_log;
mod gather;
mod ioctl;
mod layers;
mod loop_device;
mod memory_device;
mod memory_reasons;
mod mounted;
mod mountinfo;
mod nmem;
mod nvdimm;
mod nvme;
mod obstacles;
mod overlay;
mod prediction;
mod read_only;
mod reasons;
mod report;
mod sentence;
mod shutdowns;
mod sources;
mod statmount;
mod subject;
mod traces;
mod trial;
mod verdict;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use crate::reason::{Recipe, Remedy};
pub use bad_in::BadIn;
pub use bad_memory::{BadMemory, bad_memory};
pub(crate) use fallbacks::SYNC_NAMES;
pub use fallbacks::{FALLBACKS, Fallback};
pub use memory_device::{MemoryDevice, Security};
pub use report::{
    BlockDevice, Cap, FilesystemLog, HugePages, Layer, LoopImage, MapSync, Mapping, MemoryRegion,
    Mount, Namespace, Reason, ReasonCode, Report, Scrubs, Target, WriteCache,
};
pub use shutdowns::Shutdowns;

pub(crate) use reasons::{HUGETLBFS, cached_pages_stay};

use crate::cpu::WriteBack;
use crate::durability::Durability;
use crate::error::{Error, Operation, Result};
use block::Context;
use filesystem::Class;
pub(crate) use filesystem::overwrites_in_place;
use gather::Question;
use mountinfo::Mounts;
use sources::Sources;
use subject::{OpenFile, Subject};
pub(crate) use trial::map_sync as try_map_sync;

/// Links followed to a name that does not exist yet, as in `path_resolution(7)`.
const LINKS_MAX: usize = 40;

/// Reports on a path: a regular file, a directory, a mount point, a block device, a device-DAX
/// node, or a name that does not exist yet, for which its directory answers.
///
/// Nothing is changed, no lease is broken and no access time moves: the path is opened with `O_PATH`,
/// and for reading only if it is a directory, device DAX, or a DAX file on which nobody may have a
/// lease and whose access time this user may leave alone. Another DAX file is reported with
/// [`MapSync::Predicted`], and any other file as refused, as the kernel refuses what is not DAX.
///
/// # Errors
///
/// The errno of open(2) if the path cannot be reached: `ENOENT` for a missing directory on the way,
/// `EACCES` for one that may not be searched. A DAX file that exists but may not be read is reported,
/// with [`MapSync::NotTried`].
pub fn probe(path: impl AsRef<Path>) -> Result<Report> {
    Look::new().at(path.as_ref())
}

/// Reports on a file that is already open, in any mode; `path` is what the report calls it.
///
/// Everything is asked of the descriptor: its path may have been renamed, replaced or never have
/// existed (`O_TMPFILE`, memfd).
///
/// # Errors
///
/// The errno of statx(2).
pub fn probe_file(fd: BorrowedFd<'_>, path: &Path) -> Result<Report> {
    Look::new().report(fd, path, false)
}

/// The mount points of every mounted filesystem that can hold files, sorted, each once. Interfaces
/// of the kernel (proc, sysfs, cgroup, devpts, devtmpfs, ...) are left out, and so are mounts whose
/// point is a single file. Filesystems are not asked anything, so a dead server delays nothing.
///
/// # Errors
///
/// The mount table `/proc/self/mountinfo` cannot be read.
pub fn mounts() -> Result<Vec<PathBuf>> {
    Prober::new().mounts()
}

/// Answers for many paths, in time in proportion to their number: the mount table is read at most
/// once, and only for what the kernel does not tell of one mount.
///
/// ```
/// let prober = daxmap::probe::Prober::new();
/// for point in prober.mounts()? {
///     println!("{}", prober.probe(&point)?.verdict_sentence());
/// }
/// # Ok::<(), daxmap::Error>(())
/// ```
#[derive(Debug)]
pub struct Prober(Look);

impl Default for Prober {
    fn default() -> Self {
        Self::new()
    }
}

impl Prober {
    /// Reads nothing yet. From the first time that the mount table is needed, such as in
    /// [`mounts`](Self::mounts), what is mounted later is not seen.
    #[must_use]
    pub fn new() -> Self {
        Self(Look::new())
    }

    /// As [`mounts`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn mounts(&self) -> Result<Vec<PathBuf>> {
        if self.0.mounts.is_empty() {
            let error = Error::os(Operation::Probe, "open", Errno::NOENT);
            return Err(error.at(Path::new("/proc/self/mountinfo")));
        }
        let is_file = |point: &Path| std::fs::metadata(point).is_ok_and(|found| found.is_file());
        Ok(storage(&self.0.mounts, is_file))
    }

    /// As [`probe`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn probe(&self, path: impl AsRef<Path>) -> Result<Report> {
        self.0.at(path.as_ref())
    }
}

/// The running system, with its mount table, once that was read.
#[derive(Debug)]
struct Look {
    sources: Sources,
    mounts: Mounts,
}

impl Look {
    fn new() -> Self {
        let sources = Sources::system();
        let mounts = Mounts::of(&sources);
        Self { sources, mounts }
    }

    fn at(&self, path: &Path) -> Result<Report> {
        let failed = |errno| Error::os(Operation::Probe, "open", errno).at(path);
        match open_path(path) {
            Ok(fd) => self.report(fd.as_fd(), path, false),
            Err(Errno::NOENT) => {
                let directory = directory_of_missing(path).map_err(failed)?;
                self.report(directory.as_fd(), path, true)
            }
            Err(errno) => Err(failed(errno)),
        }
    }

    fn report(&self, fd: BorrowedFd<'_>, path: &Path, missing: bool) -> Result<Report> {
        let subject = OpenFile::new(&self.sources, fd)
            .map_err(|errno| Error::os(Operation::Probe, "statx", errno).at(path))?;
        let question = Question {
            path,
            missing,
            page_size: rustix::param::page_size() as u64,
            write_back: WriteBack::detect(),
        };
        Ok(inspect(&self.sources, &self.mounts, &subject, question))
    }
}

fn storage(mounts: &Mounts, is_file: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let holds_files = |mount: &&Mount| {
        let class = filesystem::class(&mount.filesystem);
        // Only bind mounts can be of a single file; a server, or what may be one, is not asked.
        let may_wait = matches!(class, Class::Layered | Class::Unknown);
        let bind = mount.root != Path::new("/") && !may_wait;
        class != Class::Pseudo && mount.filesystem != "devtmpfs" && !(bind && is_file(&mount.point))
    };
    let mut points: Vec<PathBuf> =
        mounts.iter().filter(holds_files).map(|mount| mount.point.clone()).collect();
    points.sort_unstable();
    points.dedup();
    points
}

/// Gathers and judges, from any tree and any subject.
fn inspect(
    sources: &Sources,
    mounts: &Mounts,
    subject: &dyn Subject,
    question: Question<'_>,
) -> Report {
    let context = Context::new(sources, mounts, question.page_size);
    verdict::judge(gather::gather(&context, subject, question))
}

/// Lowers the level of a report by what was met after it was made, in its filesystem.
pub(crate) fn lower(report: &mut Report, level: Durability, text: String, advice: &str) {
    let reason = ReasonCode::LayerUnverified;
    let (layer, evidence) = (Layer::Filesystem, text.clone());
    report.caps.push(Cap { layer, level, evidence, reason: Some(reason) });
    report.durability = report.durability.min(level);
    let remedy = Some(Remedy::advice(advice));
    report.reasons.push(Reason { code: reason, text, remedy });
}

fn open_path(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// The directory in which creating `path` would make a file, through dangling links.
fn directory_of_missing(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if path.file_name().is_none() {
            return Err(Errno::NOENT);
        }
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new(".")).to_owned();
        match std::fs::read_link(&path) {
            Ok(target) => path = parent.join(target),
            Err(_) => return open_path(&parent),
        }
    }
    Err(Errno::LOOP)
}

#[cfg(test)]
mod tests;
