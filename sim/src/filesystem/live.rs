//! The filesystem as its user sees it: names and files, all of it in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, MemfdFlags, Mode, OFlags, Stat};
use rustix::io::{self, Errno, Result};

use super::history::{History, Sync};
use super::image::{Effect, Image, Inode, SECTOR};
use super::profile::Profile;
use super::{Feature, SyncCall, Tamper, Which};

type Key = (u64, u64);

fn key(of: BorrowedFd<'_>) -> Result<Key> {
    let found = fs::fstat(of)?;
    Ok((found.st_dev, found.st_ino))
}

/// A file: its content is that of a memory file, whose descriptors are the ones handed out.
struct Node {
    memory: OwnedFd,
    links: u32,
    /// Made without a name, and given none yet.
    linkable: bool,
    /// Opening it fails: the medium has its name and not the inode, or one without names.
    broken: bool,
    /// Sectors written since the last sync, and those written and synced before.
    dirty: BTreeSet<u64>,
    clean: BTreeSet<u64>,
}

/// The object that a descriptor is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    Directory,
    File(Inode),
}

/// A modelled filesystem in use.
pub(super) struct Live {
    pub(super) history: History,
    directory: OwnedFd,
    directory_key: Key,
    nodes: Vec<Node>,
    by_key: HashMap<Key, Inode>,
    names: BTreeMap<OsString, Inode>,
    pub(super) tampers: Vec<Tamper>,
    syncs: [usize; 3],
    late: Option<(Sync, usize)>,
}

fn memory() -> Result<OwnedFd> {
    fs::memfd_create("daxmap-model", MemfdFlags::CLOEXEC)
}

fn reopen(of: &OwnedFd, flags: OFlags) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", of.as_raw_fd());
    fs::open(path, (flags & OFlags::ACCMODE) | OFlags::CLOEXEC, Mode::empty())
}

impl Live {
    pub(super) fn new(profile: Profile, image: Image) -> Result<Self> {
        let directory = memory()?;
        let directory_key = key(directory.as_fd())?;
        let mut live = Self {
            history: History::new(profile, image),
            directory,
            directory_key,
            nodes: Vec::new(),
            by_key: HashMap::new(),
            names: BTreeMap::new(),
            tampers: Vec::new(),
            syncs: [0; 3],
            late: None,
        };
        live.populate()?;
        Ok(live)
    }

    /// Makes the files of the base.
    fn populate(&mut self) -> Result<()> {
        let base = self.history.base.clone();
        for (name, inode, file) in base.entries() {
            self.names.insert(name.to_owned(), inode);
            while self.nodes.len() <= inode {
                self.add_node()?;
            }
            let node = &mut self.nodes[inode];
            node.broken = file.is_none();
            let Some(file) = file else { continue };
            node.links = file.links();
            fs::fchmod(&node.memory, Mode::from_raw_mode(file.mode()))?;
            fs::ftruncate(&node.memory, file.len())?;
            for (index, bytes) in file.written() {
                write_within(&node.memory, index * SECTOR, bytes, file.len())?;
                node.clean.insert(index);
            }
        }
        Ok(())
    }

    fn add_node(&mut self) -> Result<Inode> {
        let memory = memory()?;
        let inode = self.nodes.len();
        self.by_key.insert(key(memory.as_fd())?, inode);
        let (dirty, clean) = (BTreeSet::new(), BTreeSet::new());
        let (linkable, broken) = (false, false);
        self.nodes.push(Node { memory, links: 0, linkable, broken, dirty, clean });
        Ok(inode)
    }

    /// What a descriptor is of, if it is one of this filesystem's.
    pub(super) fn object(&self, of: BorrowedFd<'_>) -> Option<Object> {
        let key = key(of).ok()?;
        if key == self.directory_key {
            return Some(Object::Directory);
        }
        self.by_key.get(&key).map(|inode| Object::File(*inode))
    }

    pub(super) fn settle(&mut self) {
        let settled = self.history.settled();
        self.history = History::new(self.history.profile, settled);
        for node in &mut self.nodes {
            node.clean.append(&mut node.dirty);
        }
        self.syncs = [0; 3];
    }

    fn len(&self, inode: Inode) -> Result<u64> {
        Ok(fs::fstat(&self.nodes[inode].memory)?.st_size.cast_unsigned())
    }

    /// The profile that the library is told of.
    pub(super) fn disguise(&self) -> Profile {
        let disguise = self.tampers.iter().find_map(|tamper| match tamper {
            Tamper::Disguise(profile) => Some(*profile),
            _ => None,
        });
        disguise.unwrap_or(self.history.profile)
    }

    pub(super) fn lacks(&self, feature: Feature) -> bool {
        self.tampers.contains(&Tamper::Lack(feature))
    }

    /// Begins a call that changes something, unless it is to fail.
    fn begin(&mut self, text: String) -> Result<()> {
        let call = self.history.call(text);
        let fails = self.tampers.iter().find_map(|tamper| match tamper {
            Tamper::Fail(number, errno) if *number == call => {
                Some(Errno::from_raw_os_error(*errno))
            }
            _ => None,
        });
        match fails {
            Some(errno) => {
                self.history.calls[call].text += " (made to fail)";
                Err(errno)
            }
            None => Ok(()),
        }
    }

    /// Ends a call that changed names.
    fn named(&mut self) {
        match self.late.take() {
            Some((sync, names)) if names <= 1 => {
                self.history.call(format!("{sync:?}, late"));
                self.synced(sync);
            }
            later => self.late = later.map(|(sync, names)| (sync, names - 1)),
        }
    }

    pub(super) fn find(&self, name: &OsStr) -> Result<Inode> {
        match self.names.get(name) {
            None => Err(Errno::NOENT),
            Some(inode) if self.nodes[*inode].broken => Err(Errno::UCLEAN),
            Some(inode) => Ok(*inode),
        }
    }

    pub(super) fn names(&self) -> Vec<OsString> {
        self.names.keys().cloned().collect()
    }

    pub(super) fn open_directory(&self) -> Result<OwnedFd> {
        reopen(&self.directory, OFlags::RDONLY)
    }

    pub(super) fn open(&self, name: &OsStr, flags: OFlags) -> Result<OwnedFd> {
        reopen(&self.nodes[self.find(name)?].memory, flags)
    }

    pub(super) fn stat(&self, inode: Inode) -> Result<Stat> {
        let mut found = fs::fstat(&self.nodes[inode].memory)?;
        found.st_nlink = self.nodes[inode].links.into();
        Ok(found)
    }

    /// Makes a file, without a name if none is given.
    pub(super) fn create(&mut self, name: Option<&OsStr>, mode: Mode) -> Result<OwnedFd> {
        if name.is_some_and(|name| self.names.contains_key(name)) {
            return Err(Errno::EXIST);
        }
        let named = name.map_or("without a name".into(), |name| format!("{}", name.display()));
        self.begin(format!("openat that makes a file {named}"))?;
        let inode = self.add_node()?;
        fs::fchmod(&self.nodes[inode].memory, mode)?;
        let links = u32::from(name.is_some());
        self.nodes[inode].links = links;
        self.nodes[inode].linkable = name.is_none();
        let bits = mode.as_raw_mode();
        let mut effects = vec![Effect::Links { inode, count: links }, Effect::Mode { inode, bits }];
        if let Some(name) = name {
            self.names.insert(name.to_owned(), inode);
            effects.push(Effect::Entry { name: name.to_owned(), to: Some(inode) });
        }
        self.history.push(effects);
        reopen(&self.nodes[inode].memory, OFlags::RDWR)
    }

    pub(super) fn allocate(&mut self, inode: Inode, offset: u64, len: u64) -> Result<()> {
        self.begin(format!("fallocate of {len} bytes at {offset} of file {inode}"))?;
        let end = offset + len;
        let sectors = offset / SECTOR..end.div_ceil(SECTOR);
        let mut effects = vec![Effect::Allocate { inode, sectors }];
        if end > self.len(inode)? {
            fs::ftruncate(&self.nodes[inode].memory, end)?;
            effects.push(Effect::Size { inode, len: end });
        }
        self.history.push(effects);
        Ok(())
    }

    pub(super) fn truncate(&mut self, inode: Inode, len: u64) -> Result<()> {
        self.begin(format!("ftruncate of file {inode} to {len}"))?;
        let node = &mut self.nodes[inode];
        fs::ftruncate(&node.memory, len)?;
        let sectors = len.div_ceil(SECTOR);
        node.dirty.retain(|index| *index < sectors);
        node.clean.retain(|index| *index < sectors);
        self.history.push(vec![Effect::Size { inode, len }]);
        Ok(())
    }

    pub(super) fn write(&mut self, inode: Inode, parts: &[&[u8]], offset: u64) -> Result<usize> {
        let data = parts.concat();
        let len = data.len();
        self.begin(format!("pwrite of {len} bytes at {offset} of file {inode}"))?;
        let before = self.len(inode)?;
        let node = &mut self.nodes[inode];
        write_within(&node.memory, offset, &data, u64::MAX)?;
        let end = offset + len as u64;
        let mut effects = Vec::new();
        for index in offset / SECTOR..end.div_ceil(SECTOR) {
            node.dirty.insert(index);
            let bytes = read_sector(&node.memory, index)?.into();
            effects.push(Effect::Sector { inode, index, bytes });
        }
        self.history.push(effects);
        if end > before {
            self.history.lengthen(inode, before, end);
        }
        Ok(len)
    }

    pub(super) fn change_mode(&mut self, inode: Inode, mode: Mode) -> Result<()> {
        let bits = mode.as_raw_mode();
        self.begin(format!("fchmod of file {inode} to {bits:o}"))?;
        fs::fchmod(&self.nodes[inode].memory, mode)?;
        self.history.push(vec![Effect::Mode { inode, bits }]);
        Ok(())
    }

    /// What no sync has covered, hole or not.
    pub(super) fn unwritten(&self, inode: Inode, len: u64) -> Vec<Range<u64>> {
        let mut parts: Vec<Range<u64>> = Vec::new();
        for index in 0..len.div_ceil(SECTOR) {
            if self.nodes[inode].clean.contains(&index) {
                continue;
            }
            let (from, to) = (index * SECTOR, ((index + 1) * SECTOR).min(len));
            match parts.last_mut() {
                Some(last) if last.end == from => last.end = to,
                _ => parts.push(from..to),
            }
        }
        parts
    }

    /// The cache takes what is not dirty from the medium, which after a failed sync is what it
    /// was.
    pub(super) fn forget_cached(&mut self, inode: Inode) -> Result<()> {
        let settled = self.history.settled();
        let len = self.len(inode)?;
        let node = &self.nodes[inode];
        let Some(file) = settled.file(inode) else { return Ok(()) };
        let bytes = file.bytes();
        for index in (0..len.div_ceil(SECTOR)).filter(|index| !node.dirty.contains(index)) {
            let at = (index * SECTOR) as usize;
            let mut sector = [0; SECTOR as usize];
            let rest = bytes.get(at..).unwrap_or(&[]);
            let there = rest.len().min(sector.len());
            sector[..there].copy_from_slice(&rest[..there]);
            write_within(&node.memory, index * SECTOR, &sector, len)?;
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, sync: Sync) -> Result<()> {
        let (kind, text) = match sync {
            Sync::Data(inode) => (SyncCall::Data, format!("fdatasync of file {inode}")),
            Sync::File(inode) => (SyncCall::File, format!("fsync of file {inode}")),
            Sync::Directory => (SyncCall::Directory, "fsync of the directory".into()),
        };
        let number = self.syncs[kind as usize];
        self.syncs[kind as usize] += 1;
        self.begin(text).inspect_err(|_| self.lose(sync))?;
        let mut left_out = false;
        for tamper in &self.tampers {
            match tamper {
                Tamper::LeaveOut(of, which) if *of == kind => left_out |= which.is(number),
                Tamper::Late(of, which, names) if *of == kind && which.is(number) => {
                    left_out = true;
                    self.late = Some((sync, *names));
                }
                _ => {}
            }
        }
        if left_out {
            if let Some(call) = self.history.calls.last_mut() {
                call.text += " (not made)";
            }
        } else {
            self.synced(sync);
        }
        Ok(())
    }

    /// Whoever syncs the filesystem wants space. What that makes durable is left open: a program
    /// that relied on it would be told so.
    pub(super) fn sync_all(&mut self) -> Result<()> {
        self.begin("syncfs".into())
    }

    fn synced(&mut self, sync: Sync) {
        if let Sync::File(inode) | Sync::Data(inode) = sync {
            let node = &mut self.nodes[inode];
            node.clean.append(&mut node.dirty);
        }
        self.history.sync(sync);
    }

    /// A failed sync: pages are marked clean, and their content stays.
    fn lose(&mut self, sync: Sync) {
        if let Sync::File(inode) | Sync::Data(inode) = sync {
            self.nodes[inode].dirty.clear();
        }
        self.history.lose(sync);
    }

    pub(super) fn link(&mut self, inode: Inode, name: &OsStr) -> Result<()> {
        if self.names.contains_key(name) {
            return Err(Errno::EXIST);
        }
        // A file that has lost its last name gets no other (`vfs_link`, fs/namei.c).
        if self.nodes[inode].links == 0 && !self.nodes[inode].linkable {
            return Err(Errno::NOENT);
        }
        self.begin(format!("linkat of file {inode} to {}", name.display()))?;
        self.nodes[inode].linkable = false;
        let effects = vec![self.enter(name, Some(inode)), self.count(inode, 1)];
        self.history.push(effects);
        self.named();
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &OsStr, to: &OsStr, replace: bool) -> Result<()> {
        let inode = self.find(from)?;
        let replaced = self.names.get(to).copied();
        match replaced {
            Some(_) if !replace => return Err(Errno::EXIST),
            // rename(2): two names of one file, nothing happens.
            Some(same) if same == inode => return Ok(()),
            _ => {}
        }
        self.begin(format!("renameat of {} to {}", from.display(), to.display()))?;
        let mut effects = vec![self.enter(from, None), self.enter(to, Some(inode))];
        effects.extend(replaced.map(|replaced| self.count(replaced, -1)));
        self.history.push(effects);
        self.named();
        Ok(())
    }

    pub(super) fn exchange(&mut self, one: &OsStr, other: &OsStr) -> Result<()> {
        let (first, second) = (self.find(one)?, self.find(other)?);
        self.begin(format!("exchange of {} and {}", one.display(), other.display()))?;
        let effects = vec![self.enter(one, Some(second)), self.enter(other, Some(first))];
        self.history.push(effects);
        self.named();
        Ok(())
    }

    pub(super) fn unlink(&mut self, name: &OsStr) -> Result<()> {
        let inode = *self.names.get(name).ok_or(Errno::NOENT)?;
        self.begin(format!("unlinkat of {}", name.display()))?;
        let effects = vec![self.enter(name, None), self.count(inode, -1)];
        self.history.push(effects);
        self.named();
        Ok(())
    }

    fn enter(&mut self, name: &OsStr, to: Option<Inode>) -> Effect {
        match to {
            Some(inode) => self.names.insert(name.to_owned(), inode),
            None => self.names.remove(name),
        };
        Effect::Entry { name: name.to_owned(), to }
    }

    fn count(&mut self, inode: Inode, by: i32) -> Effect {
        let node = &mut self.nodes[inode];
        node.links = node.links.saturating_add_signed(by);
        Effect::Links { inode, count: node.links }
    }
}

impl Which {
    fn is(self, number: usize) -> bool {
        match self {
            Self::Only(only) => number == only,
            Self::From(first) => number >= first,
        }
    }
}

fn read_sector(memory: &OwnedFd, index: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; SECTOR as usize];
    let mut done = 0;
    while done < bytes.len() {
        match io::pread(memory, &mut bytes[done..], index * SECTOR + done as u64)? {
            0 => break,
            got => done += got,
        }
    }
    Ok(bytes)
}

/// Writes what lies below `end`.
fn write_within(memory: &OwnedFd, offset: u64, data: &[u8], end: u64) -> Result<()> {
    let len = end.saturating_sub(offset).min(data.len() as u64) as usize;
    let mut done = 0;
    while done < len {
        done += io::pwrite(memory, &data[done..len], offset + done as u64)?;
    }
    Ok(())
}
