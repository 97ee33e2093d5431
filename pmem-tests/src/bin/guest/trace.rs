//! What a probe of another user's file leaves behind: its times, another program's lease, and what is
//! cached of it. A plain opening of the same file is the control: it leaves all of the traces.
//!
//! # Safety
//!
//! fcntl(2) takes numbers; a mapping is asked for, looked at and removed in one function.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use daxmap::probe::{self, MapSync};

/// `F_SETSIG` (fcntl(2)); SIGIO, which announces the end of a lease, would end the holder.
const F_SETSIG: libc::c_int = 10;
const NOBODY: u32 = 65534;
const FILE_BYTES: usize = 3 << 20;

/// Makes a file of another user, probes it, its directory and a new name beside it, without and with a
/// lease of another program, and prints what changed.
pub(crate) fn run(path: &Path) -> io::Result<()> {
    std::fs::write(path, vec![7; FILE_BYTES])?;
    chown(path, Some(NOBODY), Some(NOBODY))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let unnoticed = || OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(path);
    let file = unnoticed()?;
    file.sync_all()?;
    // SAFETY: numbers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    println!("path={}", path.display());
    println!("cached_at_first={}", cached_pages(&file)?);
    // Nobody gets a lease for writing on a file that another has open.
    drop(file);

    let state = || Ok::<_, io::Error>((times(path)?, times(directory)?));
    let before = state()?;
    probe_all("", path, directory)?;
    println!("times_kept={}", state()? == before);
    let holder = Holder::start(path)?;
    probe_all("leased_", path, directory)?;
    println!("times_kept_with_lease={}", state()? == before);
    println!("lease_kept={}", holder.end()?);
    println!("cached={}", cached_pages(&unnoticed()?)?);

    let holder = Holder::start(path)?;
    let flags = libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    println!("lease_kept_by_open={}", opened.is_ok() || holder.end()?);
    let plain = File::open(path)?;
    cached_pages(&plain)?;
    println!("times_kept_by_map={}", state()? == before);
    Ok(())
}

fn probe_all(prefix: &str, path: &Path, directory: &Path) -> io::Result<()> {
    let report = probe::probe(path).map_err(io::Error::from)?;
    let map_sync = match report.map_sync {
        MapSync::Accepted => "accepted".to_owned(),
        MapSync::Predicted(yes) => format!("predicted {yes}"),
        MapSync::Refused(errno) => format!("refused {errno}"),
        other => format!("{other:?}"),
    };
    println!("{prefix}map_sync={map_sync}");
    println!("{prefix}durability={}", report.durability);
    for other in [directory, &directory.join("new")] {
        probe::probe(other).map_err(io::Error::from)?;
    }
    Ok(())
}

/// Access, modification and change.
fn times(path: &Path) -> io::Result<[(i64, i64); 3]> {
    let found = std::fs::metadata(path)?;
    Ok([
        (found.atime(), found.atime_nsec()),
        (found.mtime(), found.mtime_nsec()),
        (found.ctime(), found.ctime_nsec()),
    ])
}

fn cached_pages(file: &File) -> io::Result<usize> {
    let mut pages = vec![0_u8; FILE_BYTES / 4096];
    // SAFETY: a mapping that the kernel places, asked for and removed here, and a buffer of one byte
    // for each of its pages, which are at least 4096 bytes.
    let answer = unsafe {
        let (fd, null) = (file.as_raw_fd(), std::ptr::null_mut());
        let at = libc::mmap(null, FILE_BYTES, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let answer = libc::mincore(at, FILE_BYTES, pages.as_mut_ptr());
        libc::munmap(at, FILE_BYTES);
        answer
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pages.iter().filter(|page| **page & 1 == 1).count())
}

/// Another program that has a lease for writing.
struct Holder {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Holder {
    fn start(path: &Path) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("hold-lease")
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let gone = || io::Error::other("no pipe to the holder of the lease");
        let stdin = child.stdin.take().ok_or_else(gone)?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(gone)?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        if line == "held\n" {
            Ok(Self { child, stdin, stdout })
        } else {
            Err(io::Error::other("the other program got no lease"))
        }
    }

    /// Whether the lease was there to the end, and nobody asked for it.
    fn end(mut self) -> io::Result<bool> {
        drop(self.stdin);
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        self.child.wait()?;
        Ok(line == "kept\n")
    }
}

/// The other program: takes the lease, and at the end of its input says whether it is still there.
pub(crate) fn hold_lease(path: &Path) -> io::Result<()> {
    let flags = libc::O_NOATIME;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    // SAFETY: numbers.
    let answer = unsafe {
        libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG);
        libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    println!("held");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    // SAFETY: numbers.
    let kept = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) } == libc::F_WRLCK;
    println!("{}", if kept { "kept" } else { "asked for" });
    Ok(())
}
