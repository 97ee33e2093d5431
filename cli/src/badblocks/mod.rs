//! `daxmap badblocks`: the memory that is known to be bad, for people and for machines.

mod json;
mod text;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use daxmap::probe::{self, BadMemory};

use super::probe::clean;

/// List the ranges of persistent memory that are known to be bad.
///
/// Of a file, a block device, a device-DAX node, or the device under a directory; offsets are in
/// bytes from the start of the thing named. Without a path: of every region and every device on
/// one, mounted or not. Changes nothing and starts no scrub; as root it may see more. The exit
/// status is 0 if everything was listed, bad or not, and 1 if something could not be.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files, directories, block devices or device-DAX nodes. Without one: all persistent memory.
    paths: Vec<PathBuf>,

    /// One JSON object per thing, each on a line of its own.
    #[arg(long)]
    json: bool,
}

/// Lists, and says whether all could be listed. The error is that of writing.
pub fn run(args: &Args) -> io::Result<bool> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut complete = true;
    let mut failed = |message: String| {
        eprintln!("daxmap: {}", clean(&message));
        complete = false;
    };
    let mut found = Vec::new();
    if args.paths.is_empty() {
        match probe::bad_memory() {
            Ok(all) => found = all,
            Err(error) => failed(error.to_string()),
        }
        if found.is_empty() && !args.json {
            writeln!(out, "No persistent memory is visible.")?;
        }
    }
    for path in &args.paths {
        match probe::probe(path).map(|report| report.bad_memory()) {
            Ok(Some(bad)) => found.push(bad),
            Ok(None) => failed(format!("{}: nothing is stored there", path.display())),
            Err(error) => failed(error.to_string()),
        }
    }
    complete &= found.iter().all(|bad| bad.is_complete);
    write(&mut out, &found, args.json)?;
    out.flush()?;
    Ok(complete)
}

fn write(out: &mut impl Write, found: &[BadMemory], json: bool) -> io::Result<()> {
    for (i, bad) in found.iter().enumerate() {
        if json {
            json::write(out, bad)?;
        } else {
            if i > 0 {
                writeln!(out)?;
            }
            text::write(out, bad)?;
        }
    }
    Ok(())
}
