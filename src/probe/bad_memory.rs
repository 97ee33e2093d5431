//! Which memory is known to be bad: of one path, or of all persistent memory, mounted or not.
//!
//! The kernel lists the errors of a region from the region's start (`regionX/badblocks`), and those of
//! a pmem block device from the device's (`pmemX/badblocks`). A device-DAX node has no list: its
//! part of the region's is found by the addresses of both. A file's part is found by its extents.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::bad_in::BadIn;
use super::block::{self, Context};
use super::devdax::{self, DaxDevice};
use super::facts;
use super::memory_reasons as words;
use super::mountinfo::Mounts;
use super::nvdimm;
use super::report::{BlockDevice, MemoryRegion, Report, Target};
use super::sources::Sources;
use crate::error::{Error, Operation, Result};
use crate::reason::remedy::Remedy;

/// What is known to be bad of a file, a device or a region.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadMemory {
    /// The path that was asked for, the device node, or the kernel name of a region.
    pub name: PathBuf,
    /// What that is.
    pub kind: BadIn,
    /// Where it is mounted, or is a file of; `None` for what is not mounted.
    pub mount: Option<PathBuf>,
    /// The ranges known to be bad, in bytes from the start of the thing named, sorted.
    pub ranges: Vec<Range<u64>>,
    /// False if more may be known to be bad than could be listed: `notes` say why.
    pub is_complete: bool,
    /// The regions that hold it, with their memory devices, their scrubs, and whether a write clears
    /// an error. A region of several devices spreads each range over all of them.
    pub regions: Vec<MemoryRegion>,
    /// What limits this answer.
    pub notes: Vec<String>,
    /// What clears the errors, or replaces what they took; `None` if there are none.
    pub remedy: Option<Remedy>,
}

impl Report {
    /// What is known to be bad of the path; of a directory, what is of the device under it. `None`
    /// for a path that can hold nothing, or does not exist.
    ///
    /// # Examples
    ///
    /// ```
    /// let report = daxmap::probe::probe(std::env::current_exe()?)?;
    /// let bad = report.bad_memory().expect("a program is a file");
    /// assert_eq!(bad.kind, daxmap::probe::BadIn::File);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn bad_memory(&self) -> Option<BadMemory> {
        let mount = self.mount.as_ref().map(|mount| mount.point.clone());
        let part = |name: &Path, kind, ranges: &[Range<u64>], is_known| Part {
            name: name.to_owned(),
            kind,
            mount: mount.clone(),
            ranges: ranges.to_vec(),
            is_known,
            namespace: self.namespace.as_ref().and_then(|found| found.claims.clone()),
        };
        let part = match self.target {
            Target::File => part(&self.path, BadIn::File, &self.bad_ranges, self.bad_ranges_known),
            Target::DaxDevice => {
                part(&self.path, BadIn::DaxDevice, &self.bad_ranges, self.bad_ranges_known)
            }
            Target::BlockDevice => {
                part(&self.path, BadIn::BlockDevice, &self.bad_ranges, self.bad_ranges_known)
            }
            Target::Directory => {
                let device = self.device.as_ref()?;
                let name = Path::new("/dev").join(&device.name);
                part(&name, BadIn::BlockDevice, &device.bad_blocks, self.bad_ranges_known)
            }
            Target::Missing | Target::Other => return None,
        };
        Some(part.judge(self.regions.clone()))
    }
}

/// What is known to be bad of every region of persistent memory that the nvdimm drivers show, and of
/// every device on one, mounted or not. Regions first, each followed by its devices.
///
/// # Errors
///
/// `/sys/bus` is not there (`ENOENT`): nothing can be told then.
pub fn bad_memory() -> Result<Vec<BadMemory>> {
    let sources = Sources::system();
    if sources.is_absent(Path::new("/sys/bus")) {
        let error = Error::os(Operation::Probe, "open", Errno::NOENT);
        return Err(error.at(Path::new("/sys/bus/nd/devices")));
    }
    let mounts = Mounts::of(&sources);
    Ok(everything(&Context::new(&sources, &mounts, rustix::param::page_size() as u64)))
}

/// What [`bad_memory`] gives, of any tree.
pub(super) fn everything(context: &Context<'_>) -> Vec<BadMemory> {
    let bus = Path::new("/sys/bus/nd/devices");
    let sources = context.sources;
    let mut out = Vec::new();
    for name in sources.names(bus) {
        let Some(directory) = sources.link(bus.join(&name)) else { continue };
        let Some(region) = nvdimm::region_at(sources, &directory) else { continue };
        let part = Part {
            name: PathBuf::from(&region.name),
            kind: BadIn::Region,
            mount: None,
            ranges: region.bad_blocks.clone(),
            is_known: region.bad_blocks_known,
            namespace: None,
        };
        out.push(part.judge(vec![region]));
        for claim in sources.names(&directory) {
            on_namespace(context, &directory.join(claim), &mut out);
        }
    }
    out
}

/// The block device or device-DAX node of a namespace, or of what claimed it.
fn on_namespace(context: &Context<'_>, claim: &Path, out: &mut Vec<BadMemory>) {
    let sources = context.sources;
    for name in sources.names(claim.join("block")) {
        let number = sources.device(claim.join("block").join(name).join("dev"));
        let Some(device) = number.and_then(|number| block::device(context, number)) else {
            continue;
        };
        let mount = context.mounts().by_device(device.number).map(|mount| mount.point.clone());
        let part = Part {
            name: Path::new("/dev").join(&device.name),
            kind: BadIn::BlockDevice,
            mount,
            ranges: device.bad_blocks.clone(),
            is_known: facts::bad_blocks_are_its_own(&device),
            namespace: None,
        };
        out.push(part.judge(regions(&device)));
    }
    for name in sources.names(claim) {
        let Some(found) = devdax::at(sources, &claim.join(&name)) else { continue };
        let DaxDevice { namespace, region, bad_ranges } = found;
        let part = Part {
            name: Path::new("/dev").join(name),
            kind: BadIn::DaxDevice,
            mount: None,
            is_known: bad_ranges.is_some(),
            ranges: bad_ranges.unwrap_or_default(),
            namespace: namespace.claims,
        };
        out.push(part.judge(vec![region]));
    }
}

fn regions(device: &BlockDevice) -> Vec<MemoryRegion> {
    facts::regions(device).into_iter().cloned().collect()
}

/// The ranges of one thing, before it is said what they mean.
struct Part {
    name: PathBuf,
    kind: BadIn,
    mount: Option<PathBuf>,
    ranges: Vec<Range<u64>>,
    is_known: bool,
    /// The namespace of a device-DAX node.
    namespace: Option<String>,
}

impl Part {
    fn judge(self, regions: Vec<MemoryRegion>) -> BadMemory {
        let mut notes = Vec::new();
        if regions.is_empty() {
            notes.push(words::not_on_memory(&self.name));
        }
        if !self.is_known {
            notes.push(words::not_all_told(&self.name, self.kind, &regions));
        }
        // Their errors are in a list of their own, that of the device.
        let hidden = regions.iter().filter(|region| region.provider == "CXL");
        for region in hidden.clone() {
            notes.push(words::poison_list(region));
        }
        let is_complete = self.is_known && hidden.count() == 0;
        let is_bad = !self.ranges.is_empty();
        let remedy =
            is_bad.then(|| words::clearing(self.kind, &regions, self.namespace.as_deref()));
        let Self { name, kind, mount, ranges, .. } = self;
        BadMemory { name, kind, mount, ranges, is_complete, regions, notes, remedy }
    }
}
