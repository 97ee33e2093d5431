//! Checkpoint files to start from, with what is in them.

use daxmap::Result;
use daxmap::checkpoint::{Options, Strategy, WorkingSet};
use daxmap_sim::{Mode, SimRegion};

use crate::bytes;

/// How many files [`whole`] makes, at most.
pub const FILES: u8 = 16;

/// Bytes of the working set.
const SET: u64 = 2 * 4096 + 100;
const LEN: u64 = 64 << 10;

/// A checkpoint file, and the working set at each checkpoint, from number 0 on.
pub struct Whole {
    /// The region.
    pub bytes: Vec<u8>,
    /// The contents, by number.
    pub sets: Vec<Vec<u8>>,
    /// The file was closed.
    pub closed: bool,
}

/// What the checkpoint of this number is called.
#[must_use]
pub fn label(number: u64) -> String {
    if number == 0 { String::new() } else { format!("number {number}") }
}

/// Makes a file by either strategy with 0 to 3 checkpoints, closed, or left as by a kill.
///
/// # Errors
///
/// None, of a region in memory.
pub fn whole(number: u8) -> Result<Whole> {
    let (closed, redo, saves) = (number % 2 == 1, number / 2 % 2 == 1, number / 4 % 4);
    let strategy = if redo { Strategy::Redo } else { Strategy::Shadow };
    let options = Options::new(SET).strategy(strategy).seed(1).keep(if redo { 0 } else { 1 });
    let region = SimRegion::new(Mode::Eadr, LEN, LEN);
    let mut set = WorkingSet::format(region.clone(), &options)?;
    let mut sets = vec![set.bytes().to_vec()];
    for number in 1..=u64::from(saves) {
        let at = number * 2500 % SET;
        let len = (SET - at).min(3000);
        set.slice_mut(at, len)?.fill(number as u8);
        set.checkpoint_labelled(&label(number))?;
        sets.push(set.bytes().to_vec());
    }
    let open = bytes(&region);
    set.close()?;
    // The region is closed as well; nothing in it waited for a flush.
    let bytes = if closed { bytes(&region.crash(0)) } else { open };
    Ok(Whole { bytes, sets, closed })
}
