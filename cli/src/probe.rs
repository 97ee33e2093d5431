//! `daxmap probe`: the report, for people and for machines.

mod json;
mod text;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

pub use text::{bytes, clean};

/// Show what lies under a path, why it is or is not DAX, and what to change.
///
/// Changes nothing and needs no privilege; as root it may see more. The exit status is 0 if every
/// path was reported, and 1 if one could not be.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files, directories, mount points, block devices, device-DAX nodes, or names to be created.
    /// Without one: every mounted filesystem that can hold files.
    paths: Vec<PathBuf>,

    /// One JSON object per path, each on a line of its own.
    #[arg(long)]
    json: bool,

    /// Also show what each layer under the path keeps: the durability is the least of these.
    #[arg(long, conflicts_with = "json")]
    layers: bool,

    /// Show what the library does where a filesystem, a kernel or a sandbox lacks an operation, and
    /// nothing else.
    #[arg(long, conflicts_with_all = ["json", "layers", "paths"])]
    fallbacks: bool,
}

/// Reports on every path, and says whether all went well. The error is that of writing.
pub fn run(args: &Args) -> io::Result<bool> {
    if args.fallbacks {
        let mut out = BufWriter::new(io::stdout().lock());
        text::write_fallbacks(&mut out)?;
        return out.flush().map(|()| true);
    }
    let prober = daxmap::probe::Prober::new();
    let paths = if args.paths.is_empty() {
        prober.mounts().map_err(io::Error::from)?
    } else {
        args.paths.clone()
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut complete = true;
    let mut first = true;
    for path in paths {
        match prober.probe(&path) {
            Ok(report) if args.json => json::write(&mut out, &report)?,
            Ok(report) => {
                if !first {
                    writeln!(out)?;
                }
                first = false;
                text::write(&mut out, &report)?;
                if args.layers {
                    text::write_layers(&mut out, &report)?;
                }
            }
            Err(error) => {
                out.flush()?;
                eprintln!("daxmap: {}", text::clean(&error.to_string()));
                complete = false;
            }
        }
    }
    out.flush()?;
    Ok(complete)
}
