//! What the kernel asks of the server, one call each.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{self, AtFlags, FallocateFlags, FileType, Mode, OFlags, SeekFrom, XattrFlags};
use rustix::io::{Errno, pread, pwrite};

use super::{Handle, SYNC_DELAY_MS, SYNCS, Server, TTL, answer_entry, through_proc};
use crate::fuse::{answer, errno_of};

impl Filesystem for Server {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(reply, self.find(parent, name));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        let mut tables = self.tables();
        if let Some(inode) = tables.inodes.get_mut(&ino.0) {
            inode.lookups = inode.lookups.saturating_sub(nlookup);
            if inode.lookups == 0 {
                tables.inodes.remove(&ino.0);
            }
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes_of(ino) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Times are those of the file behind.
        match self.change(ino, mode, (uid, gid), size) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.inode(ino).and_then(|fd| fs::readlinkat(&fd, "", Vec::new())) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn mknod(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (kind, mode) = (FileType::from_raw_mode(mode), Mode::from_raw_mode(mode & 0o7777));
        let result = self
            .inode(parent)
            .and_then(|parent| fs::mknodat(&parent, &*self.fold(name), kind, mode, rdev.into()));
        answer_entry(reply, result.and_then(|()| self.find(parent, name)));
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let result =
            self.inode(parent).and_then(|parent| fs::mkdirat(&parent, &*self.fold(name), mode));
        answer_entry(reply, result.and_then(|()| self.find(parent, name)));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.inode(parent);
        answer(
            reply,
            removed.and_then(|parent| fs::unlinkat(&parent, &*self.fold(name), AtFlags::empty())),
        );
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.inode(parent);
        answer(
            reply,
            removed.and_then(|parent| fs::unlinkat(&parent, &*self.fold(name), AtFlags::REMOVEDIR)),
        );
    }

    fn symlink(
        &self,
        _req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let result = self
            .inode(parent)
            .and_then(|parent| fs::symlinkat(target, &parent, &*self.fold(link_name)));
        answer_entry(reply, result.and_then(|()| self.find(parent, link_name)));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut flags = fs::RenameFlags::from_bits_retain(flags.bits());
        let renamed = self.inode(parent).and_then(|parent| {
            if self.habits.no_rename_flags && !flags.is_empty() {
                return Err(Errno::INVAL);
            }
            let (name, newname) = (self.fold(name), self.fold(newname));
            if flags.contains(fs::RenameFlags::NOREPLACE) {
                self.let_rival_in(&parent, &newname)?;
            }
            if self.habits.ignores_rename_flags {
                flags = fs::RenameFlags::empty();
            }
            fs::renameat_with(&parent, &*name, &self.inode(newparent)?, &*newname, flags)
        });
        answer(reply, renamed);
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.inode(ino).and_then(|fd| {
            if self.habits.no_links {
                return Err(Errno::PERM);
            }
            let (parent, newname) = (self.inode(newparent)?, self.fold(newname));
            self.let_rival_in(&parent, &newname)?;
            fs::linkat(fs::CWD, through_proc(&fd), &parent, &*newname, AtFlags::SYMLINK_FOLLOW)
        });
        answer_entry(reply, linked.and_then(|()| self.find(newparent, newname)));
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(ino, flags) {
            Ok(handle) => reply.opened(handle, self.open_flags()),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.inode(parent).and_then(|directory| {
            let flags = OFlags::from_bits_retain(flags.cast_unsigned()) | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(mode & 0o7777);
            let file = fs::openat(&directory, &*self.fold(name), flags | OFlags::CREATE, mode)?;
            Ok((self.find(parent, name)?, self.keep(Handle::File(file.into()))))
        });
        match created {
            Ok((attributes, handle)) => {
                reply.created(&TTL, &attributes, Generation(0), handle, self.open_flags());
            }
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buf = vec![0; size as usize];
        match self.file(fh).and_then(|file| pread(&file, &mut buf[..], offset)) {
            Ok(len) => reply.data(&buf[..len]),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.file(fh).and_then(|file| pwrite(&file, data, offset)) {
            Ok(len) => reply.written(len as u32),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // close(2), which promises nothing.
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.tables().handles.remove(&fh.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        SYNCS.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(SYNC_DELAY_MS.load(Ordering::SeqCst)));
        answer(reply, self.file(fh).and_then(|file| Self::sync(file, datasync)));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.open_directory(ino) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tables = self.tables();
        let Some(Handle::Directory(entries)) = tables.handles.get(&fh.0) else {
            reply.error(errno_of(Errno::BADF));
            return;
        };
        for (number, (inode, kind, name)) in entries.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*inode), number as u64 + 1, *kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.tables().handles.remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let synced = self.inode(ino).and_then(|fd| {
            if self.habits.no_directory_sync {
                return Err(Errno::INVAL);
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Self::sync(fs::open(through_proc(&fd), flags, Mode::empty())?, datasync)
        });
        answer(reply, synced);
    }

    fn statfs(&self, _req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.inode(ino).and_then(|fd| fs::statfs(through_proc(&fd))) {
            Ok(found) => reply.statfs(
                found.f_blocks,
                if self.habits.no_free_space { 0 } else { found.f_bfree },
                if self.habits.no_free_space { 0 } else { found.f_bavail },
                found.f_files,
                found.f_ffree,
                found.f_bsize.cast_unsigned() as u32,
                found.f_namelen.cast_unsigned() as u32,
                found.f_frsize.cast_unsigned() as u32,
            ),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        let set = self.inode(ino);
        answer(reply, set.and_then(|fd| fs::setxattr(through_proc(&fd), name, value, flags)));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        Self::attribute(size, reply, |buf| {
            fs::getxattr(through_proc(&self.inode(ino)?), name, buf)
        });
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        Self::attribute(size, reply, |buf| fs::listxattr(through_proc(&self.inode(ino)?), buf));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.inode(ino);
        answer(reply, removed.and_then(|fd| fs::removexattr(through_proc(&fd), name)));
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let file = self.file(fh);
        answer(reply, file.and_then(|file| fs::fallocate(&file, mode, offset, length)));
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let offset = offset.cast_unsigned();
        let to = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            // The kernel answers the others itself.
            _ => {
                reply.error(errno_of(Errno::INVAL));
                return;
            }
        };
        match self.file(fh).and_then(|file| fs::seek(&file, to)) {
            Ok(at) => reply.offset(at.cast_signed()),
            Err(errno) => reply.error(errno_of(errno)),
        }
    }
}
