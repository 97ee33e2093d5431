//! The model beside the real filesystems: short programs of random calls, run on both, the power cut
//! after each sync. What the real one then shows must be among what the model allows: a model that
//! takes for durable what is not would prove too much. Needs root and programs that make
//! filesystems.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use daxmap_sim::filesystem::{Image, Limits, Model, Profile, Shown};
use pmem_tests::cut::{Disk, KINDS, Kind};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags};
use std::io::Result;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// In bytes, of which a program writes some.
const SECTOR: u64 = 512;
const PROGRAMS: u64 = 40;
const CALLS: usize = 7;

#[derive(Clone, Copy, Debug)]
enum Call {
    Create(usize),
    CreateUnnamed,
    Write { file: usize, sector: u64, byte: u8 },
    Allocate { file: usize, sectors: u64 },
    Truncate { file: usize, sectors: u64 },
    Sync(usize),
    SyncData(usize),
    SyncDirectory,
    Link { file: usize, name: usize },
    Rename { from: usize, to: usize },
    Exchange(usize, usize),
    Unlink(usize),
}

impl Call {
    fn is_sync(self) -> bool {
        matches!(self, Self::Sync(_) | Self::SyncData(_) | Self::SyncDirectory)
    }

    /// A call at random; half of those on a file are on the last one made.
    fn any(random: &mut impl FnMut(usize) -> usize, files: usize) -> Self {
        let file = if random(2) == 0 { files - 1 } else { random(files) };
        let (name, other) = (random(NAMES.len()), random(NAMES.len()));
        match random(15) {
            0 => Self::Create(name),
            1 => Self::CreateUnnamed,
            2..=4 => Self::Write { file, sector: random(3) as u64, byte: 1 + random(200) as u8 },
            5 => Self::Allocate { file, sectors: 1 + random(3) as u64 },
            6 => Self::Truncate { file, sectors: random(3) as u64 },
            7 | 8 => Self::Sync(file),
            9 => Self::SyncData(file),
            10 => Self::SyncDirectory,
            11 => Self::Link { file, name },
            12 => Self::Rename { from: name, to: other },
            13 => Self::Exchange(name, other),
            _ => Self::Unlink(name),
        }
    }
}

fn on_model(model: &Model, files: &mut Vec<OwnedFd>, call: Call) -> Result<()> {
    match call {
        Call::Create(name) => files.push(model.create(NAMES[name])?),
        Call::CreateUnnamed => files.push(model.create_unnamed()?),
        Call::Write { file, sector, byte } => {
            model.write(&files[file], &[byte; SECTOR as usize], sector * SECTOR)?;
        }
        Call::Allocate { file, sectors } => model.allocate(&files[file], 0, sectors * SECTOR)?,
        Call::Truncate { file, sectors } => model.truncate(&files[file], sectors * SECTOR)?,
        Call::Sync(file) => model.sync(&files[file])?,
        Call::SyncData(file) => model.sync_data(&files[file])?,
        Call::SyncDirectory => model.sync_directory()?,
        Call::Link { file, name } => model.link(&files[file], NAMES[name])?,
        Call::Rename { from, to } => model.rename(NAMES[from], NAMES[to])?,
        Call::Exchange(one, other) => model.exchange(NAMES[one], NAMES[other])?,
        Call::Unlink(name) => model.unlink(NAMES[name])?,
    }
    Ok(())
}

fn on_disk(directory: &OwnedFd, files: &mut Vec<OwnedFd>, call: Call) -> Result<()> {
    use rustix::{fs, io};
    let mode = Mode::from_raw_mode(0o600);
    match call {
        Call::Create(name) => {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            files.push(fs::openat(directory, NAMES[name], flags, mode)?);
        }
        Call::CreateUnnamed => {
            let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
            files.push(fs::openat(directory, ".", flags, mode)?);
        }
        Call::Write { file, sector, byte } => {
            io::pwrite(&files[file], &[byte; SECTOR as usize], sector * SECTOR)?;
        }
        Call::Allocate { file, sectors } => {
            fs::fallocate(&files[file], FallocateFlags::empty(), 0, sectors * SECTOR)?;
        }
        Call::Truncate { file, sectors } => fs::ftruncate(&files[file], sectors * SECTOR)?,
        Call::Sync(file) => fs::fsync(&files[file])?,
        Call::SyncData(file) => fs::fdatasync(&files[file])?,
        Call::SyncDirectory => fs::fsync(directory)?,
        Call::Link { file, name } => {
            let path = format!("/proc/self/fd/{}", files[file].as_fd().as_raw_fd());
            let follow = AtFlags::SYMLINK_FOLLOW;
            fs::linkat(CWD, path.as_str(), directory, NAMES[name], follow)?;
        }
        Call::Rename { from, to } => fs::renameat(directory, NAMES[from], directory, NAMES[to])?,
        Call::Exchange(one, other) => {
            let (one, other) = (NAMES[one], NAMES[other]);
            fs::renameat_with(directory, one, directory, other, RenameFlags::EXCHANGE)?;
        }
        Call::Unlink(name) => fs::unlinkat(directory, NAMES[name], AtFlags::empty())?,
    }
    Ok(())
}

/// What each name shows: bytes, or that it cannot be read.
type Shows = BTreeMap<String, Option<Vec<u8>>>;

fn real(directory: &Path) -> Shows {
    let names = NAMES.iter().filter(|name| directory.join(name).symlink_metadata().is_ok());
    let mut shows: Shows =
        names.map(|name| ((*name).to_owned(), fs::read(directory.join(name)).ok())).collect();
    // A name that cannot even be looked at is one all the same.
    for entry in fs::read_dir(directory).expect("a directory can be listed").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if NAMES.contains(&&*name) {
            shows.entry(name).or_insert(None);
        }
    }
    shows
}

fn modelled(image: &Image) -> Shows {
    let name = |name: &std::ffi::OsStr| name.to_string_lossy().into_owned();
    let shows = |of: &std::ffi::OsStr| match image.shows(of) {
        Shown::File(file) => Some(file.bytes()),
        _ => None,
    };
    image.names().map(|of| (name(of), shows(of))).collect()
}

/// One file is there, durable; more come and go.
fn begin(disk: &Disk, profile: Profile) -> (OwnedFd, Vec<OwnedFd>, Arc<Model>, Vec<OwnedFd>) {
    for name in NAMES {
        let _ = fs::remove_file(disk.path().join(name));
    }
    disk.settle();
    let directory = OwnedFd::from(fs::File::open(disk.path()).expect("it is mounted"));
    let model = Model::new(profile).expect("memory files can be made");
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for call in [Call::Create(0), Call::Write { file: 0, sector: 0, byte: 255 }] {
        on_disk(&directory, &mut here, call).expect("a new filesystem takes it");
        on_model(&model, &mut there, call).expect("a new model takes it");
    }
    disk.settle();
    model.settle();
    (directory, here, model, there)
}

/// What chance has not met: a write in place and one past the end, in one block; a truncation to the
/// length that the medium still has.
const BY_HAND: [&[Call]; 2] = [
    &[
        Call::Write { file: 0, sector: 0, byte: 1 },
        Call::Write { file: 0, sector: 1, byte: 2 },
        Call::Create(1),
        Call::Sync(1),
    ],
    &[
        Call::Write { file: 0, sector: 1, byte: 2 },
        Call::Truncate { file: 0, sectors: 1 },
        Call::Truncate { file: 0, sectors: 3 },
        Call::Create(1),
        Call::Sync(1),
    ],
];

fn compare(kind: Kind, profile: Profile) {
    let disk = Disk::new(kind);
    let (mut cuts, mut calls) = (0, 0);
    for (number, program) in BY_HAND.iter().enumerate() {
        let (directory, mut here, model, mut there) = begin(&disk, profile);
        for &call in *program {
            on_model(&model, &mut there, call).expect("the model takes it");
            on_disk(&directory, &mut here, call).expect("the filesystem takes it");
        }
        check(&disk, &model, &format!("by hand {number}: {program:?}"));
        cuts += 1;
    }
    for seed in 0..PROGRAMS {
        let mut state = seed;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed << 1 | 1);
            ((state >> 33) % below as u64) as usize
        };
        let (directory, mut here, model, mut there) = begin(&disk, profile);
        let mut program = Vec::new();
        while program.len() < CALLS {
            let call = Call::any(&mut random, there.len());
            // What the model refuses is not part of the program.
            if on_model(&model, &mut there, call).is_err() {
                continue;
            }
            program.push(call);
            on_disk(&directory, &mut here, call)
                .unwrap_or_else(|errno| panic!("{}, {program:?}: {errno}", kind.name));
            calls += 1;
            if !call.is_sync() {
                continue;
            }
            cuts += 1;
            check(&disk, &model, &format!("{seed}: {program:?}"));
        }
    }
    println!(
        "filesystem model beside {}: {PROGRAMS} programs, {calls} calls, {cuts} power cuts, all \
         as the model allows",
        kind.name
    );
}

/// Cuts the power, and compares.
fn check(disk: &Disk, model: &Model, program: &str) {
    let found = real(disk.cut().path());
    let history = model.history();
    let end = history.calls().count();
    let mut allowed = BTreeSet::new();
    let explored = history.explore_from(end, Limits::default(), |crash| {
        allowed.insert(modelled(crash.image));
        Ok(())
    });
    assert_eq!(explored.map(|tally| tally.sampled).ok(), Some(0), "looked at only in part");
    assert!(
        allowed.contains(&found),
        "{}, program {program}\nshows {}\nand the model allows {}",
        model.profile().as_str(),
        brief(&found),
        allowed.iter().map(brief).collect::<Vec<_>>().join("\n  or ")
    );
}

/// The first byte of each sector.
fn brief(shows: &Shows) -> String {
    let file = |bytes: &Vec<u8>| {
        let sectors = bytes.chunks(SECTOR as usize).map(|sector| sector[0].to_string());
        format!("[{}]", sectors.collect::<Vec<_>>().join(" "))
    };
    let name = |(name, bytes): (&String, &Option<Vec<u8>>)| {
        format!("{name}: {}", bytes.as_ref().map_or("unreadable".into(), file))
    };
    shows.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[test]
fn ext4() {
    compare(KINDS[0], Profile::Ext4);
}

#[test]
fn ext4_without_a_journal() {
    compare(KINDS[1], Profile::NothingUntilFsync);
}

#[test]
fn xfs() {
    compare(KINDS[2], Profile::Xfs);
}

#[test]
fn btrfs() {
    compare(KINDS[3], Profile::Btrfs);
}
