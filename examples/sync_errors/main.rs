//! Provokes every error of fsync(2), fdatasync(2) and msync(2) that this machine can provoke, and
//! says what each one means.
//!
//! ```text
//! cargo run --release --example sync_errors -- [--devdax /dev/daxX.Y]
//! ```
//!
//! The cases that need a failing disk make one: a loop device over a file in a tmpfs, in a mount
//! namespace of their own. That takes root, `losetup` and `mkfs.ext4`; without them, and without
//! device DAX, the last line counts the cases that could not be shown. Exit status 1 means that
//! a case went otherwise than said here.
//!
//! The whole answer is in docs/sync_errors.md.

mod calls;
mod device;
mod medium;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::io::Errno;

/// How a case ended: what was seen, or why it cannot be shown here.
type Seen = Result<String, Box<dyn Error>>;

/// What has been shown so far.
#[derive(Default)]
struct Report {
    shown: u32,
    otherwise: u32,
    not_here: u32,
}

impl Report {
    /// One case: what is done, what must be seen, what that means.
    fn case(&mut self, what: &str, expected: &str, meaning: &str, seen: Seen) {
        match seen {
            Ok(seen) if seen == expected => {
                self.shown += 1;
                println!("shown      {what}: {seen}\n           {meaning}");
            }
            Ok(seen) => {
                self.otherwise += 1;
                println!("OTHERWISE  {what}: {seen}\n           expected: {expected}");
            }
            Err(reason) => {
                self.not_here += 1;
                println!("not here   {what}: {reason}\n           expected: {expected}");
            }
        }
    }
}

/// The result of a call, in one word.
fn said(result: Result<(), Errno>) -> String {
    let Err(errno) = result else { return "ok".to_owned() };
    let name = match errno {
        Errno::BADF => "EBADF",
        Errno::BUSY => "EBUSY",
        Errno::INVAL => "EINVAL",
        Errno::IO => "EIO",
        Errno::ISDIR => "EISDIR",
        Errno::NOMEM => "ENOMEM",
        Errno::NOSPC => "ENOSPC",
        Errno::ROFS => "EROFS",
        other => return other.to_string(),
    };
    name.to_owned()
}

fn main() -> ExitCode {
    match run() {
        Ok(report) if report.otherwise == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sync_errors: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Report, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut devdax = None;
    while let Some(option) = words.next() {
        match option.as_str() {
            "--devdax" => {
                let path = words.next().ok_or("--devdax needs a path")?;
                devdax = Some(PathBuf::from(path));
            }
            other => return Err(format!("no option {other}").into()),
        }
    }
    let mut report = Report::default();
    println!("Calls that cannot work\n");
    calls::handles(&mut report)?;
    calls::mappings(&mut report)?;
    calls::device_dax(&mut report, devdax.as_deref());
    println!("\nA medium that fails\n");
    medium::all(&mut report);
    println!(
        "\n{} cases shown, {} otherwise than expected, {} not shown here",
        report.shown, report.otherwise, report.not_here
    );
    Ok(report)
}
