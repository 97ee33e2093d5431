//! The operations, what was there before, and what a crash may leave of each.

use daxmap::publish::Commit;
use daxmap::{AnyRegion, Options, Region};
use daxmap_sim::filesystem::{Crash, History, Image, Model, Profile, Shown, Tamper, Verdict};
use pmem_tests::versions;

/// The file's name, and the one that an old version is kept under.
pub const FILE: &str = "file";
pub const KEPT: &str = "kept";
/// In bytes: four sectors, the last in part.
pub const LEN: u64 = 1700;
/// In bytes: six sectors.
pub const GROWN: u64 = 3000;
pub const OLD: u64 = 1;
pub const NEW: u64 = 2;
pub const OLDER: u64 = 3;
const OLD_MODE: u32 = 0o640;
const SET_ID_MODE: u32 = 0o4750;

/// The mark of a crash point after the operation has returned `Ok`; what comes before has 0, or a
/// mark of the operation's own.
pub const DONE: u32 = u32::MAX;
/// The file is open.
const OPENED: u32 = 1;

/// Something that the library does, and what it promises.
#[derive(Clone, Copy)]
pub struct Operation {
    pub name: &'static str,
    /// Makes what is there before; all of it is on the medium when the operation begins.
    pub before: fn(&Model) -> Option<AnyRegion>,
    /// What nobody synced before: it is not.
    pub unsynced: fn(&Model),
    /// When it has returned `Ok`, the mark is [`DONE`].
    pub run: fn(&Model, Option<AnyRegion>) -> daxmap::Result<AnyRegion>,
    pub check: fn(Crash<'_>) -> Verdict,
}

/// What became of a run.
pub struct Outcome {
    pub result: daxmap::Result<AnyRegion>,
    pub history: History,
    /// The names and files before and after.
    pub before: Image,
    pub after: Image,
}

pub fn run(operation: &Operation, profile: Profile, tampers: &[Tamper]) -> Outcome {
    let model = Model::new(profile).expect("memory files can be made");
    let inside = model.enter();
    let region = (operation.before)(&model);
    model.settle();
    let before = model.image();
    (operation.unsynced)(&model);
    for tamper in tampers {
        model.tamper(*tamper);
    }
    let result = (operation.run)(&model, region);
    if result.is_ok() {
        model.mark(DONE);
    }
    let (history, after) = (model.history(), model.image());
    // Not before: what a region does when it is dropped is not part of the operation.
    drop(inside);
    Outcome { result, history, before, after }
}

fn nothing(_: &Model) -> Option<AnyRegion> {
    None
}

fn synced(_: &Model) {}

fn put(model: &Model, name: &str, version: u64, mode: u32) -> AnyRegion {
    let path = model.path().join(name);
    let region = Options::new().len(LEN).mode(mode).create(path).expect("a file can be made");
    region.write_persist(0, &versions::content(version, LEN as usize)).expect("it can be written");
    region
}

#[allow(clippy::unnecessary_wraps)] // as every `before`
fn put_old_open(model: &Model) -> Option<AnyRegion> {
    Some(put(model, FILE, OLD, OLD_MODE))
}

fn put_old(model: &Model) -> Option<AnyRegion> {
    drop(put(model, FILE, OLD, OLD_MODE));
    None
}

fn put_old_with_set_id(model: &Model) -> Option<AnyRegion> {
    drop(put(model, FILE, OLD, SET_ID_MODE));
    None
}

fn put_old_and_older(model: &Model) -> Option<AnyRegion> {
    drop((put(model, FILE, OLD, OLD_MODE), put(model, KEPT, OLDER, OLD_MODE)));
    None
}

fn put_unsynced(model: &Model) {
    let file = model.create(FILE).expect("a file can be made");
    model.write(&file, &versions::content(OLD, LEN as usize), 0).expect("it can be written");
}

fn create(model: &Model, _: Option<AnyRegion>) -> daxmap::Result<AnyRegion> {
    Options::new().len(LEN).create(model.path().join(FILE))
}

fn open(model: &Model, _: Option<AnyRegion>) -> daxmap::Result<AnyRegion> {
    let region = Options::new().open(model.path().join(FILE))?;
    model.mark(OPENED);
    drain(model, Some(region))
}

fn grow(_: &Model, region: Option<AnyRegion>) -> daxmap::Result<AnyRegion> {
    let region = region.expect("opened before");
    region.grow(GROWN)?;
    Ok(region)
}

fn drain(_: &Model, region: Option<AnyRegion>) -> daxmap::Result<AnyRegion> {
    let region = region.expect("opened before");
    region.write_persist(0, &versions::content(NEW, LEN as usize))?;
    Ok(region)
}

fn publish(model: &Model, how: Commit<'_>) -> daxmap::Result<AnyRegion> {
    let draft = Options::new().len(LEN).draft(model.path().join(FILE))?;
    draft.write(0, &versions::content(NEW, LEN as usize))?;
    draft.commit(how)
}

fn publish_in_part(model: &Model, _: Option<AnyRegion>) -> daxmap::Result<AnyRegion> {
    let draft = Options::new().len(LEN).draft(model.path().join(FILE))?;
    draft.write(0, b"a part")?;
    draft.commit(Commit::Replace)
}

fn replace(model: &Model, _: Option<AnyRegion>) -> daxmap::Result<AnyRegion> {
    publish(model, Commit::Replace)
}

fn create_only(model: &Model, _: Option<AnyRegion>) -> daxmap::Result<AnyRegion> {
    publish(model, Commit::CreateOnly)
}

fn exchange(model: &Model, _: Option<AnyRegion>) -> daxmap::Result<AnyRegion> {
    publish(model, Commit::keep(KEPT))
}

pub const CREATE: Operation =
    Operation { name: "create", before: nothing, unsynced: synced, run: create, check: created };

pub const GROW: Operation =
    Operation { name: "grow", before: put_old_open, unsynced: synced, run: grow, check: grown };

pub const DRAIN: Operation =
    Operation { name: "drain", before: put_old_open, unsynced: synced, run: drain, check: drained };

pub const OPEN: Operation = Operation {
    name: "open, of what nobody synced",
    before: nothing,
    unsynced: put_unsynced,
    run: open,
    check: opened,
};

pub const CREATE_ONLY: Operation = Operation {
    name: "CreateOnly",
    before: nothing,
    unsynced: synced,
    run: create_only,
    check: published_new,
};

pub const REPLACE_NOTHING: Operation = Operation {
    name: "Replace of nothing",
    before: nothing,
    unsynced: synced,
    run: replace,
    check: published_new,
};

pub const PART: Operation = Operation {
    name: "a draft written in part",
    before: nothing,
    unsynced: synced,
    run: publish_in_part,
    check: published_part,
};

pub const REPLACE: Operation =
    Operation { name: "Replace", before: put_old, unsynced: synced, run: replace, check: replaced };

pub const REPLACE_SET_ID: Operation = Operation {
    name: "Replace with a mode to hand on",
    before: put_old_with_set_id,
    unsynced: synced,
    run: replace,
    check: replaced_with_set_id,
};

pub const EXCHANGE: Operation = Operation {
    name: "Exchange",
    before: put_old,
    unsynced: synced,
    run: exchange,
    check: exchanged,
};

pub const EXCHANGE_AGAIN: Operation = Operation {
    name: "Exchange over an older version",
    before: put_old_and_older,
    unsynced: synced,
    run: exchange,
    check: exchanged_again,
};

pub const ALL: [Operation; 11] = [
    CREATE,
    GROW,
    DRAIN,
    OPEN,
    CREATE_ONLY,
    REPLACE_NOTHING,
    PART,
    REPLACE,
    REPLACE_SET_ID,
    EXCHANGE,
    EXCHANGE_AGAIN,
];

/// What a name shows, in the words of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    Nothing,
    /// A whole version, every sector of it written, with this mode.
    Version(u64, u32),
    /// Zeros, every sector written.
    Zeros(u64),
    /// The right bytes, and space that was never written.
    Unwritten,
    Other,
}

pub fn sees(image: &Image, name: &str) -> Sees {
    match image.shows(name) {
        Shown::Nothing => Sees::Nothing,
        Shown::Broken => Sees::Other,
        Shown::File(file) => {
            let bytes = file.bytes();
            match versions::version_of(&bytes) {
                _ if !file.is_written() => Sees::Unwritten,
                Some(version) => Sees::Version(version, file.mode()),
                None if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) => {
                    Sees::Zeros(file.len())
                }
                None => Sees::Other,
            }
        }
    }
}

/// One of these, the last of them if the operation has returned `Ok`; and besides the names that
/// are meant, only such as a clean-up finds.
fn one_of(crash: Crash<'_>, allowed: &[(Sees, Sees)]) -> Verdict {
    let found = (sees(crash.image, FILE), sees(crash.image, KEPT));
    let allowed = if crash.mark == DONE { &allowed[allowed.len() - 1..] } else { allowed };
    if !allowed.contains(&found) {
        return Err(format!("{found:?}, where {allowed:?} is allowed"));
    }
    only_leftovers_besides(crash.image)
}

fn only_leftovers_besides(image: &Image) -> Verdict {
    let stray = image.names().find(|name| {
        let name = name.to_string_lossy();
        ![FILE, KEPT].contains(&&*name) && !is_leftover(&name)
    });
    stray.map_or(Ok(()), |name| Err(format!("{} is left behind", name.display())))
}

pub fn is_leftover(name: &str) -> bool {
    name.strip_prefix(".daxmap-draft-").is_some_and(|digits| digits.len() == 16)
}

const NONE: (Sees, Sees) = (Sees::Nothing, Sees::Nothing);
/// Modes are those of [`Options::mode`] where there was nothing to hand on.
const FRESH: (Sees, Sees) = (Sees::Version(NEW, 0o600), Sees::Nothing);

fn created(crash: Crash<'_>) -> Verdict {
    one_of(crash, &[NONE, (Sees::Zeros(LEN), Sees::Nothing)])
}

fn published_new(crash: Crash<'_>) -> Verdict {
    one_of(crash, &[NONE, FRESH])
}

fn published_part(crash: Crash<'_>) -> Verdict {
    let Shown::File(file) = crash.image.shows(FILE) else {
        return if crash.mark == DONE { Err("no file".into()) } else { one_of(crash, &[NONE]) };
    };
    let mut whole = vec![0; LEN as usize];
    whole[..6].copy_from_slice(b"a part");
    if file.bytes() != whole {
        return Err(format!("{:?} of {} bytes", sees(crash.image, FILE), file.len()));
    }
    if !file.is_written() {
        return Err("space that was never written".into());
    }
    only_leftovers_besides(crash.image)
}

fn replaced(crash: Crash<'_>) -> Verdict {
    let before = (Sees::Version(OLD, OLD_MODE), Sees::Nothing);
    one_of(crash, &[before, (Sees::Version(NEW, OLD_MODE), Sees::Nothing)])
}

fn replaced_with_set_id(crash: Crash<'_>) -> Verdict {
    let before = (Sees::Version(OLD, SET_ID_MODE), Sees::Nothing);
    one_of(crash, &[before, (Sees::Version(NEW, SET_ID_MODE), Sees::Nothing)])
}

fn exchanged(crash: Crash<'_>) -> Verdict {
    let (old, new) = (Sees::Version(OLD, OLD_MODE), Sees::Version(NEW, OLD_MODE));
    one_of(crash, &[(old, Sees::Nothing), (old, new), (new, old)])
}

/// Where the names cannot be exchanged, the old version has both for a moment.
fn linked(crash: Crash<'_>) -> Verdict {
    let (old, new) = (Sees::Version(OLD, OLD_MODE), Sees::Version(NEW, OLD_MODE));
    one_of(crash, &[(old, Sees::Nothing), (old, new), (old, old), (new, old)])
}

fn linked_again(crash: Crash<'_>) -> Verdict {
    let (old, new) = (Sees::Version(OLD, OLD_MODE), Sees::Version(NEW, OLD_MODE));
    one_of(crash, &[(old, Sees::Version(OLDER, OLD_MODE)), (old, old), (new, old)])
}

/// The operation as it is promised without `RENAME_EXCHANGE`.
pub fn without_exchange(operation: &Operation) -> Operation {
    match operation.name {
        name if name == EXCHANGE.name => Operation { check: linked, ..EXCHANGE },
        name if name == EXCHANGE_AGAIN.name => Operation { check: linked_again, ..EXCHANGE_AGAIN },
        _ => *operation,
    }
}

fn exchanged_again(crash: Crash<'_>) -> Verdict {
    let (old, new) = (Sees::Version(OLD, OLD_MODE), Sees::Version(NEW, OLD_MODE));
    one_of(crash, &[(old, Sees::Version(OLDER, OLD_MODE)), (old, new), (new, old)])
}

fn grown(crash: Crash<'_>) -> Verdict {
    let Shown::File(file) = crash.image.shows(FILE) else { return Err("no file".into()) };
    let bytes = file.bytes();
    let (kept, new) = bytes.split_at_checked(LEN as usize).ok_or("shorter than before")?;
    if versions::version_of(kept) != Some(OLD) {
        return Err("bytes from before the growth are lost".into());
    }
    if new.iter().any(|byte| *byte != 0) {
        return Err("new bytes that are not zero".into());
    }
    if crash.mark == DONE && (file.len() != GROWN || !file.is_written()) {
        return Err(format!("grown, and {} bytes, written: {}", file.len(), file.is_written()));
    }
    only_leftovers_besides(crash.image)
}

/// A drained write is there. Before, each sector is the old or the new one.
fn drained(crash: Crash<'_>) -> Verdict {
    let Shown::File(file) = crash.image.shows(FILE) else { return Err("no file".into()) };
    let bytes = file.bytes();
    let versions = [OLD, NEW].map(|version| versions::content(version, LEN as usize));
    if crash.mark == DONE && bytes != versions[1] {
        return Err("a drained write is lost".into());
    }
    let whole = bytes
        .chunks(512)
        .enumerate()
        .all(|(i, sector)| versions.iter().any(|of| of.chunks(512).nth(i) == Some(sector)));
    if bytes.len() != LEN as usize || !whole {
        return Err("a sector is neither old nor new".into());
    }
    only_leftovers_besides(crash.image)
}

/// What an opened region shows has been read, and acted upon: it is not lost any more.
fn opened(crash: Crash<'_>) -> Verdict {
    if crash.mark == 0 { Ok(()) } else { drained(crash) }
}
