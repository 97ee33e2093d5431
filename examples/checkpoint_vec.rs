//! Numbers in memory that reach their file only when a checkpoint is asked for.
//!
//! ```text
//! cargo run --release --example checkpoint_vec -- FILE [NUMBER]...
//! ```
//!
//! The first eight bytes are how many numbers there are, the numbers follow.

use std::error::Error;

use daxmap::{Durability, checkpoint};

const BYTES: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("checkpoint_vec FILE [NUMBER]...")?;
    let region = daxmap::Options::new().require(Durability::Fsync);
    let mut memory = checkpoint::Options::new(BYTES).region(region).open_or_create(path)?;

    for argument in arguments {
        let number: u64 = argument.parse()?;
        let count = word(memory.bytes(), 0)?;
        memory.write(8 + count * 8, &number.to_le_bytes())?;
        memory.write(0, &(count + 1).to_le_bytes())?;
    }
    // All of the changes, or none of them after a crash.
    memory.checkpoint()?;

    let count = word(memory.bytes(), 0)?;
    for place in 1..=count {
        println!("{}", word(memory.bytes(), place)?);
    }
    memory.close()?;
    Ok(())
}

fn word(bytes: &[u8], place: u64) -> Result<u64, Box<dyn Error>> {
    let at = usize::try_from(place)? * 8;
    let word = bytes.get(at..at + 8).ok_or("there is no room for more numbers")?;
    Ok(u64::from_le_bytes(word.try_into()?))
}
