//! `daxmap state`: what a state file holds, whether it is sound, and where it is damaged.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use daxmap::state::{Inspection, Slot, inspect};
use daxmap::{Error, Options, Region};
use serde::Serialize;

use crate::probe::clean;

/// Look into a file of daxmap::state.
///
/// Changes nothing and takes no lock. The exit status is 0 if the file is sound, and 1 if it is
/// damaged or no such file.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show sizes, sequence number, layout version and value, and which parts are whole.
    Show {
        /// The file.
        file: PathBuf,

        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Shows the file, and says whether it is sound. The error is that of writing.
pub fn run(args: &Args) -> io::Result<bool> {
    let Command::Show { file, json } = &args.command;
    match look(file) {
        Ok((len, seen)) => {
            let mut out = BufWriter::new(io::stdout().lock());
            if *json {
                write_json(&mut out, file, len, &seen)?;
            } else {
                write_text(&mut out, file, len, &seen)?;
            }
            out.flush()?;
            Ok(seen.is_sound())
        }
        Err(error) => {
            let said = match error.path() {
                Some(_) => error.to_string(),
                None => format!("{}: {error}", file.display()),
            };
            eprintln!("daxmap: {}", clean(&said));
            Ok(false)
        }
    }
}

fn look(file: &Path) -> Result<(u64, Inspection), Error> {
    // A program that stores meanwhile tears what is read: it is whole at another moment.
    const TRIES: u32 = 16;
    let region = Options::new().read_only(true).open(file)?;
    let mut seen = inspect(&region);
    for _ in 1..TRIES {
        if !matches!(&seen, Ok(seen) if seen.slots.contains(&Slot::Invalid)) {
            break;
        }
        seen = inspect(&region);
    }
    Ok((region.len(), seen?))
}

/// A sentence about all of it.
fn verdict(seen: &Inspection) -> &'static str {
    match seen.newest() {
        None => "damaged: no slot holds a whole value",
        Some(_) if seen.is_settled() => "sound: everything is there twice",
        Some(_) if seen.is_sound() => {
            "sound, in use or not closed: one slot holds the newest value, the other the one before"
        }
        Some(_) => {
            "the newest whole value can be had, but a copy is invalid: torn by a crash during a \
             store or an open, or damaged"
        }
    }
}

fn slot_word(slot: &Slot) -> &'static str {
    match slot {
        Slot::Blank => "blank",
        Slot::Valid { .. } => "valid",
        _ => "invalid",
    }
}

fn write_text(out: &mut impl Write, file: &Path, len: u64, seen: &Inspection) -> io::Result<()> {
    writeln!(out, "{}: {}", clean(&file.display().to_string()), verdict(seen))?;
    writeln!(out, "  file         {len} bytes, format version {}", seen.format)?;
    writeln!(out, "  room         for values of up to {} bytes", seen.capacity)?;
    writeln!(out, "  shutdowns    unsafe ones: {}", seen.unsafe_shutdown)?;
    for (whole, offset) in seen.header_copies.iter().zip(seen.header_offsets) {
        let word = if *whole { "valid" } else { "invalid" };
        writeln!(out, "  header       at {offset}: {word}")?;
    }
    for (slot, offset) in seen.slots.iter().zip(seen.slot_offsets) {
        write!(out, "  slot         at {offset}: {}", slot_word(slot))?;
        if let Slot::Valid { sequence, version, value } = slot {
            let bytes = value.len();
            write!(out, ", store {sequence}, layout version {version}, {bytes} bytes")?;
        }
        writeln!(out)?;
    }
    if let Some(Slot::Valid { value, .. }) = seen.newest().map(|index| &seen.slots[index]) {
        writeln!(out, "  value")?;
        for (row, bytes) in value.chunks(16).enumerate() {
            let pairs: Vec<String> = bytes.chunks(8).map(|bytes| hex(bytes, " ")).collect();
            writeln!(out, "    {:08x}  {}", row * 16, pairs.join("  "))?;
        }
    }
    Ok(())
}

fn hex(bytes: &[u8], between: &str) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(between)
}

/// Version of the layout: raised when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// Sizes and offsets are in bytes; `null` stands for what is not there.
#[derive(Serialize)]
struct JsonState<'a> {
    schema: u32,
    path: String,
    kind: &'static str,
    sound: bool,
    settled: bool,
    verdict: &'static str,
    unsafe_shutdown: &'static str,
    file_bytes: u64,
    format: u32,
    capacity: u64,
    header: Vec<JsonPart<'a>>,
    slots: Vec<JsonPart<'a>>,
    newest: Option<usize>,
    sequence: Option<u64>,
    version: Option<u32>,
    value: Option<String>,
}

#[derive(Serialize)]
struct JsonPart<'a> {
    offset: u64,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
}

fn write_json(out: &mut impl Write, file: &Path, len: u64, seen: &Inspection) -> io::Result<()> {
    let header = seen.header_copies.iter().zip(seen.header_offsets).map(|(whole, offset)| {
        let state = if *whole { "valid" } else { "invalid" };
        JsonPart { offset, state, sequence: None, version: None, bytes: None }
    });
    let slots = seen.slots.iter().zip(seen.slot_offsets).map(|(slot, offset)| {
        let state = slot_word(slot);
        match slot {
            Slot::Valid { sequence, version, value } => JsonPart {
                offset,
                state,
                sequence: Some(*sequence),
                version: Some(*version),
                bytes: Some(value.len()),
            },
            _ => JsonPart { offset, state, sequence: None, version: None, bytes: None },
        }
    });
    let newest = seen.newest();
    let (sequence, version, value) = match newest.map(|index| &seen.slots[index]) {
        Some(Slot::Valid { sequence, version, value }) => {
            (Some(*sequence), Some(*version), Some(hex(value, "")))
        }
        _ => (None, None, None),
    };
    let object = JsonState {
        schema: SCHEMA,
        path: file.to_string_lossy().into_owned(),
        kind: "state",
        sound: seen.is_sound(),
        settled: seen.is_settled(),
        verdict: verdict(seen),
        unsafe_shutdown: seen.unsafe_shutdown.as_str(),
        file_bytes: len,
        format: seen.format,
        capacity: seen.capacity,
        header: header.collect(),
        slots: slots.collect(),
        newest,
        sequence,
        version,
        value,
    };
    serde_json::to_writer(&mut *out, &object)?;
    writeln!(out)
}
