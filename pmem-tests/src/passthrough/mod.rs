//! A FUSE filesystem that passes everything on to a directory, syncs included.
//!
//! What a FUSE filesystem may lack, this one lacks: `O_TMPFILE`, and `FIEMAP` (the `fuser` crate
//! has no such requests). What it has is honest: fsync of a file or a directory is an fsync of the
//! one behind it, and returns what that returns.
//!
//! An inode is a descriptor opened with `O_PATH`, which keeps the number of the file behind it
//! from being used again, and works for files that have lost their names.

mod requests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, OpenFlags, ReplyEntry,
    ReplyXattr, Session, SessionACL,
};
use rustix::fs::{self, AtFlags, Dir, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::{Errno, Result};
use rustix::mount::{MountFlags, mount};

use crate::fuse::{self, errno_of};

/// Nothing is known for longer than the answer takes: tests look through the mount and behind it.
const TTL: Duration = Duration::ZERO;

/// Syncs of files begun so far, by all filesystems of this process.
pub static SYNCS: AtomicU64 = AtomicU64::new(0);
/// Milliseconds that every sync of a file takes longer.
pub static SYNC_DELAY_MS: AtomicU64 = AtomicU64::new(0);

/// What the files of the other program hold: see [`Habits::has_rival`].
pub const RIVAL: &[u8] = b"another program's";

/// What a filesystem does differently, as others do.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // independent habits
pub struct Habits {
    /// One name in any case, as `chattr +F` has it, and FAT.
    pub folds_case: bool,
    /// There are no hard links (EPERM), as on FAT.
    pub no_links: bool,
    /// renameat2(2) knows no flags (EINVAL).
    pub no_rename_flags: bool,
    /// Every rename is a plain one, whatever its flags ask for, and success is reported.
    pub ignores_rename_flags: bool,
    /// Whenever the kernel has found a name free and it is to be taken, another program makes a file of
    /// that name first: see [`RIVAL`].
    pub has_rival: bool,
    /// Files cannot be mapped shared (ENODEV), as with `direct_io`.
    pub no_shared_mappings: bool,
    /// A directory cannot be synced (EINVAL).
    pub no_directory_sync: bool,
    /// fstatfs(2) says that no block is free.
    pub no_free_space: bool,
}

/// Mounts `behind` on `point`, and serves it from another thread until it is unmounted.
///
/// # Errors
///
/// Without root or `/dev/fuse`.
pub fn mount_over(behind: &Path, point: &Path) -> io::Result<JoinHandle<io::Result<()>>> {
    mount_with(behind, point, Habits::default())
}

/// As [`mount_over`], with the habits of another filesystem.
///
/// # Errors
///
/// As there.
pub fn mount_with(
    behind: &Path,
    point: &Path,
    habits: Habits,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let channel = OwnedFd::from(File::options().read(true).write(true).open("/dev/fuse")?);
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions",
        channel.as_raw_fd()
    );
    let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
    let server = Server::new(behind, habits)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("daxmap-passthrough", point, "fuse", flags, options.as_c_str())?;
    let session = Session::from_fd(server, channel, SessionACL::All, Config::default())?;
    Ok(session.spawn()?.guard)
}

/// `XATTR_SIZE_MAX` (include/uapi/linux/limits.h).
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

struct Inode {
    fd: Arc<OwnedFd>,
    /// How often the kernel was told of it.
    lookups: u64,
}

enum Handle {
    File(Arc<OwnedFd>),
    /// What a directory held when it was opened.
    Directory(Vec<(u64, FileType, Vec<u8>)>),
}

#[derive(Default)]
struct Tables {
    inodes: HashMap<u64, Inode>,
    handles: HashMap<u64, Handle>,
    next_handle: u64,
}

struct Server {
    tables: Mutex<Tables>,
    habits: Habits,
}

fn through_proc(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn kind_of(mode: u32) -> FileType {
    match fs::FileType::from_raw_mode(mode) {
        fs::FileType::Directory => FileType::Directory,
        fs::FileType::Symlink => FileType::Symlink,
        fs::FileType::Fifo => FileType::NamedPipe,
        fs::FileType::Socket => FileType::Socket,
        fs::FileType::CharacterDevice => FileType::CharDevice,
        fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let since = Duration::new(u64::try_from(seconds).unwrap_or(0), nanoseconds as u32);
    SystemTime::UNIX_EPOCH + since
}

fn attributes(inode: u64, found: &Stat) -> FileAttr {
    FileAttr {
        blocks: found.st_blocks.cast_unsigned(),
        atime: time(found.st_atime, found.st_atime_nsec),
        mtime: time(found.st_mtime, found.st_mtime_nsec),
        ctime: time(found.st_ctime, found.st_ctime_nsec),
        kind: kind_of(found.st_mode),
        perm: (found.st_mode & 0o7777) as u16,
        nlink: found.st_nlink as u32,
        uid: found.st_uid,
        gid: found.st_gid,
        rdev: found.st_rdev as u32,
        ..fuse::attributes(INodeNo(inode), found.st_size.cast_unsigned())
    }
}

fn answer_entry(reply: ReplyEntry, result: Result<FileAttr>) {
    match result {
        Ok(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
        Err(errno) => reply.error(errno_of(errno)),
    }
}

impl Server {
    fn new(behind: &Path, habits: Habits) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(behind, flags, Mode::empty())?;
        let mut tables = Tables::default();
        tables.inodes.insert(INodeNo::ROOT.0, Inode { fd: Arc::new(root), lookups: u64::MAX / 2 });
        Ok(Self { tables: Mutex::new(tables), habits })
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inode(&self, inode: INodeNo) -> Result<Arc<OwnedFd>> {
        self.tables().inodes.get(&inode.0).map(|inode| Arc::clone(&inode.fd)).ok_or(Errno::STALE)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<OwnedFd>> {
        match self.tables().handles.get(&handle.0) {
            Some(Handle::File(fd)) => Ok(Arc::clone(fd)),
            _ => Err(Errno::BADF),
        }
    }

    fn keep(&self, handle: Handle) -> FileHandle {
        let mut tables = self.tables();
        tables.next_handle += 1;
        let number = tables.next_handle;
        tables.handles.insert(number, handle);
        FileHandle(number)
    }

    /// The name as the directory behind has it.
    fn fold<'a>(&self, name: &'a OsStr) -> Cow<'a, OsStr> {
        match name.to_str() {
            Some(text) if self.habits.folds_case => Cow::Owned(text.to_lowercase().into()),
            _ => Cow::Borrowed(name),
        }
    }

    /// Makes the file of the other program, unless the name is a temporary one or taken.
    fn let_rival_in(&self, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        if !self.habits.has_rival || name.as_encoded_bytes().starts_with(b".") {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => rustix::io::write(file, RIVAL).map(drop),
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn open_flags(&self) -> FopenFlags {
        if self.habits.no_shared_mappings {
            FopenFlags::FOPEN_DIRECT_IO
        } else {
            FopenFlags::empty()
        }
    }

    /// Finds a name, and counts that the kernel knows its inode.
    fn find(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let parent = self.inode(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&parent, &*self.fold(name), flags, Mode::empty())?;
        let found = fs::fstat(&fd)?;
        let mut tables = self.tables();
        let inode = tables
            .inodes
            .entry(found.st_ino)
            .or_insert_with(|| Inode { fd: Arc::new(fd), lookups: 0 });
        inode.lookups += 1;
        Ok(attributes(found.st_ino, &found))
    }

    fn attributes_of(&self, inode: INodeNo) -> Result<FileAttr> {
        Ok(attributes(inode.0, &fs::fstat(&self.inode(inode)?)?))
    }

    fn change(
        &self,
        inode: INodeNo,
        mode: Option<u32>,
        (uid, gid): (Option<u32>, Option<u32>),
        size: Option<u64>,
    ) -> Result<FileAttr> {
        let fd = self.inode(inode)?;
        if let Some(size) = size {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            fs::ftruncate(fs::open(through_proc(&fd), flags, Mode::empty())?, size)?;
        }
        if uid.is_some() || gid.is_some() {
            let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
            fs::chownat(&fd, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = mode {
            fs::chmod(through_proc(&fd), Mode::from_raw_mode(mode & 0o7777))?;
        }
        self.attributes_of(inode)
    }

    fn open_file(&self, inode: INodeNo, flags: OpenFlags) -> Result<FileHandle> {
        let fd = self.inode(inode)?;
        let flags = OFlags::from_bits_retain(flags.0.cast_unsigned())
            .difference(OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL);
        let file = fs::open(through_proc(&fd), flags | OFlags::CLOEXEC, Mode::empty())?;
        Ok(self.keep(Handle::File(Arc::new(file))))
    }

    fn open_directory(&self, inode: INodeNo) -> Result<FileHandle> {
        let fd = self.inode(inode)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::open(through_proc(&fd), flags, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let kind = kind_of(entry.file_type().as_raw_mode());
            entries.push((entry.ino(), kind, entry.file_name().to_bytes().to_vec()));
        }
        Ok(self.keep(Handle::Directory(entries)))
    }

    fn sync(fd: impl AsFd, data_only: bool) -> Result<()> {
        if data_only { fs::fdatasync(fd) } else { fs::fsync(fd) }
    }

    /// An extended attribute, or the list of them, in the two steps of getxattr(2).
    fn attribute(size: u32, reply: ReplyXattr, get: impl FnOnce(&mut [u8]) -> Result<usize>) {
        let mut buf = vec![0; ATTRIBUTE_BYTES_MAX];
        match get(&mut buf) {
            Ok(len) if size == 0 => reply.size(len as u32),
            Ok(len) if len > size as usize => reply.error(errno_of(Errno::RANGE)),
            Ok(len) => reply.data(&buf[..len]),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }
}
