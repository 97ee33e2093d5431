//! The file behind a loop device: which one it is, and whether its blocks are its own.
//!
//! sysfs gives the path of the file as the mount namespace that set the device up saw it. What that
//! path leads to here may be another file, so the driver is asked for the file's device and inode
//! (`LOOP_GET_STATUS64`, drivers/block/loop.c), for which its node is opened for reading.
//!
//! A file with holes, or with blocks that it shares with another one, takes new blocks when it is
//! written to, and the disk below may have none left. The driver then ended a short write as success,
//! so that the filesystem above was told that its blocks were safe.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::extents::EXTENTS_MAX;
use super::ioctl;
use super::report::LoopImage;
use super::sources::{Number, Sources};
use crate::fiemap;

/// A file, by the number of its filesystem's device and its inode.
pub(super) type Identity = (Number, u64);

/// The file that the driver says is behind the loop device `name`; `None` if its node cannot be
/// opened, or is another device's.
pub(super) fn file(sources: &Sources, name: &str, number: Number) -> Option<Identity> {
    if let Some(root) = sources.made_up() {
        let text = std::fs::read_to_string(root.join(format!("dev/{name}.loop"))).ok()?;
        return identity(text.split_ascii_whitespace());
    }
    let node = sources.open_block_node(name, number)?;
    ioctl::loop_file(node.as_fd())
}

/// What the file at `path` is, if it is the one with this identity.
pub(super) fn image(sources: &Sources, path: &Path, expected: Identity) -> LoopImage {
    if let Some(root) = sources.made_up() {
        let path = root.join(path.strip_prefix("/").unwrap_or(path));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut words = text.split_ascii_whitespace();
        return match (identity(&mut words), words.next()) {
            (Some(found), _) if found != expected => LoopImage::Elsewhere,
            (Some(_), Some("allocated")) => LoopImage::Allocated,
            (Some(_), Some("sparse")) => LoopImage::Sparse,
            (Some(_), Some("shared")) => LoopImage::CopyOnWrite,
            (Some(_), _) => LoopImage::Unknown,
            (None, _) => LoopImage::Elsewhere,
        };
    }
    // Looked at before it is opened: the path may lead to a FIFO or a device here. The file itself
    // the driver holds open for writing, so nobody has a lease on it.
    let open = |path: &Path, flags| File::options().read(true).custom_flags(flags).open(path);
    let Ok(named) = open(path, libc::O_PATH) else { return LoopImage::Elsewhere };
    let Ok(found) = named.metadata() else { return LoopImage::Elsewhere };
    if !found.is_file() || (split(found.dev()), found.ino()) != expected {
        return LoopImage::Elsewhere;
    }
    let again = format!("/proc/thread-self/fd/{}", named.as_raw_fd());
    let Ok(file) = open(Path::new(&again), libc::O_NONBLOCK) else { return LoopImage::Unknown };
    allocation(&file, found.len())
}

/// Whether every byte of the file has a block of its own.
fn allocation(file: &File, len: u64) -> LoopImage {
    let mut answer = LoopImage::Allocated;
    let mut next = 0;
    let mut left = EXTENTS_MAX;
    let told = fiemap::extents(file.as_fd(), 0..len, |extent| {
        left = left.saturating_sub(1);
        if left == 0 {
            answer = LoopImage::Unknown;
        } else if extent.flags & fiemap::SHARED != 0 {
            answer = LoopImage::CopyOnWrite;
        } else if extent.logical > next {
            answer = LoopImage::Sparse;
        }
        next = extent.logical.saturating_add(extent.length);
        if answer == LoopImage::Allocated {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    match told {
        Err(_) => LoopImage::Unknown,
        Ok(()) if answer == LoopImage::Allocated && next < len => LoopImage::Sparse,
        Ok(()) => answer,
    }
}

fn split(device: u64) -> Number {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// Reads `major:minor inode`.
fn identity<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Identity> {
    let device = super::sources::parse_number(words.next()?)?;
    Some((device, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// On the filesystem of the build, which is ext4 or xfs where these tests are run.
    #[test]
    fn holes_are_found_at_the_start_in_the_middle_and_at_the_end() {
        const BLOCK: u64 = 64 << 10;
        let whole = [0, 1, 2, 3];
        for (blocks, expected) in [
            (&whole[..], LoopImage::Allocated),
            (&[1, 2, 3], LoopImage::Sparse),
            (&[0, 2, 3], LoopImage::Sparse),
            (&[0, 1, 2], LoopImage::Sparse),
            (&[], LoopImage::Sparse),
        ] {
            let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
            file.set_len(4 * BLOCK).unwrap();
            for block in blocks {
                std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(block * BLOCK)).unwrap();
                file.write_all(&vec![7; BLOCK as usize]).unwrap();
            }
            assert_eq!(allocation(&file, 4 * BLOCK), expected, "not yet on the disk: {blocks:?}");
            file.sync_all().unwrap();
            assert_eq!(allocation(&file, 4 * BLOCK), expected, "{blocks:?}");
        }
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BLOCK).unwrap();
        assert_eq!(allocation(&file, BLOCK), LoopImage::Allocated, "unwritten blocks are blocks");
        assert_eq!(allocation(&file, 0), LoopImage::Allocated);
    }

    #[test]
    fn a_filesystem_that_does_not_tell_its_blocks() {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.write_all(&[7; 8192]).unwrap();
        assert_eq!(allocation(&file, 8192), LoopImage::Unknown);
    }
}
