//! What a killed process leaves behind, and who clears it away.
//!
//! A process that is killed while one of its threads waits for a filesystem on its own block
//! device never ends by itself: the server is gone, and the waiting thread cannot be. So a shell
//! beside it watches one of its threads, and when that is gone, aborts the FUSE connections,
//! unmounts everything and detaches the loop devices.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Arguments: a thread in /proc, and the process's folder, which has the name that nobody else
/// uses. `umount -f` of a FUSE mount aborts the connection.
const SCRIPT: &str = r#"
while [ -e "$1" ]; do sleep 0.5; done
[ -d "$2" ] || exit 0
for mnt in "$2"/*/fuse; do umount -f -l "$mnt"; done
for mnt in "$2"/*/mnt; do umount -l "$mnt"; done
for device in "$2"/*/device; do losetup -d "$(readlink "$device")"; rm -f "$device"; done
rmdir "$2"/*/fuse "$2"/*/mnt "$2"/* "$2"
"#;

/// The folder of this process, which the reaper clears. Made once, and the reaper with it.
pub(super) fn process_folder() -> io::Result<&'static Path> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = FOLDER.get_or_init(|| start().map_err(|error| error.to_string()));
    made.as_deref().map_err(|error| io::Error::other(error.clone()))
}

fn start() -> io::Result<PathBuf> {
    let process = std::process::id();
    let folder = std::env::temp_dir().join(format!("daxmap-blockdev-{process}"));
    fs::create_dir_all(&folder)?;
    // A thread that never waits for a filesystem ends at once when the process is killed.
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("blockdev-watched".into()).spawn(move || {
        let _ = send.send(rustix::thread::gettid());
        loop {
            std::thread::park();
        }
    })?;
    let thread = receive.recv().map_err(io::Error::other)?;
    // Its own process group, so that a Ctrl-C does not reach it; no pipe of ours, so that
    // nobody who reads our output waits for it. It ends by itself.
    Command::new("sh")
        .args(["-c", SCRIPT, "sh"])
        .arg(format!("/proc/{process}/task/{}", thread.as_raw_nonzero()))
        .arg(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    Ok(folder)
}
