//! The check value: XXH3-64 with a key.
//!
//! A linear code (a CRC) would not do. A crash can leave a mixture of new bytes and of bytes that
//! were in the same place before; whoever chose both payloads can choose them so that the
//! mixture has the CRC of the new one, whatever its start value. XXH3 multiplies message by key,
//! and the key contains a salt that is drawn after the older bytes were written, so no choice
//! made before helps. It is no protection from somebody who reads the file and then writes to it:
//! that needs a MAC and a secret that is not in the file.

use twox_hash::XxHash3_64;

/// What the check value is keyed by: the salt of the file or of the segment's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) const fn new(salt: u64) -> Self {
        Self(salt)
    }

    /// The check value of bytes at `place`, an offset in the file.
    #[inline]
    pub(crate) fn check(self, place: u64, bytes: &[u8]) -> u64 {
        XxHash3_64::oneshot_with_seed(self.at(place), bytes)
    }

    /// The same of 32 bytes as four numbers, little-endian: of a header that is still in registers.
    ///
    /// XXH3-64 of this length, written out (xxHash, `XXH3_len_17to128_64b`): two products with the
    /// first four words of its secret, and a last mixing.
    #[inline]
    pub(crate) const fn check_words(self, place: u64, words: [u64; 4]) -> u64 {
        const SECRET: [u64; 4] = [
            0xbe4b_a423_396c_feb8,
            0x1cad_21f7_2c81_017c,
            0xdb97_9083_e96d_d4de,
            0x1f67_b3b7_a4a4_4072,
        ];
        const LENGTH: u64 = 32_u64.wrapping_mul(0x9e37_79b1_85eb_ca87);
        let seed = self.at(place);
        let first =
            fold(words[0] ^ SECRET[0].wrapping_add(seed), words[1] ^ SECRET[1].wrapping_sub(seed));
        let second =
            fold(words[2] ^ SECRET[2].wrapping_add(seed), words[3] ^ SECRET[3].wrapping_sub(seed));
        let sum = LENGTH.wrapping_add(first).wrapping_add(second);
        let mixed = (sum ^ (sum >> 37)).wrapping_mul(0x1656_6791_9e37_79f9);
        mixed ^ (mixed >> 32)
    }

    /// The key of one place: no two places of a file have the same, since the product of an odd
    /// number is a permutation of the 64-bit numbers.
    #[inline]
    const fn at(self, place: u64) -> u64 {
        self.0.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Both halves of a product as one.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn words_are_checked_as_their_bytes_are() {
        let mut word = 0x0123_4567_89ab_cdef_u64;
        let mut next = || {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            word
        };
        for _ in 0..1000 {
            let (key, place) = (Key::new(next()), next());
            let words = [next(), next(), next(), next()];
            let bytes = words.map(u64::to_le_bytes).concat();
            assert_eq!(key.check_words(place, words), key.check(place, &bytes));
        }
        assert_eq!(Key::new(0).check_words(0, [0; 4]), Key::new(0).check(0, &[0; 32]));
    }

    #[test]
    fn any_bit_of_key_place_and_bytes_changes_it() {
        for len in [0, 1, 8, 16, 17, 80, 128, 129, 240, 241, 512, 1031, 4096] {
            let bytes: Vec<u8> = (0..len).map(|i: u32| (i * 7 + 3) as u8).collect();
            let (key, place) = (0x0123_4567_89ab_cdef, 8192);
            let check = Key::new(key).check(place, &bytes);
            for bit in 0..64 {
                assert_ne!(Key::new(key ^ 1 << bit).check(place, &bytes), check);
                assert_ne!(Key::new(key).check(place ^ 1 << bit, &bytes), check);
            }
            let mut flipped = bytes.clone();
            for bit in 0..bytes.len() * 8 {
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(Key::new(key).check(place, &flipped), check, "bit {bit} of {len}");
                flipped[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    /// The format depends on it: a new version of the crate must give the same values.
    #[test]
    fn known_values() {
        assert_eq!(Key::new(0).check(0, b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(Key::new(0).check(0, b"a"), 0xe6c6_32b6_1e96_4e1f);
    }

    /// A CRC fails this: the mixture of two payloads whose difference is a multiple of its
    /// polynomial.
    #[test]
    fn a_mixture_made_for_a_crc_is_noticed() {
        // The polynomial of CRC-32, reflected, as a difference of bytes that leaves the CRC alone.
        let polynomial = 0x1_db71_0641_u64 << 3;
        let new = [0x55_u8; 64];
        let mut torn = new;
        for (byte, difference) in torn[20..28].iter_mut().zip(polynomial.to_le_bytes()) {
            *byte ^= difference;
        }
        assert_ne!(new, torn);
        assert_eq!(crc32fast::hash(&new), crc32fast::hash(&torn));
        let key = Key::new(42);
        assert_ne!(key.check(0, &new), key.check(0, &torn));
    }
}
