//! A block device that can fail, and that remembers.
//!
//! A loop device over a FUSE server of this process: the server's one file is the medium. It
//! sees every write, discard and flush that a filesystem sends, when it is sent, keeps a log of
//! them, and fails what it is told to fail. No device-mapper is needed.
//!
//! ```no_run
//! use pmem_tests::blockdev::{Fault, FaultyDisk, Filesystem, Mounted};
//! use rustix::io::Errno;
//!
//! # fn main() -> std::io::Result<()> {
//! let disk = FaultyDisk::new(Filesystem::Ext4.size())?;
//! disk.fill(Filesystem::Ext4.template(0)?);
//! let mounted = Mounted::new(&disk, Filesystem::Ext4)?;
//! disk.plan(Fault::nth_flush(1, Errno::IO));
//! // ... something that syncs fails now ...
//! mounted.unmount()?;
//! for entry in &disk.log().entries {
//!     println!("{entry:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What the loop driver makes of requests: a flush is an fsync of the file; the device has a
//! write cache and no FUA, so that a FUA write is a write and a flush; a discard punches a hole.
//!
//! | file | question |
//! |---|---|
//! | `image` | what does a medium hold? |
//! | `log` | what was it asked, and what can a crash leave of it? |
//! | `crash` | which crashes are tried? |
//! | `medium` | what does the device answer? |
//! | `server`, `loop_device` | how does the kernel come to ask? |
//! | `disk`, `filesystem` | what do tests use? |
//! | `memory_disk` | how are many images looked at? |
//! | `reaper` | what if the process is killed? |

mod crash;
mod disk;
mod filesystem;
mod image;
mod log;
mod loop_device;
mod medium;
mod memory_disk;
mod reaper;
mod server;

pub use crash::{Crash, Limits, Stretch};
pub use disk::{FaultyDisk, LogClock};
pub use filesystem::{Disk, Filesystem, Mounted};
pub use image::Image;
pub use log::{Entry, Keep, Log, Outcome, Request, SECTOR};
pub use medium::{Counts, Fault};
pub use memory_disk::MemoryDisk;
