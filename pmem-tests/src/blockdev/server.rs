//! The FUSE server: one file, which is the medium.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fuser::{
    Errno as FuseErrno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};
use rustix::io::Errno;

use super::medium::Medium;
use crate::fuse::{self, answer, errno_of};

/// The name of the file.
pub(super) const FILE: &str = "medium";

const FILE_INODE: INodeNo = INodeNo(2);
/// Nothing about the file ever changes.
const TTL: Duration = Duration::from_secs(86_400);

/// The medium, shared with the server.
pub(super) type Shared = Arc<Mutex<Medium>>;

/// A panic while it was held leaves it usable: every request is one change.
pub(super) fn lock(medium: &Shared) -> MutexGuard<'_, Medium> {
    medium.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Server {
    medium: Shared,
}

impl Server {
    pub(super) fn new(medium: Shared) -> Self {
        Self { medium }
    }

    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let root = inode == INodeNo::ROOT;
        let size = if root { 0 } else { lock(&self.medium).size() };
        FileAttr {
            kind: if root { FileType::Directory } else { FileType::RegularFile },
            perm: 0o700,
            ..fuse::attributes(inode, size)
        }
    }
}

/// A thread that serves a block device must not wait for one: its memory allocations never
/// write back dirty pages (prctl(2), PR_SET_IO_FLUSHER).
fn become_io_flusher() {
    thread_local! {
        static DONE: () = {
            // Without the capability the server works as well, until memory is short.
            let _ = rustix::process::configure_io_flusher_behavior(true);
        };
    }
    DONE.with(|()| ());
}

impl Filesystem for Server {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && Path::new(name) == Path::new(FILE) {
            reply.entry(&TTL, &self.attributes(FILE_INODE), Generation(0));
        } else {
            reply.error(FuseErrno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(ino));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // No page cache between the loop device and the medium: every request is seen, when
        // it is made.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        become_io_flusher();
        let medium = lock(&self.medium);
        let mut buf = vec![0; u64::from(size).min(medium.size().saturating_sub(offset)) as usize];
        let result = medium.read(offset, &mut buf);
        drop(medium);
        match result {
            Ok(()) => reply.data(&buf),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        become_io_flusher();
        let mut medium = lock(&self.medium);
        let inside = offset.checked_add(data.len() as u64).is_some_and(|end| end <= medium.size());
        let result = if inside { medium.write(offset, data) } else { Err(Errno::FBIG) };
        drop(medium);
        match result {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let result = lock(&self.medium).flush();
        answer(reply, result);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // What the loop driver makes of a discard and of zeros without data.
        let zeros = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & zeros == 0 {
            reply.error(FuseErrno::EOPNOTSUPP);
            return;
        }
        let mut medium = lock(&self.medium);
        let inside = offset.checked_add(length).is_some_and(|end| end <= medium.size());
        let result = if inside { medium.zero(offset, length) } else { Err(Errno::FBIG) };
        drop(medium);
        answer(reply, result);
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // close(2), not a flush of the device.
        reply.ok();
    }
}
