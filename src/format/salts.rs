//! Where salts come from: the kernel, or a seed for tests that must repeat.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Error, Operation, Result};

/// A source of salts.
#[derive(Debug)]
pub(crate) enum Salts {
    /// getrandom(2).
    Kernel,
    /// A sequence that a seed determines: for simulated runs, which must repeat.
    Seeded(AtomicU64),
}

impl Salts {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::Seeded(AtomicU64::new(seed))
    }

    /// A salt that nobody could know before, and not zero: zero is what an unwritten place holds.
    pub(crate) fn draw(&self) -> Result<u64> {
        loop {
            let salt = match self {
                Self::Kernel => from_kernel()?,
                Self::Seeded(state) => {
                    // SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
                    // generators", OOPSLA 2014).
                    let step = 0x9e37_79b9_7f4a_7c15;
                    let z = state.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
                    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                    z ^ (z >> 31)
                }
            };
            if salt != 0 {
                return Ok(salt);
            }
        }
    }
}

fn from_kernel() -> Result<u64> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::os(Operation::Create, "getrandom", errno)),
        }
    }
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::Salts;

    #[test]
    fn seeds_repeat_and_the_kernel_does_not() {
        let draw = |salts: &Salts| [salts.draw().unwrap(), salts.draw().unwrap()];
        assert_eq!(draw(&Salts::seeded(7)), draw(&Salts::seeded(7)));
        assert_ne!(draw(&Salts::seeded(7)), draw(&Salts::seeded(8)));
        assert_ne!(draw(&Salts::Kernel), draw(&Salts::Kernel));
    }
}
