//! A load whose every step leaves something to check after a crash: records in a ring, a commit
//! word, growth, files published and files created.
//!
//! Some steps begin by growing the region, replacing a file, or creating one. Step `n` then writes
//! record `n` durably, then the number `n` into the commit word, and is acknowledged. After a
//! crash, with steps up to `n` acknowledged, [`check`] finds all of them, and no half of anything;
//! whoever goes on there need not repeat a step whose number is in the commit word.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use daxmap::publish::{Commit, clean_leftovers};
use daxmap::{AnyRegion, Options, Region, Result};

use crate::versions;

/// Records kept: step `n` overwrites record `n - SLOTS`.
const SLOTS: u64 = 16;
const SLOT_BYTES: u64 = 8192;
/// The commit word is in a page of its own.
const HEADER_BYTES: u64 = 4096;
const LEN: u64 = HEADER_BYTES + SLOTS * SLOT_BYTES;

/// Every so many steps the region grows by so much, up to a limit.
const GROW_EVERY: u64 = 16;
const GROW_BYTES: u64 = 20_000;
const GROWTHS_MAX: u64 = 40;
/// A number at the end of what was grown.
const MARK_BYTES: u64 = 16;

const PUBLISH_EVERY: u64 = 12;
const CREATE_EVERY: u64 = 20;
/// Names that created files take in turn.
const CREATE_NAMES: u64 = 8;
const CREATED_BYTES: usize = 3000;

/// What a writer does between a store and the claim that it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// All of it.
    Full,
    /// No write-back: only the fence.
    NoWriteBack,
    /// No fence: only the write-back.
    NoFence,
    /// Nothing: files too are written and renamed without a sync.
    None,
}

impl Care {
    /// All of them, with the words that name them.
    pub const ALL: [(&'static str, Self); 4] = [
        ("full", Self::Full),
        ("no-write-back", Self::NoWriteBack),
        ("no-fence", Self::NoFence),
        ("none", Self::None),
    ];

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, care)| care)
    }

    /// Whether it writes back.
    #[must_use]
    pub const fn flushes(self) -> bool {
        matches!(self, Self::Full | Self::NoFence)
    }

    /// Whether it waits.
    #[must_use]
    pub const fn drains(self) -> bool {
        matches!(self, Self::Full | Self::NoWriteBack)
    }
}

/// The load in one directory.
#[derive(Debug)]
pub struct Load {
    directory: PathBuf,
    options: Options,
    region: AnyRegion,
    care: Care,
    steps: u64,
}

impl Load {
    /// Begins, in a directory that is made if need be, or goes on where its commit word says.
    ///
    /// # Panics
    ///
    /// If the directory cannot be made.
    pub fn open(directory: &Path, care: Care) -> Result<Self> {
        Self::open_with(Options::new(), directory, care)
    }

    /// As [`open`](Self::open), with options for the region. All of its files are opened with them.
    ///
    /// # Panics
    ///
    /// If the directory cannot be made.
    pub fn open_with(options: Options, directory: &Path, care: Care) -> Result<Self> {
        make_directory(directory).expect("a directory can be made");
        let path = directory.join("region");
        // Opened without a length: all of it, grown or not.
        let region = if path.exists() {
            options.clone().open(path)?
        } else {
            options.clone().len(LEN).create(path)?
        };
        clean_leftovers(directory)?;
        let steps = region.load_u64(0)?;
        Ok(Self { directory: directory.to_owned(), options, region, care, steps })
    }

    /// The region it writes to.
    #[must_use]
    pub fn region(&self) -> &AnyRegion {
        &self.region
    }

    /// The last step that is done.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Does the next step and returns its number.
    pub fn step(&mut self) -> Result<u64> {
        let step = self.steps + 1;
        if len_after(step) > len_after(step - 1) {
            self.grow(step)?;
        }
        if step.is_multiple_of(PUBLISH_EVERY) {
            self.publish(step)?;
        }
        if step.is_multiple_of(CREATE_EVERY) {
            self.create(step)?;
        }
        let (offset, record) = record(step);
        self.put(step, offset, &record)?;
        self.drain()?;
        self.region.store_u64(0, step)?;
        if self.care.flushes() {
            self.region.flush(0, 8)?;
        }
        self.drain()?;
        self.steps = step;
        Ok(step)
    }

    /// One of the ways in which bytes become flushed, each in turn.
    fn put(&self, step: u64, offset: u64, data: &[u8]) -> Result<()> {
        if !self.care.flushes() {
            return self.region.write(offset, data);
        }
        match step % 3 {
            0 => self.region.write_flush(offset, data),
            1 => {
                self.region.write(offset, data)?;
                self.region.flush(offset, data.len() as u64)
            }
            _ => {
                let (head, tail) = data.split_at(data.len() / 3);
                self.region.write(offset, head)?;
                self.region.write_flush(offset + head.len() as u64, tail)?;
                self.region.flush(offset, head.len() as u64)
            }
        }
    }

    fn drain(&self) -> Result<()> {
        if self.care.drains() { self.region.drain() } else { Ok(()) }
    }

    fn grow(&self, step: u64) -> Result<()> {
        let len = len_after(step);
        self.region.grow(len)?;
        let mark = versions::content(step, MARK_BYTES as usize);
        self.put(step, len - MARK_BYTES, &mark)?;
        self.drain()
    }

    fn publish(&self, step: u64) -> Result<()> {
        let content = versions::content(step, published_len(step));
        let path = self.directory.join("published");
        if self.care == Care::None {
            let draft = self.directory.join("draft");
            fs::write(&draft, &content)
                .and_then(|()| fs::rename(&draft, &path))
                .expect("a file can be replaced");
            return Ok(());
        }
        let draft = self.options.clone().len(content.len() as u64).draft(&path)?;
        draft.write(0, &content)?;
        draft.commit(Commit::Replace)?.close()
    }

    fn create(&self, step: u64) -> Result<()> {
        let path = self.directory.join(created_name(step));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                panic!("a file of the load cannot be removed: {error}")
            }
            _ => {}
        }
        let content = versions::content(step, CREATED_BYTES);
        if self.care == Care::None {
            fs::write(&path, &content).expect("a file can be created");
            return Ok(());
        }
        let region = self.options.clone().len(content.len() as u64).create(&path)?;
        region.write_persist(0, &content)?;
        region.close()
    }
}

/// Makes a directory whose name survives a crash.
fn make_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let parent = directory.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::File::open(parent)?.sync_all()
}

/// Scrambles a number.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16
}

/// Where record `step` is, and its bytes: at any offset of its slot, short ones more often.
fn record(step: u64) -> (u64, Vec<u8>) {
    let random = mix(step);
    let longest = [64, 256, 1024, 6000][(random % 4) as usize];
    let len = 16 + (random >> 2) % longest;
    let start = (random >> 20) % (SLOT_BYTES - len);
    let offset = HEADER_BYTES + step % SLOTS * SLOT_BYTES + start;
    (offset, versions::content(step, len as usize))
}

fn len_after(step: u64) -> u64 {
    LEN + (step / GROW_EVERY).min(GROWTHS_MAX) * GROW_BYTES
}

fn published_len(step: u64) -> usize {
    1000 + (mix(step) % 30_000) as usize
}

fn created_name(step: u64) -> String {
    format!("created-{}", step / CREATE_EVERY % CREATE_NAMES)
}

/// What a crash left, as [`check`] found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The commit word: the last step whose record is there.
    pub steps: u64,
}

/// Steps that may be done when `acknowledged` were acknowledged just before the crash: those, and
/// the next, whose acknowledgement the crash forestalled.
#[must_use]
pub fn possible(acknowledged: u64) -> RangeInclusive<u64> {
    acknowledged..=acknowledged + 1
}

/// Looks at the load's directory after a crash, through `read(2)`: the last step done must be among
/// those `possible`.
///
/// # Errors
///
/// What is missing, torn, or there without having been written.
pub fn check(
    directory: &Path,
    possible: RangeInclusive<u64>,
) -> std::result::Result<Found, String> {
    let path = directory.join("region");
    let region = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    check_all(directory, &region, &possible)
}

/// As [`check`], through a region that is opened as a user of the library does.
///
/// # Errors
///
/// As [`check`], and those of the library.
pub fn check_opened(
    directory: &Path,
    possible: RangeInclusive<u64>,
) -> std::result::Result<Found, String> {
    let said = |error: daxmap::Error| error.to_string();
    let region = Options::new().open(directory.join("region")).map_err(said)?;
    let mut bytes = vec![0; region.len() as usize];
    region.read(0, &mut bytes).map_err(said)?;
    check_all(directory, &bytes, &possible)
}

/// As [`check`], but where the contents are not to be had: names and lengths of one of the
/// `possible` steps.
///
/// # Errors
///
/// What is missing, or has a length that it never had.
pub fn check_lengths(
    directory: &Path,
    possible: RangeInclusive<u64>,
) -> std::result::Result<(), String> {
    let of = |name: &str| match fs::metadata(directory.join(name)) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{name}: {error}")),
    };
    let (least, most) = (*possible.start(), *possible.end());
    let lens = [least, most].map(len_after);
    let len = of("region")?;
    if !len.is_some_and(|len| lens.contains(&len)) {
        return Err(format!(
            "{least} acknowledged, the region's length is {len:?}, not of {lens:?}"
        ));
    }
    let lens = [least, most].map(|step| match step / PUBLISH_EVERY * PUBLISH_EVERY {
        0 => None,
        version => Some(published_len(version) as u64),
    });
    let len = of("published")?;
    if !lens.contains(&len) {
        return Err(format!(
            "{least} acknowledged, {len:?} bytes are published, not one of {lens:?}"
        ));
    }
    for name in created(least).map(created_name) {
        let len = of(&name)?;
        if len != Some(CREATED_BYTES as u64) {
            return Err(format!("{least} acknowledged, the length of {name} is {len:?}"));
        }
    }
    Ok(())
}

fn check_all(
    directory: &Path,
    region: &[u8],
    possible: &RangeInclusive<u64>,
) -> std::result::Result<Found, String> {
    let word = region.first_chunk::<8>().ok_or("the region has no commit word")?;
    let steps = u64::from_le_bytes(*word);
    if !possible.contains(&steps) {
        return Err(format!("{} acknowledged, the commit word says {steps}", possible.start()));
    }
    check_records(region, steps)?;
    check_growth(region, steps)?;
    check_published(directory, steps)?;
    check_created(directory, steps)?;
    Ok(Found { steps })
}

/// Every record up to the commit word, but the one that step `steps + 1` may be overwriting.
fn check_records(region: &[u8], steps: u64) -> std::result::Result<(), String> {
    for step in (steps + 2).saturating_sub(SLOTS).max(1)..=steps {
        let (offset, expected) = record(step);
        let found = region.get(offset as usize..offset as usize + expected.len());
        if found != Some(&expected) {
            return Err(format!("record {step} of {steps} is not what was written"));
        }
    }
    Ok(())
}

/// The length, the marks at the end of each growth, and zeros between them.
fn check_growth(region: &[u8], steps: u64) -> std::result::Result<(), String> {
    let (least, most) = (len_after(steps), len_after(steps + 1));
    let len = region.len() as u64;
    if len != least && len != most {
        return Err(format!("after {steps} steps the region has {len} bytes"));
    }
    for growth in 1..=(len - LEN) / GROW_BYTES {
        let step = growth * GROW_EVERY;
        let end = (LEN + growth * GROW_BYTES) as usize;
        let (zeros, mark) =
            region[end - GROW_BYTES as usize..end].split_at((GROW_BYTES - MARK_BYTES) as usize);
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(format!("what step {step} grew is not zero"));
        }
        if step <= steps && mark != versions::content(step, MARK_BYTES as usize) {
            return Err(format!("the mark of step {step} is not what was written"));
        }
    }
    Ok(())
}

/// The newest version, or the one after.
fn check_published(directory: &Path, steps: u64) -> std::result::Result<(), String> {
    let least = steps / PUBLISH_EVERY * PUBLISH_EVERY;
    let most = (steps + 1) / PUBLISH_EVERY * PUBLISH_EVERY;
    let content = match fs::read(directory.join("published")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && least == 0 => return Ok(()),
        content => content.map_err(|error| format!("published: {error}"))?,
    };
    let Some(version) = versions::version_of(&content) else {
        return Err(format!("the published file of {} bytes is no version", content.len()));
    };
    if version != least && version != most {
        return Err(format!(
            "version {version} is published, {least} was published by step {steps}"
        ));
    }
    Ok(())
}

/// The last steps up to `steps` that created a file whose name has not come up again.
fn created(steps: u64) -> impl Iterator<Item = u64> {
    let newest = steps / CREATE_EVERY;
    let oldest = (newest + 2).saturating_sub(CREATE_NAMES).max(1);
    (oldest..=newest).map(|creation| creation * CREATE_EVERY)
}

fn check_created(directory: &Path, steps: u64) -> std::result::Result<(), String> {
    for step in created(steps) {
        let name = created_name(step);
        let content = fs::read(directory.join(&name)).map_err(|e| format!("{name}: {e}"))?;
        if content != versions::content(step, CREATED_BYTES) {
            return Err(format!("{name} is not what step {step} created"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_found_and_what_is_damaged_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut load = Load::open(directory.path(), Care::Full).unwrap();
        for step in 1..=250 {
            assert_eq!(load.step().unwrap(), step);
            assert_eq!(check(directory.path(), possible(step)), Ok(Found { steps: step }));
            assert_eq!(check_lengths(directory.path(), step..=step), Ok(()));
        }
        // A growth, and a file that was replaced, are noticed by their lengths.
        assert!(check_lengths(directory.path(), 200..=200).is_err());
        // The step after the acknowledged one may be there, but no more, and nothing less.
        assert!(check(directory.path(), possible(249)).is_ok());
        assert!(check(directory.path(), possible(248)).is_err());
        assert!(check(directory.path(), possible(251)).is_err());
        drop(load);
        let mut load = Load::open(directory.path(), Care::Full).unwrap();
        assert_eq!(load.step().unwrap(), 251);
        for step in 252..=290 {
            load.step().unwrap();
            assert!(check(directory.path(), possible(step)).is_ok());
        }
        drop(load);
        assert!(check_opened(directory.path(), possible(290)).is_ok());

        let region = directory.path().join("region");
        let whole = fs::read(&region).unwrap();
        let (offset, _) = record(290);
        for at in [0, offset as usize, LEN as usize + 1, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&region, &damaged).unwrap();
            assert!(check(directory.path(), possible(290)).is_err(), "byte {at}");
        }
        fs::write(&region, &whole).unwrap();
        for name in ["published", "created-6"] {
            let path = directory.path().join(name);
            let content = fs::read(&path).unwrap();
            fs::write(&path, &content[1..]).unwrap();
            assert!(check(directory.path(), possible(290)).is_err(), "{name}");
            assert!(check_lengths(directory.path(), possible(290)).is_err(), "{name}");
            fs::write(&path, content).unwrap();
        }
        assert!(check(directory.path(), possible(290)).is_ok());
    }
}
