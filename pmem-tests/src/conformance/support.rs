//! What the checks share: a bench to work on, patterns, and how a refusal looks.

use std::fmt::Debug;
use std::fs::File;
use std::io::IoSlice;

use daxmap::{AnyRegion, Backend, ErrorKind, Granularity, Options, Region, Result};

use super::subject::{Access, Facts, Subject};

/// Bytes in a page, or a multiple of it; the unit in which checks cut files.
pub(super) const PAGE: u64 = 4096;

/// A subject and a file of its own for one check.
pub(super) struct Bench<'a> {
    pub(super) subject: &'a dyn Subject,
    file: &'static str,
}

impl<'a> Bench<'a> {
    pub(super) fn new(subject: &'a dyn Subject, file: &'static str) -> Self {
        subject.remove(file);
        Self { subject, file }
    }

    pub(super) fn facts(&self) -> Facts {
        self.subject.facts()
    }

    /// A region of `len` bytes that cannot be expected to grow.
    pub(super) fn create(&self, len: u64) -> Box<dyn Region> {
        self.create_growable(len, len)
    }

    pub(super) fn create_growable(&self, len: u64, max_len: u64) -> Box<dyn Region> {
        self.subject.remove(self.file);
        match self.subject.create(self.file, len, max_len) {
            Ok(region) => region,
            Err(error) => panic!("create: {error}"),
        }
    }

    pub(super) fn try_open(&self, access: Access) -> Result<Box<dyn Region>> {
        self.subject.open(self.file, access)
    }

    pub(super) fn open(&self, access: Access) -> Box<dyn Region> {
        match self.try_open(access) {
            Ok(region) => region,
            Err(error) => panic!("open {access:?}: {error}"),
        }
    }

    pub(super) fn opened_with(
        &self,
        change: &dyn Fn(Options) -> Options,
    ) -> Option<Result<AnyRegion>> {
        self.subject.opened_with(self.file, change)
    }

    pub(super) fn file(&self) -> Option<File> {
        self.subject.file(self.file)
    }

    pub(super) fn adopt(&self, file: File) -> Option<Result<AnyRegion>> {
        self.subject.adopt(file)
    }

    pub(super) fn report(&self) -> Option<(daxmap::probe::Report, Box<dyn Region>)> {
        self.subject.report(self.file)
    }

    /// `false` if the subject cannot be cut.
    pub(super) fn cut(&self, len: u64) -> bool {
        self.subject.cut(self.file, len)
    }

    pub(super) fn stored(&self) -> Option<Vec<u8>> {
        self.subject.stored(self.file)
    }

    pub(super) fn writes_lines_back(&self) -> bool {
        self.facts().granularity == Granularity::CacheLine
    }

    /// True if stores go straight into a mapping, so that they meet a page that is gone.
    pub(super) fn stores_into_mapping(&self) -> bool {
        self.facts().backend != Backend::PageCache
    }

    /// True if bytes go in and out by this process's own instructions. A kernel's copy can be
    /// interrupted anywhere, within a word too, and who looks meanwhile sees the word torn.
    pub(super) fn copies_itself(&self) -> bool {
        self.stores_into_mapping() && self.facts().guarded
    }

    pub(super) fn grows(&self) -> bool {
        self.facts().backend != Backend::DevDax
    }
}

/// `len` bytes, none of them zero, that differ with `seed`.
pub(super) fn pattern(len: u64, seed: u64) -> Vec<u8> {
    let byte = |i: u64| {
        let mixed = (i.wrapping_add(seed << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed >> 56) % 255 + 1) as u8
    };
    (0..len).map(byte).collect()
}

/// Every byte of the region, by `read`.
pub(super) fn contents(region: &dyn Region) -> Vec<u8> {
    let mut bytes = vec![0xEE; region.len() as usize];
    region.read(0, &mut bytes).expect("the whole region can be read");
    bytes
}

/// Compares without printing megabytes.
#[track_caller]
pub(super) fn same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    if let Some(at) = (0..found.len()).find(|&i| found[i] != expected[i]) {
        panic!("{what}: byte {at} is {:#04x}, not {:#04x}", found[at], expected[at]);
    }
}

/// How a call may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    OutOfBounds,
    Unaligned,
    TooLarge,
    Gone,
    Failed,
    Closed,
    ReadOnly,
    Locked,
    Unsupported,
    /// Of a system call, with this errno.
    Os(i32),
}

impl Refusal {
    fn of(kind: &ErrorKind) -> Option<Self> {
        Some(match kind {
            ErrorKind::OutOfBounds { .. } => Self::OutOfBounds,
            ErrorKind::Unaligned { align: 8 } => Self::Unaligned,
            ErrorKind::TooLarge { .. } => Self::TooLarge,
            ErrorKind::Gone => Self::Gone,
            ErrorKind::Failed(_) => Self::Failed,
            ErrorKind::Closed => Self::Closed,
            ErrorKind::ReadOnly => Self::ReadOnly,
            ErrorKind::Locked => Self::Locked,
            ErrorKind::Unsupported(_) => Self::Unsupported,
            ErrorKind::Os(errno) => Self::Os(*errno),
            _ => return None,
        })
    }
}

/// The result must be this refusal, with a path and a message that names operation and path.
#[track_caller]
pub(super) fn refused<T: Debug>(what: &str, result: Result<T>, expected: Refusal) -> daxmap::Error {
    let error = match result {
        Ok(value) => panic!("{what}: {value:?}, where {expected:?} was expected"),
        Err(error) => error,
    };
    assert_eq!(Refusal::of(error.kind()), Some(expected), "{what}: {error}");
    let path = error.path().unwrap_or_else(|| panic!("{what}: no path in: {error}"));
    let message = error.to_string();
    assert!(message.contains(error.operation().as_str()), "{what}: no operation in: {message}");
    assert!(message.contains(&*path.to_string_lossy()), "{what}: no path in: {message}");
    error
}

/// A method of the trait that takes a range.
#[derive(Clone, Copy)]
pub(super) struct Method {
    pub(super) name: &'static str,
    /// Refused on a read-only region.
    pub(super) mutates: bool,
    /// Takes a buffer, so a length of terabytes cannot be asked for.
    pub(super) buffer: bool,
    pub(super) call: fn(&dyn Region, u64, u64) -> Result<()>,
}

/// The byte that [`METHODS`] store.
pub(super) const STORED: u8 = 0xA5;

fn bytes(len: u64) -> Vec<u8> {
    vec![STORED; len as usize]
}

/// Every method that takes an offset and a length.
#[allow(unsafe_code)]
pub(super) const METHODS: &[Method] = &[
    Method {
        name: "read",
        mutates: false,
        buffer: true,
        call: |region, offset, len| region.read(offset, &mut bytes(len)),
    },
    Method {
        name: "write",
        mutates: true,
        buffer: true,
        call: |region, offset, len| region.write(offset, &bytes(len)),
    },
    Method {
        name: "write_flush",
        mutates: true,
        buffer: true,
        call: |region, offset, len| region.write_flush(offset, &bytes(len)),
    },
    Method {
        name: "write_persist",
        mutates: true,
        buffer: true,
        call: |region, offset, len| region.write_persist(offset, &bytes(len)),
    },
    Method {
        name: "write_stream",
        mutates: true,
        buffer: true,
        call: |region, offset, len| region.write_stream(offset, &bytes(len)),
    },
    Method {
        name: "write_vectored",
        mutates: true,
        buffer: true,
        call: |region, offset, len| {
            let bytes = bytes(len);
            let (one, other) = bytes.split_at(bytes.len() / 3);
            region.write_vectored(offset, &[IoSlice::new(one), IoSlice::new(other)])
        },
    },
    Method {
        name: "fill_flush",
        mutates: true,
        buffer: false,
        call: |region, offset, len| region.fill_flush(offset, len, STORED),
    },
    Method {
        name: "flush",
        mutates: true,
        buffer: false,
        call: |region, offset, len| region.flush(offset, len),
    },
    Method {
        name: "persist",
        mutates: true,
        buffer: false,
        call: |region, offset, len| region.persist(offset, len),
    },
    Method {
        name: "deep_flush",
        mutates: true,
        buffer: false,
        call: |region, offset, len| region.deep_flush(offset, len),
    },
    Method {
        name: "slice",
        mutates: false,
        buffer: false,
        // SAFETY: nothing reads the view.
        call: |region, offset, len| unsafe { region.slice(offset, len).map(drop_view) },
    },
    Method {
        name: "slice_mut",
        mutates: true,
        buffer: false,
        // SAFETY: nothing uses the view.
        call: |region, offset, len| unsafe {
            region.slice_mut(offset, len).map(|view| drop_view(view))
        },
    },
];

fn drop_view(_view: &[u8]) {}

/// Every method that takes the offset of a word.
pub(super) const WORD_METHODS: &[Method] = &[
    Method {
        name: "load_u64",
        mutates: false,
        buffer: false,
        call: |region, offset, _| region.load_u64(offset).map(drop),
    },
    Method {
        name: "store_u64",
        mutates: true,
        buffer: false,
        call: |region, offset, _| region.store_u64(offset, u64::from_ne_bytes([STORED; 8])),
    },
    Method {
        name: "compare_exchange_u64",
        mutates: true,
        buffer: false,
        call: |region, offset, _| {
            // Expects every value in turn that a test leaves there, so that it would store.
            let found = region.compare_exchange_u64(offset, 0, u64::from_ne_bytes([STORED; 8]))?;
            if let Err(found) = found {
                let new = u64::from_ne_bytes([STORED; 8]);
                region.compare_exchange_u64(offset, found, new)?.expect("nobody else stores");
            }
            Ok(())
        },
    },
];

impl Method {
    /// True if this subject offers the method at all, with a range in its length.
    pub(super) fn offered(&self, facts: &Facts) -> bool {
        match self.name {
            "slice_mut" => facts.writable_views,
            "deep_flush" => facts.backend != Backend::DevDax,
            _ => true,
        }
    }
}
