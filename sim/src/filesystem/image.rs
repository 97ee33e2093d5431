//! What is on the medium: names, files, sectors.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What a device writes whole or not at all, in bytes.
pub const SECTOR: u64 = 512;

/// The number of a file.
pub(super) type Inode = usize;

/// One thing on the medium that changes in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// How many names the inode believes it has; the first of these makes the inode.
    Links {
        inode: Inode,
        count: u32,
    },
    Mode {
        inode: Inode,
        bits: u32,
    },
    Size {
        inode: Inode,
        len: u64,
    },
    /// Sectors get space, unwritten where they had none.
    Allocate {
        inode: Inode,
        sectors: Range<u64>,
    },
    /// One sector's content, with its space, and its conversion from unwritten to written.
    Sector {
        inode: Inode,
        index: u64,
        bytes: Arc<[u8]>,
    },
    /// What a name of the directory leads to.
    Entry {
        name: OsString,
        to: Option<Inode>,
    },
}

impl Effect {
    pub(super) fn touches(&self, of: Inode) -> bool {
        match self {
            Self::Links { inode, .. }
            | Self::Mode { inode, .. }
            | Self::Size { inode, .. }
            | Self::Allocate { inode, .. }
            | Self::Sector { inode, .. } => *inode == of,
            Self::Entry { to, .. } => *to == Some(of),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Links { inode, count } => write!(f, "link count {count} of file {inode}"),
            Self::Mode { inode, bits } => write!(f, "mode {bits:o} of file {inode}"),
            Self::Size { inode, len } => write!(f, "size {len} of file {inode}"),
            Self::Allocate { inode, sectors } => {
                write!(f, "space for sectors {sectors:?} of file {inode}")
            }
            Self::Sector { inode, index, .. } => write!(f, "sector {index} of file {inode}"),
            Self::Entry { name, to: Some(inode) } => {
                write!(f, "name {} of file {inode}", name.display())
            }
            Self::Entry { name, to: None } => write!(f, "removal of name {}", name.display()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Sector {
    Unwritten,
    Written(Arc<[u8]>),
}

/// A file on the medium.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct File {
    links: u32,
    mode: u32,
    len: u64,
    /// Those with space; the others are holes.
    sectors: BTreeMap<u64, Sector>,
}

impl File {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Permission bits.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// What reading all of it gives. Holes and unwritten sectors are zeros.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        for (index, sector) in &self.sectors {
            let at = (index * SECTOR) as usize;
            if let (Sector::Written(written), Some(rest)) = (sector, bytes.get_mut(at..)) {
                let len = rest.len().min(written.len());
                rest[..len].copy_from_slice(&written[..len]);
            }
        }
        bytes
    }

    /// Whether every sector up to the length has space and was written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        (0..self.len.div_ceil(SECTOR))
            .all(|index| matches!(self.sectors.get(&index), Some(Sector::Written(_))))
    }

    /// Whether any sector has space.
    #[must_use]
    pub fn has_space(&self) -> bool {
        !self.sectors.is_empty()
    }

    pub(super) fn links(&self) -> u32 {
        self.links
    }

    pub(super) fn written(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.sectors.iter().filter_map(|(index, sector)| match sector {
            Sector::Written(bytes) => Some((*index, &bytes[..])),
            Sector::Unwritten => None,
        })
    }

    fn cut(&mut self, len: u64) {
        self.sectors.retain(|index, _| index * SECTOR < len);
        let last = len / SECTOR;
        if let Some(Sector::Written(bytes)) = self.sectors.get_mut(&last) {
            let mut kept = bytes.to_vec();
            kept[(len % SECTOR) as usize..].fill(0);
            *bytes = kept.into();
        }
    }
}

/// What a name shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// There is no such name.
    Nothing,
    /// The name leads to what is no file, or to an inode that says it has no names: opening it
    /// fails with `EUCLEAN`.
    Broken,
    /// A file.
    File(&'a File),
}

/// What a crash leaves of the modelled filesystem: one directory and its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Image {
    names: BTreeMap<OsString, Inode>,
    files: BTreeMap<Inode, File>,
}

impl Image {
    /// What a name shows.
    #[must_use]
    pub fn shows(&self, name: impl AsRef<OsStr>) -> Shown<'_> {
        match self.names.get(name.as_ref()) {
            None => Shown::Nothing,
            Some(inode) => match self.files.get(inode) {
                Some(file) if file.links > 0 => Shown::File(file),
                _ => Shown::Broken,
            },
        }
    }

    /// What a check of the filesystem, as by e2fsck(8), makes of it: names that lead to no file are
    /// removed.
    #[must_use]
    pub fn checked(&self) -> Self {
        let whole = |inode| self.files.get(inode).is_some_and(|file: &File| file.links > 0);
        let names = self.names.iter().filter(|(_, inode)| whole(*inode));
        let names = names.map(|(name, inode)| (name.clone(), *inode)).collect();
        Self { names, files: self.files.clone() }
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.names.keys().map(OsString::as_os_str)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&OsStr, Inode, Option<&File>)> {
        let file = |inode| self.files.get(inode).filter(|file| file.links > 0);
        self.names.iter().map(move |(name, inode)| (name.as_os_str(), *inode, file(inode)))
    }

    pub(super) fn file(&self, inode: Inode) -> Option<&File> {
        self.files.get(&inode)
    }

    pub(super) fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Links { inode, count } => {
                self.files.entry(*inode).or_default().links = *count;
            }
            Effect::Mode { inode, bits } => self.files.entry(*inode).or_default().mode = *bits,
            Effect::Size { inode, len } => {
                let file = self.files.entry(*inode).or_default();
                // What lies behind goes as well where the medium has this length already.
                if *len <= file.len {
                    file.cut(*len);
                }
                file.len = *len;
            }
            Effect::Allocate { inode, sectors } => {
                let file = self.files.entry(*inode).or_default();
                for index in sectors.clone() {
                    file.sectors.entry(index).or_insert(Sector::Unwritten);
                }
            }
            Effect::Sector { inode, index, bytes } => {
                let file = self.files.entry(*inode).or_default();
                file.sectors.insert(*index, Sector::Written(Arc::clone(bytes)));
            }
            Effect::Entry { name, to: Some(inode) } => {
                self.names.insert(name.clone(), *inode);
            }
            Effect::Entry { name, to: None } => {
                self.names.remove(name);
            }
        }
    }

    /// What the filesystem's recovery makes of it: files that no name leads to are freed.
    pub(super) fn recover(&mut self) {
        let Self { names, files } = self;
        files.retain(|inode, _| names.values().any(|named| named == inode));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(inode: Inode, index: u64, byte: u8) -> Effect {
        Effect::Sector { inode, index, bytes: vec![byte; SECTOR as usize].into() }
    }

    #[test]
    fn unwritten_sectors_and_holes_are_zeros_and_a_cut_forgets() {
        let mut image = Image::default();
        image.apply(&Effect::Links { inode: 1, count: 1 });
        image.apply(&Effect::Entry { name: "a".into(), to: Some(1) });
        image.apply(&Effect::Allocate { inode: 1, sectors: 0..2 });
        image.apply(&Effect::Size { inode: 1, len: 1536 });
        image.apply(&sector(1, 1, 7));
        let Shown::File(file) = image.shows("a") else { panic!("{image:?}") };
        let bytes = file.bytes();
        assert_eq!((bytes.len(), bytes[511], bytes[512], bytes[1024]), (1536, 0, 7, 0));
        assert!(!file.is_written());
        image.apply(&Effect::Size { inode: 1, len: 600 });
        image.apply(&Effect::Size { inode: 1, len: 1024 });
        let Shown::File(file) = image.shows("a") else { panic!("{image:?}") };
        assert_eq!((file.bytes()[599], file.bytes()[600], file.is_written()), (7, 0, false));
        // At the border of a sector: what begins there is gone, and all that is behind.
        for index in 0..3 {
            image.apply(&sector(1, index, 9));
        }
        image.apply(&Effect::Size { inode: 1, len: 512 });
        for index in 0..3 {
            image.apply(&Effect::Size { inode: 1, len: (index + 1) * SECTOR });
            let Shown::File(file) = image.shows("a") else { panic!("{image:?}") };
            assert_eq!((file.is_written(), file.bytes()[index as usize * 512]), {
                if index == 0 { (true, 9) } else { (false, 0) }
            });
        }
    }

    #[test]
    fn a_name_without_a_file_is_broken() {
        let mut image = Image::default();
        image.apply(&Effect::Entry { name: "a".into(), to: Some(1) });
        assert_eq!(image.shows("a"), Shown::Broken);
        image.apply(&Effect::Links { inode: 1, count: 0 });
        assert_eq!(image.shows("a"), Shown::Broken);
        image.apply(&Effect::Links { inode: 1, count: 1 });
        assert!(matches!(image.shows("a"), Shown::File(_)));
        assert_eq!(image.shows("b"), Shown::Nothing);
        image.apply(&Effect::Entry { name: "a".into(), to: None });
        image.recover();
        assert_eq!(image, Image::default());
    }
}
