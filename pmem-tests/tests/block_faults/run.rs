//! One history, run once on a device with one fault, and judged by what the medium holds.

use std::path::{Path, PathBuf};

use daxmap::{AnyRegion, Error, Options, Region};
use pmem_tests::blockdev::{Fault, FaultyDisk, Filesystem, Image, Keep, Log, Mounted};
use pmem_tests::random::Random;

use crate::history::{FILES, History, Step};
use crate::model::{Existence, FileModel, IDS_MAX, Id, pattern};
use crate::names::Names;

/// How a run ends, and with it which medium must hold what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The filesystem is unmounted, and may write what it still has to.
    Unmount,
    /// The power goes after the last step; the device had written all it was given.
    PowerCut,
    /// The power goes after the last step, and takes everything that no flush had made durable.
    PowerCutLosesCache,
    /// The power goes after the last step at the latest, and of what no flush had made durable,
    /// some writes are kept, and some are torn. The number is a seed of which.
    PowerCutKeepsSome(u64),
}

/// What a run showed.
pub struct Ran {
    /// The fault happened.
    pub fired: bool,
    /// Calls of the library that failed.
    pub errors: u32,
    /// What was promised and not kept.
    pub verdict: Result<(), String>,
}

pub fn path(directory: &Path, file: usize) -> PathBuf {
    directory.join(["first", "second"][file])
}

/// A file: its regions while it is open, one or two, and what was promised about it.
struct Slot {
    regions: Vec<AnyRegion>,
    /// Calls so far: with two regions, every other one is the second's.
    calls: usize,
    /// A call failed with a durability error: the region must refuse everything that follows.
    poisoned: bool,
    model: FileModel,
}

impl Slot {
    /// The region that the next call is made of.
    fn next(&self) -> usize {
        self.calls % self.regions.len().max(1)
    }
}

struct Runner<'a> {
    directory: &'a Path,
    slots: [Slot; FILES],
    names: Names,
    last_id: Id,
    errors: u32,
}

type Verdict<T> = Result<T, String>;

impl<'a> Runner<'a> {
    fn new(directory: &'a Path) -> Self {
        let slots = std::array::from_fn(|_| Slot {
            regions: Vec::new(),
            calls: 0,
            poisoned: false,
            model: FileModel::new(),
        });
        Self { directory, slots, names: Names::new(), last_id: 0, errors: 0 }
    }

    fn id(&mut self) -> Id {
        assert!(self.last_id < IDS_MAX, "a history has at most {IDS_MAX} writes");
        self.last_id += 1;
        self.last_id
    }

    fn step(&mut self, step: &Step) -> Verdict<()> {
        let path = |file| path(self.directory, file);
        match *step {
            Step::Create { file, len } => {
                let slot = &mut self.slots[file];
                let options = Options::new().len(len).max_len(1 << 20);
                if let Ok(region) = options.create(path(file)) {
                    slot.model.created(len);
                    slot.regions = vec![region];
                } else {
                    self.errors += 1;
                    slot.model.creation_failed(len);
                }
                Ok(())
            }
            Step::Foreign { file, len } => {
                let id = self.id();
                let data: Vec<u8> = (0..len).map(|at| pattern(id, at)).collect();
                self.slots[file].model.foreign(len);
                std::fs::write(path(file), data).map_err(|error| format!("not of daxmap: {error}"))
            }
            Step::Open { file } => self.open(file),
            Step::OpenTwice { file } => {
                self.open_twice(file);
                Ok(())
            }
            Step::Publish { how, len } => {
                self.errors += u32::from(self.names.publish(self.directory, how, len)?);
                Ok(())
            }
            Step::Close { file } => {
                for by in (0..self.slots[file].regions.len()).rev() {
                    if self.call_of(file, by, AnyRegion::close)? == Some(true) {
                        self.slots[file].model.drained(by);
                    }
                    self.slots[file].regions.truncate(by);
                }
                self.slots[file].poisoned = false;
                Ok(())
            }
            Step::Grow { file, len } => {
                let result = self.call(file, |region| region.grow(len))?;
                let model = &mut self.slots[file].model;
                match result {
                    Some(true) => model.grown(len),
                    Some(false) => model.growth_failed(len),
                    None => {}
                }
                Ok(())
            }
            Step::Drain { file } => {
                let by = self.slots[file].next();
                if self.call(file, AnyRegion::drain)? == Some(true) {
                    self.slots[file].model.drained(by);
                }
                Ok(())
            }
            Step::Flush { file, offset, len } => {
                let by = self.slots[file].next();
                if self.fits(file, offset, len)
                    && self.call(file, |region| region.flush(offset, len))? == Some(true)
                {
                    self.slots[file].model.flushed(by, offset, len);
                }
                Ok(())
            }
            Step::Write { file, offset, len } => {
                self.write(file, offset, len, AnyRegion::write).map(drop)
            }
            Step::WriteFlush { file, offset, len } => {
                let by = self.slots[file].next();
                if self.write(file, offset, len, AnyRegion::write_flush)? {
                    self.slots[file].model.flushed(by, offset, len);
                }
                Ok(())
            }
            Step::WritePersist { file, offset, len } => {
                let by = self.slots[file].next();
                if self.write(file, offset, len, AnyRegion::write_persist)? {
                    let model = &mut self.slots[file].model;
                    model.flushed(by, offset, len);
                    model.drained(by);
                }
                Ok(())
            }
            Step::StoreWord { file, offset } => {
                let store = |region: &AnyRegion, offset, data: &[u8]| {
                    let word = u64::from_ne_bytes(data.try_into().expect("eight bytes"));
                    region.store_u64(offset, word)
                };
                self.write(file, offset, 8, store).map(drop)
            }
        }
    }

    /// False after a growth that failed, for ranges past the end, and of the region that did not
    /// take part in a growth.
    fn fits(&self, file: usize, offset: u64, len: u64) -> bool {
        let slot = &self.slots[file];
        slot.regions.get(slot.next()).is_some_and(|region| offset + len <= region.len())
    }

    fn open_twice(&mut self, file: usize) {
        let slot = &mut self.slots[file];
        // A region that is opened beside a poisoned one begins a new life of the file: what the
        // poisoned ones refuse is not its affair.
        if slot.regions.len() != 1 || slot.poisoned {
            return;
        }
        match Options::new().max_len(1 << 20).lock(false).open(path(self.directory, file)) {
            Ok(region) => slot.regions.push(region),
            Err(_) => self.errors += 1,
        }
    }

    fn open(&mut self, file: usize) -> Verdict<()> {
        let slot = &mut self.slots[file];
        slot.regions.clear();
        slot.poisoned = false;
        let Ok(region) = Options::new().max_len(1 << 20).open(path(self.directory, file)) else {
            self.errors += 1;
            return Ok(());
        };
        let mut found = vec![0; region.len() as usize];
        match region.read(0, &mut found) {
            Ok(()) => {
                slot.model.recovered(&found).map_err(|why| format!("open shows: {why}"))?;
                slot.regions = vec![region];
            }
            Err(_) => self.errors += 1,
        }
        Ok(())
    }

    fn write(
        &mut self,
        file: usize,
        offset: u64,
        len: u64,
        call: impl FnOnce(&AnyRegion, u64, &[u8]) -> Result<(), Error>,
    ) -> Verdict<bool> {
        if !self.fits(file, offset, len) {
            return Ok(false);
        }
        let (id, by) = (self.id(), self.slots[file].next());
        let data: Vec<u8> = (offset..offset + len).map(|at| pattern(id, at)).collect();
        let result = self.call(file, |region| call(region, offset, &data))?;
        let Some(succeeded) = result else { return Ok(false) };
        self.slots[file].model.written(by, id, offset, len, succeeded);
        Ok(succeeded)
    }

    /// Calls the region whose turn it is.
    fn call(
        &mut self,
        file: usize,
        call: impl FnOnce(&AnyRegion) -> Result<(), Error>,
    ) -> Verdict<Option<bool>> {
        let slot = &mut self.slots[file];
        let turn = slot.next();
        slot.calls += 1;
        self.call_of(file, turn, call)
    }

    /// Calls, and holds the region to what its latch promises. None: there is no region, or it
    /// was poisoned and said so.
    fn call_of(
        &mut self,
        file: usize,
        turn: usize,
        call: impl FnOnce(&AnyRegion) -> Result<(), Error>,
    ) -> Verdict<Option<bool>> {
        let slot = &mut self.slots[file];
        let Some(region) = slot.regions.get(turn) else { return Ok(None) };
        let result = call(region);
        if slot.poisoned {
            return match result {
                Err(error) if error.is_failed() => Ok(None),
                other => Err(format!("a poisoned region answered {other:?}")),
            };
        }
        let Err(error) = result else { return Ok(Some(true)) };
        self.errors += 1;
        if error.is_durability_unknown() {
            slot.poisoned = true;
            // Every region of the file.
            slot.regions.iter().try_for_each(check_poisoned)?;
        }
        Ok(Some(false))
    }
}

/// After a durability error, everything but reading is refused, again and again.
fn check_poisoned(region: &AnyRegion) -> Verdict<()> {
    let len = region.len();
    for (what, result) in [
        ("write", region.write(0, &[0xff])),
        ("write_flush", region.write_flush(len - 1, &[0xff])),
        ("flush", region.flush(0, len)),
        ("drain", region.drain()),
        ("drain again", region.drain()),
        ("grow", region.grow(len + 1)),
    ] {
        match result {
            Err(error) if error.is_failed() && error.is_durability_unknown() => {}
            other => return Err(format!("after a durability error, {what} returned {other:?}")),
        }
    }
    Ok(())
}

/// Runs a history on a fresh filesystem, and checks everything that was acknowledged against
/// what the medium holds in the end.
pub fn run(
    disk: &FaultyDisk,
    filesystem: Filesystem,
    template: &Image,
    history: &History,
    fault: Option<Fault>,
    ending: Ending,
) -> Ran {
    let mut errors = 0;
    let live = live(disk, filesystem, template, history, fault, ending, &mut errors);
    let fired = disk.fired();
    // Recovery is not disturbed.
    disk.plan_nothing();
    disk.restore_power();
    let verdict = live.and_then(|(models, names, media)| {
        for (number, medium) in media.into_iter().enumerate() {
            disk.fill(medium);
            recover(disk, filesystem, &models, &names)
                .map_err(|why| format!("medium {number}: {why}"))?;
        }
        Ok(())
    });
    Ran { fired, errors, verdict }
}

type Models = [FileModel; FILES];

/// Media that are tried of one power cut.
pub const CUT_MEDIA: u64 = 4;

/// The history itself, until the filesystem is unmounted. Returns what was promised, and the
/// media that must hold it.
fn live(
    disk: &FaultyDisk,
    filesystem: Filesystem,
    template: &Image,
    history: &History,
    fault: Option<Fault>,
    ending: Ending,
    errors: &mut u32,
) -> Verdict<(Models, Names, Vec<Image>)> {
    disk.fill(template.clone());
    let mounted = Mounted::new(disk, filesystem).map_err(|error| format!("mount: {error}"))?;
    match fault {
        Some(fault) => disk.plan(fault),
        None => disk.plan_nothing(),
    }
    let mut runner = Runner::new(mounted.path());
    for (number, step) in history.steps.iter().enumerate() {
        let done = runner.step(step);
        *errors = runner.errors;
        done.map_err(|why| format!("step {number}: {why}"))?;
    }
    if ending != Ending::Unmount {
        disk.cut_power();
    }
    let cut_at = disk.log_len();
    let Runner { slots, names, .. } = runner;
    let models = slots.map(|slot| slot.model);
    mounted.unmount().map_err(|error| format!("unmount: {error}"))?;
    let media = match ending {
        Ending::Unmount | Ending::PowerCut => vec![disk.contents()],
        Ending::PowerCutLosesCache => vec![disk.image_at(cut_at)],
        Ending::PowerCutKeepsSome(seed) => {
            let log = disk.log();
            let medium = |number| some_kept(&log, cut_at, seed.wrapping_mul(CUT_MEDIA) + number);
            (0..CUT_MEDIA).map(medium).collect()
        }
    };
    Ok((models, names, media))
}

/// Half of the writes that no flush had made durable, and a quarter of them in part.
fn some_kept(log: &Log, cut_at: usize, seed: u64) -> Image {
    let mut random = Random::new(seed);
    log.crash_image(cut_at, |_, _| match random.below(4) {
        0 => Keep::Nothing,
        1 => Keep::Sectors(random.below(9) as usize),
        _ => Keep::Whole,
    })
}

/// Mounts what the medium holds and looks.
fn recover(
    disk: &FaultyDisk,
    filesystem: Filesystem,
    models: &[FileModel],
    names: &Names,
) -> Verdict<()> {
    let mounted = Mounted::new(disk, filesystem)
        .map_err(|error| format!("the filesystem is not mounted again: {error}"))?;
    for (file, model) in models.iter().enumerate() {
        let found = std::fs::read(path(mounted.path(), file));
        match (found, model.existence) {
            (Ok(found), Existence::Yes | Existence::Maybe) => {
                model.check(&found).map_err(|why| format!("file {file}: {why}"))?;
            }
            (Err(error), Existence::No | Existence::Maybe)
                if error.kind() == std::io::ErrorKind::NotFound => {}
            (found, existence) => {
                let found = found.map(|bytes| bytes.len());
                return Err(format!("file {file}: found {found:?}, existence {existence:?}"));
            }
        }
    }
    names.check(mounted.path())?;
    mounted.unmount().map_err(|error| format!("unmount after recovery: {error}"))
}
