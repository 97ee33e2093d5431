//! Commits batches of records to a file and says what each batch cost and what it survives.
//!
//! ```text
//! cargo run --release --example commit -- FILE [BATCHES]
//! ```
//!
//! Run it on a disk and on persistent memory: the code is the same, the price is not. Each batch
//! is sixty-four records of 64 bytes and one drain.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use daxmap::{Durability, Options, Region};

const RECORD: usize = 64;
const RECORDS_PER_BATCH: u64 = 64;
const BATCH_BYTES: u64 = RECORD as u64 * RECORDS_PER_BATCH;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("commit: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments.next().ok_or("usage: commit FILE [BATCHES]")?;
    let batches: u64 = match arguments.next() {
        Some(number) => number.to_str().ok_or("BATCHES is not a number")?.parse()?,
        None => 100,
    };

    let region = Options::new().len(batches.max(1) * BATCH_BYTES).open_or_create(&path)?;
    println!("{}", region.report().verdict_sentence());
    if region.durability() < Durability::Fsync {
        println!("a committed batch may be lost in a power cut, because:");
        for reason in &region.report().reasons {
            println!("  {reason}");
        }
    }

    let mut slowest = std::time::Duration::ZERO;
    let began = Instant::now();
    for batch in 0..batches {
        let batch_began = Instant::now();
        commit(&region, batch)?;
        slowest = slowest.max(batch_began.elapsed());
    }
    let total = began.elapsed();
    println!(
        "{batches} batches in {total:?}, the slowest took {slowest:?}; {}",
        region.durability().after_power_cut()
    );
    region.close()?;
    Ok(())
}

/// Durable when it returns: every record is flushed, and drained once.
fn commit(region: &dyn Region, batch: u64) -> daxmap::Result<()> {
    for record in 0..RECORDS_PER_BATCH {
        let mut bytes = [0_u8; RECORD];
        bytes[..8].copy_from_slice(&(batch * RECORDS_PER_BATCH + record).to_le_bytes());
        region.write_flush(batch * BATCH_BYTES + record * RECORD as u64, &bytes)?;
    }
    region.drain()
}
