//! Programs that write pages, and what pages may hold after a crash of one.

use daxmap::pages::{FIRST, PageOptions, Pages};
use daxmap::{Region, Result};
use daxmap_sim::{History, Notes, SimRegion};

/// Bytes of the smallest page.
pub const BLOCK: u64 = 4096;
/// Smallest pages that there are.
pub const BLOCKS: u64 = 8;
/// Bytes of a region with so many.
pub const LEN: u64 = FIRST + BLOCKS * BLOCK;

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Replaces the page of so many blocks that begins at this one.
    Write { block: u64, blocks: u64 },
    /// The same, on a thread of its own.
    WriteElsewhere { block: u64, blocks: u64 },
    /// Closes the pages and opens them.
    Close,
    /// Is killed, and starts again.
    Reopen,
    /// Cuts off all but so many blocks, and adds the others again.
    Cut { blocks: u64 },
}

/// How pages are made and opened here.
pub fn options() -> PageOptions {
    PageOptions::new().seed(5)
}

/// A page of which every word is this number.
pub fn page(number: u64, blocks: u64) -> Vec<u8> {
    number.to_le_bytes().repeat((blocks * BLOCK / 8) as usize)
}

/// What is noted of a write, or of a cut, which has no page.
pub fn mark(number: u64, block: u64, blocks: u64) -> u64 {
    number << 16 | block << 8 | blocks
}

type Blocks = [u64; BLOCKS as usize];

/// What the blocks hold after these, by the numbers of their words.
fn after(marks: &[u64]) -> Blocks {
    let mut held = [0; BLOCKS as usize];
    for mark in marks {
        let (number, block, blocks) = (mark >> 16, mark >> 8 & 0xff, mark & 0xff);
        match blocks {
            0 => held[block as usize..].fill(0),
            _ => held[block as usize..(block + blocks) as usize].fill(number),
        }
    }
    held
}

/// What the blocks hold, each of them one number.
pub fn held<R: Region>(pages: &Pages<R>) -> std::result::Result<Blocks, String> {
    let mut bytes = vec![0; (BLOCKS * BLOCK) as usize];
    pages.read(0, &mut bytes).map_err(|error| error.to_string())?;
    let mut held = [0; BLOCKS as usize];
    for (index, block) in bytes.chunks(BLOCK as usize).enumerate() {
        let (word, _) = block.split_first_chunk().expect("a block has words");
        held[index] = u64::from_le_bytes(*word);
        if block != page(held[index], 1) {
            return Err(format!("block {index} is torn"));
        }
    }
    Ok(held)
}

/// The pages as a process that starts again finds them: whole, and with all that was acknowledged and
/// nothing but what was begun.
pub fn check(region: &SimRegion, history: &History) -> std::result::Result<(), String> {
    let (acked, begun) = (history.acked(), history.begun());
    let pages = options().open_region(region.clone()).map_err(|error| error.to_string())?;
    if pages.len() < BLOCKS * BLOCK {
        pages.grow(BLOCKS * BLOCK).map_err(|error| error.to_string())?;
    }
    let found = held(&pages);
    pages.abandon();
    let found = found?;
    history.recovered(&found);
    if found == after(acked) || found == after(begun) {
        return Ok(());
    }
    Err(format!("{found:?} found, {acked:x?} acknowledged, {begun:x?} begun"))
}

/// Runs a program over pages that were made before.
pub fn run(region: &SimRegion, notes: &Notes, ops: &[Op]) -> Result<()> {
    let open = || options().open_region(region.clone());
    let mut pages = open()?;
    for (number, &op) in ops.iter().enumerate() {
        let number = number as u64 + 1;
        match op {
            Op::Write { block, blocks } | Op::WriteElsewhere { block, blocks } => {
                notes.begin(mark(number, block, blocks));
                let write = || pages.write_atomic(block * BLOCK, &page(number, blocks));
                if matches!(op, Op::WriteElsewhere { .. }) {
                    std::thread::scope(|scope| scope.spawn(write).join().expect("no panic"))?;
                } else {
                    write()?;
                }
                notes.ack(mark(number, block, blocks));
            }
            Op::Close => {
                drop(pages);
                pages = open()?;
            }
            Op::Reopen => {
                pages.abandon();
                pages = open()?;
            }
            Op::Cut { blocks } => {
                notes.begin(mark(number, blocks, 0));
                pages.shrink(blocks * BLOCK)?;
                pages.grow(BLOCKS * BLOCK)?;
                notes.ack(mark(number, blocks, 0));
            }
        }
    }
    pages.abandon();
    Ok(())
}
