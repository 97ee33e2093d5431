//! Mounts of a thread's own, and who clears away what a killed process leaves behind.
//!
//! A filesystem is alive as long as one mount namespace has it, and a new namespace copies every
//! mount of the one it comes from: any program that makes one meanwhile would keep a filesystem
//! of ours mounted, and its device would never be seen anew. So each thread that uses a device
//! has a namespace, out of which nobody copies.
//!
//! A process that is killed while one of its threads waits for a filesystem on its own block
//! device never ends by itself: the server is gone, and the waiting thread cannot be. So a shell
//! beside it watches a thread that never waits for a filesystem, and when that is gone, aborts
//! the FUSE connections, unmounts everything and detaches the loop devices.
//!
//! # Safety
//!
//! One system call without a safe form changes the calling thread's view of the mounts, and
//! nothing else.

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

/// Arguments: a thread in /proc, and a folder of a name that nobody else uses. `umount -f` of a
/// FUSE mount aborts its connection; nothing may look at such a mount before, it would wait.
const SCRIPT: &str = r#"
while [ -e "$1" ]; do sleep 0.5; done
[ -d "$2" ] || exit 0
for what in fuse mnt; do
    while read -r _ point _; do
        case "$point" in "$2"/*/"$what") umount -c -f -l "$point" ;; esac
    done </proc/self/mounts
done
for device in "$2"/*/device; do losetup -d "$(readlink "$device")"; rm -f "$device"; done
rmdir "$2"/*/fuse "$2"/*/mnt "$2"/* "$2"
"#;

/// Gives the calling thread a mount namespace and a folder in which to mount, both once, and
/// starts the reaper with the first.
pub(super) fn thread_folder() -> io::Result<PathBuf> {
    thread_local! {
        static FOLDER: OnceCell<PathBuf> = const { OnceCell::new() };
    }
    FOLDER.with(|folder| {
        if let Some(folder) = folder.get() {
            return Ok(folder.clone());
        }
        let made = start()?;
        Ok(folder.get_or_init(|| made).clone())
    })
}

fn start() -> io::Result<PathBuf> {
    own_namespace()?;
    let process = std::process::id();
    let thread = rustix::thread::gettid().as_raw_nonzero();
    let folder = std::env::temp_dir().join(format!("daxmap-blockdev-{process}-{thread}"));
    fs::create_dir_all(&folder)?;
    // A thread that never waits for a filesystem ends at once when the process is killed.
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("blockdev-watched".into()).spawn(move || {
        let _ = send.send(rustix::thread::gettid());
        loop {
            std::thread::park();
        }
    })?;
    let watched = receive.recv().map_err(io::Error::other)?;
    // Its own process group, so that a Ctrl-C does not reach it; no pipe of ours, so that
    // nobody who reads our output waits for it. It ends by itself.
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new("sh")
        .args(["-c", SCRIPT, "sh"])
        .arg(format!("/proc/{process}/task/{}", watched.as_raw_nonzero()))
        .arg(&folder)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    Ok(folder)
}

fn own_namespace() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS takes no pointer, and gives this thread its own mounts, root and
    // working directory; nothing that other threads rely on is taken from them.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS)?;
    }
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    // The copies of what others have mounted would keep their devices busy.
    let mounts = fs::read_to_string("/proc/thread-self/mounts")?;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(source), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if source.starts_with("/dev/loop") || kind == "fuse" {
            let _ = unmount(Path::new(point), UnmountFlags::DETACH);
        }
    }
    Ok(())
}
