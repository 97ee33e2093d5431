//! What the FUSE servers of these tests share.

use std::time::SystemTime;

use fuser::{Errno as FuseErrno, FileAttr, FileType, INodeNo, ReplyEmpty};
use rustix::io::{Errno, Result};

/// Those of root's file of `size` bytes, all of them allocated, with no permissions and no times.
pub(crate) fn attributes(inode: INodeNo, size: u64) -> FileAttr {
    FileAttr {
        ino: inode,
        size,
        blocks: size / 512,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub(crate) fn errno_of(errno: Errno) -> FuseErrno {
    FuseErrno::from_i32(errno.raw_os_error())
}

pub(crate) fn answer(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno_of(errno)),
    }
}
