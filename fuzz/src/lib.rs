//! What the targets share: a region with given bytes, and files to start from.

pub mod checkpoint;
pub mod log;

use daxmap_sim::{Mode, SimRegion};
use daxmap::state::{StateOptions, region_bytes};
use daxmap::{Region, Result};

/// Bytes of a region, at most: more only takes time.
const LEN_MAX: usize = 64 << 10;

/// What the states of the seeds hold: each word says which value it is of.
pub type Value = [u64; 4];

/// The value of this number.
#[must_use]
pub fn value(number: u64) -> Value {
    [1, 2, 3, 4]
        .map(|word: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(word as u32))
}

/// A region that holds these bytes, and lives in memory.
#[must_use]
pub fn region(bytes: &[u8]) -> SimRegion {
    let bytes = &bytes[..bytes.len().min(LEN_MAX)];
    let len = bytes.len().max(1) as u64;
    let region = SimRegion::new(Mode::Eadr, len, len);
    region.write(0, bytes).expect("it has room");
    region.settle();
    region
}

/// All bytes of a region.
#[must_use]
pub fn bytes(region: &impl Region) -> Vec<u8> {
    let mut bytes = vec![0; region.len() as usize];
    region.read(0, &mut bytes).expect("it can be read");
    bytes
}

/// How many values the states of [`whole_state`] have been given, at most.
pub const STORES: u64 = 4;

/// A state with values 1 to `stores`, closed or not.
///
/// # Errors
///
/// None, of a region in memory.
pub fn whole_state(stores: u64, closed: bool) -> Result<Vec<u8>> {
    let len = region_bytes(size_of::<Value>() as u32);
    let region = SimRegion::new(Mode::Eadr, len, len);
    let state = StateOptions::new().seed(1).format(region.clone(), &value(1))?;
    for number in 2..=stores {
        state.store(&value(number))?;
    }
    let open = bytes(&region);
    drop(state);
    Ok(if closed { bytes(&region) } else { open })
}

/// Changes a whole file as the input says: three bytes an edit, of which two are the place and one
/// is the new byte. Places are near the beginnings of the parts of a file, where all that means
/// something lies.
pub fn edit(whole: &mut [u8], edits: &[u8]) {
    for edit in edits.chunks_exact(3) {
        let page = usize::from(edit[0]) % (whole.len() / 4096).max(1);
        let at = page * 4096 + usize::from(edit[1]);
        if let Some(byte) = whole.get_mut(at) {
            *byte = edit[2];
        }
    }
}

/// Bytes of a change of [`scatter`].
pub const CHANGE: usize = 5;

/// Changes a whole file as the input says, anywhere: five bytes a change, a kind, a place and an
/// operand. One byte gets another value; a line is copied to another; lines are cleared.
pub fn scatter(whole: &mut [u8], changes: &[u8]) {
    const LINE: usize = 64;
    let lines = whole.len() / LINE;
    for change in changes.chunks_exact(CHANGE) {
        let place = usize::from(u16::from_le_bytes([change[1], change[2]])) % whole.len();
        let operand = usize::from(u16::from_le_bytes([change[3], change[4]]));
        let line = place / LINE * LINE;
        match change[0] % 4 {
            0 | 1 => whole[place] = change[3],
            2 => whole.copy_within(line..line + LINE, operand % lines * LINE),
            _ => {
                let end = (line + (operand % 128 + 1) * LINE).min(whole.len());
                whole[line..end].fill(0);
            }
        }
    }
}

/// Whether [`scatter`] changes one byte at most.
#[must_use]
pub fn is_one_byte(changes: &[u8]) -> bool {
    match changes.chunks_exact(CHANGE).next() {
        None => true,
        Some(first) => changes.len() < 2 * CHANGE && first[0] % 4 < 2,
    }
}
