//! `daxmap checkpoint`: what is in a checkpoint file.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

use daxmap::checkpoint::{Checkpoint, Contents, contents};
use serde_json::{Value, json};

use super::probe::clean;

/// Look into checkpoint files.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the checkpoints that a file keeps, and whether each can be restored.
    ///
    /// Reads every page and changes nothing; the file may be in use. The exit status is 0 if all
    /// are sound, and 1 if one is damaged or the file could not be read.
    List {
        /// A checkpoint file.
        file: PathBuf,

        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Says whether all is sound. The error is that of writing.
pub fn run(args: &Args) -> io::Result<bool> {
    let Command::List { file, json } = &args.command;
    let found = match contents(file) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("daxmap: {}", clean(&error.to_string()));
            return Ok(false);
        }
    };
    let mut out = io::stdout().lock();
    if *json {
        writeln!(out, "{}", as_json(&found))?;
    } else {
        as_text(&mut out, &found)?;
    }
    Ok(found.checkpoints.iter().all(|(_, sound)| sound.is_ok()))
}

fn seconds(checkpoint: &Checkpoint) -> Option<f64> {
    let since = checkpoint.time?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}

fn as_text(out: &mut impl Write, found: &Contents) -> io::Result<()> {
    writeln!(
        out,
        "working set of {} bytes in {} bytes, {}, keeps {} earlier checkpoints{}",
        found.bytes,
        found.file_bytes,
        found.strategy,
        found.keep,
        if found.header_copies < 2 { "; one copy of the header is damaged" } else { "" }
    )?;
    writeln!(out, "unsafe shutdowns: {}", found.unsafe_shutdown)?;
    for (checkpoint, sound) in &found.checkpoints {
        let time = seconds(checkpoint).map_or("-".to_owned(), |time| format!("@{time:.3}"));
        let state = match sound {
            Ok(()) => "sound".to_owned(),
            Err(error) => clean(&error.to_string()),
        };
        let label = clean(&checkpoint.label);
        let (number, bytes) = (checkpoint.sequence, checkpoint.bytes);
        writeln!(out, "{number:>8}  {time}  {bytes:>12} bytes written  {state}  {label}")?;
    }
    Ok(())
}

fn as_json(found: &Contents) -> Value {
    let each = found.checkpoints.iter().map(|(checkpoint, sound)| {
        let damage = sound.as_ref().err().map(|error| {
            let range = error.range().map(|range| json!({"start": range.start, "end": range.end}));
            json!({"error": error.to_string(), "range": range})
        });
        json!({
            "sequence": checkpoint.sequence,
            "time_s": seconds(checkpoint),
            "bytes_written": checkpoint.bytes,
            "label": checkpoint.label,
            "sound": sound.is_ok(),
            "damage": damage,
        })
    });
    json!({
        "bytes": found.bytes,
        "file_bytes": found.file_bytes,
        "strategy": found.strategy.as_str(),
        "keep": found.keep,
        "header_copies": found.header_copies,
        "unsafe_shutdown": found.unsafe_shutdown.as_str(),
        "checkpoints": each.collect::<Vec<_>>(),
    })
}
