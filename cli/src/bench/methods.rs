//! The methods, ready to run.
//!
//! # Safety
//!
//! The danger here is a writable mapping of a file (`store + msync`): a Rust slice over memory that
//! others could change. The file is in a directory that only this user can enter, under a name that
//! only this run uses.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use daxmap::{AnyRegion, Emulation, Options, Region};
use memmap2::MmapMut;

use super::plan::Method;
use super::scratch::{doing, make_file};

/// A method with the file or memory it works on.
pub enum Ready {
    /// Region persist, on its own backend or emulated.
    Region(Box<AnyRegion>),
    /// pwrite + fdatasync.
    Fdatasync(File),
    /// pwrite + fsync.
    Fsync(File),
    /// pwrite to a file opened with `O_DSYNC`.
    Dsync(File),
    /// Store + msync.
    Msync(MmapMut),
    /// Copy to memory.
    Copy(Vec<u8>),
    /// fdatasync of a clean file.
    Flush(File),
    /// getppid.
    EmptyCall,
    /// Nothing.
    Nothing,
}

/// Prepares a method; what it needs goes into `directory`. `len` is the length of its file.
pub fn prepare(method: Method, directory: &Path, len: u64) -> io::Result<Ready> {
    let path = directory.join(method.key());
    let file = || make_file(&path, len).map_err(doing(format!("create {}", path.display())));
    Ok(match method {
        Method::RegionPersist => Ready::Region(Box::new(Options::new().len(len).create(&path)?)),
        Method::CacheLineFlush => {
            let options = Options::new().len(len).emulate(Emulation::Adr);
            Ready::Region(Box::new(options.in_memory()?))
        }
        Method::PwriteFdatasync => Ready::Fdatasync(file()?),
        Method::PwriteFsync => Ready::Fsync(file()?),
        Method::DsyncPwrite => {
            file()?;
            // O_DSYNC from libc: rustix's OFlags::DSYNC has the bits of O_SYNC.
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_DSYNC);
            Ready::Dsync(options.open(&path).map_err(doing(format!("open {}", path.display())))?)
        }
        Method::StoreMsync => {
            let file = file()?;
            // SAFETY: nobody else has this file: its name was new (O_EXCL), in a directory of mode
            // 0700 that this process made, and nothing in this process truncates or writes it while
            // the mapping lives. A process of the same user that searched it out could; that is
            // the risk of every program with a mapped file.
            let map = unsafe { MmapMut::map_mut(&file) };
            Ready::Msync(map.map_err(doing(format!("mmap {}", path.display())))?)
        }
        Method::Copy => Ready::Copy(vec![1; len as usize]),
        Method::DeviceFlush => Ready::Flush(
            make_file(&path, 4096).map_err(doing(format!("create {}", path.display())))?,
        ),
        Method::EmptyCall => Ready::EmptyCall,
        Method::Clock => Ready::Nothing,
    })
}

/// Takes a durable update of a file: an offset, and the bytes.
pub trait Visitor {
    /// Runs `update` as often as it likes.
    fn visit(&mut self, update: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()>;
}

impl Ready {
    /// Hands the update to `visitor`, one function for each method, so that the choice is made once
    /// and not inside what is timed.
    pub fn accept(&mut self, visitor: &mut impl Visitor) -> io::Result<()> {
        match self {
            Self::Region(region) => {
                let region: &AnyRegion = region;
                visitor.visit(|at, data| region.write_persist(at, data).map_err(io::Error::from))
            }
            Self::Fdatasync(file) => visitor.visit(|at, data| {
                file.write_all_at(data, at)?;
                file.sync_data()
            }),
            Self::Fsync(file) => visitor.visit(|at, data| {
                file.write_all_at(data, at)?;
                file.sync_all()
            }),
            Self::Dsync(file) => visitor.visit(|at, data| file.write_all_at(data, at)),
            Self::Msync(map) => visitor.visit(|at, data| {
                let at = at as usize;
                map[at..at + data.len()].copy_from_slice(data);
                map.flush_range(at, data.len())
            }),
            Self::Copy(memory) => visitor.visit(|at, data| {
                let to = &mut memory[at as usize..at as usize + data.len()];
                to.copy_from_slice(data);
                black_box(to);
                Ok(())
            }),
            Self::Flush(file) => visitor.visit(|_, _| file.sync_data()),
            Self::EmptyCall => visitor.visit(|_, _| {
                black_box(rustix::process::getppid());
                Ok(())
            }),
            Self::Nothing => visitor.visit(|_, _| Ok(())),
        }
    }
}
