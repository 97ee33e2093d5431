//! The check value: XXH3-64 with a key.
//!
//! A linear code (a CRC) would not do. A crash can leave a mixture of new bytes and of bytes that
//! were in the same place before; whoever chose both payloads can choose them so that the
//! mixture has the CRC of the new one, whatever its start value. XXH3 multiplies message by key,
//! and the key contains a salt that is drawn after the older bytes were written, so no choice
//! made before helps. It is no protection from somebody who reads the file and then writes to it:
//! that needs a MAC and a secret that is not in the file.

use twox_hash::XxHash3_64;

/// XXH3 hashes more bytes than these with a secret that it first derives from the seed.
const LONG: usize = 240;

/// What the check value is keyed by: the salt of the file or of the segment's life.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    salt: u64,
    /// The secret of the salt: deriving it takes 13 ns, as long as hashing 512 bytes.
    secret: [u8; SECRET.len()],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.salt).finish()
    }
}

impl Key {
    pub(crate) const fn new(salt: u64) -> Self {
        Self { salt, secret: secret_of(salt) }
    }

    /// The check value of bytes at `place`, an offset in the file.
    ///
    /// The place goes into the seed where the seed goes into the hash as it is, and over the hash
    /// where it would cost a secret of its own.
    #[inline]
    pub(crate) fn check(&self, place: u64, bytes: &[u8]) -> u64 {
        if bytes.len() <= LONG {
            return XxHash3_64::oneshot_with_seed(self.at(place), bytes);
        }
        match XxHash3_64::oneshot_with_secret(&self.secret, bytes) {
            Ok(check) => check ^ spread(place),
            Err(_) => unreachable!("the secret is as long as XXH3's own"),
        }
    }

    /// The same of 32 bytes as four numbers, little-endian: of a header that is still in registers.
    ///
    /// XXH3-64 of this length, written out (xxHash, `XXH3_len_17to128_64b`): two products with the
    /// first four words of its secret, and a last mixing.
    #[inline]
    pub(crate) const fn check_words(&self, place: u64, words: [u64; 4]) -> u64 {
        const LENGTH: u64 = 32_u64.wrapping_mul(0x9e37_79b1_85eb_ca87);
        let seed = self.at(place);
        let [a, b, c, d] = [secret_word(0), secret_word(1), secret_word(2), secret_word(3)];
        let first = fold(words[0] ^ a.wrapping_add(seed), words[1] ^ b.wrapping_sub(seed));
        let second = fold(words[2] ^ c.wrapping_add(seed), words[3] ^ d.wrapping_sub(seed));
        let sum = LENGTH.wrapping_add(first).wrapping_add(second);
        let mixed = (sum ^ (sum >> 37)).wrapping_mul(0x1656_6791_9e37_79f9);
        mixed ^ (mixed >> 32)
    }

    /// The seed for one place: no two places of a file have the same.
    #[inline]
    const fn at(&self, place: u64) -> u64 {
        self.salt.wrapping_add(spread(place))
    }
}

/// A place over all bits: no two have the same, since the product with an odd number is a
/// permutation of the 64-bit numbers.
#[inline]
const fn spread(place: u64) -> u64 {
    place.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// XXH3's secret for a seed (xxHash, `XXH3_initCustomSecret`): the seed added to and subtracted from
/// the words of its own, in turn.
const fn secret_of(seed: u64) -> [u8; SECRET.len()] {
    let mut secret = SECRET;
    let mut word = 0;
    while word < SECRET.len() / 8 {
        let mixed = match word % 2 {
            0 => secret_word(word).wrapping_add(seed),
            _ => secret_word(word).wrapping_sub(seed),
        };
        let bytes = mixed.to_le_bytes();
        let mut byte = 0;
        while byte < 8 {
            secret[8 * word + byte] = bytes[byte];
            byte += 1;
        }
        word += 1;
    }
    secret
}

/// A word of XXH3's secret, little-endian.
#[inline]
const fn secret_word(word: usize) -> u64 {
    let mut bytes = [0; 8];
    let mut byte = 0;
    while byte < 8 {
        bytes[byte] = SECRET[8 * word + byte];
        byte += 1;
    }
    u64::from_le_bytes(bytes)
}

/// XXH3's secret (xxHash, `XXH3_kSecret`).
#[rustfmt::skip]
const SECRET: [u8; 192] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
];

/// Both halves of a product as one.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::Key;
    use twox_hash::XxHash3_64;

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

    /// What stands in the format's description, by the seeded hash of the crate.
    #[test]
    fn long_bytes_are_hashed_with_the_salt_as_seed() {
        for (salt, place, len) in [(0, 0, 241), (7, 64, 512), (u64::MAX - 3, 12288, 70_000)] {
            let bytes: Vec<u8> = (0..len).map(|i: u32| (i * 11 + 5) as u8).collect();
            let spread = u64::wrapping_mul(place, 0x9e37_79b9_7f4a_7c15);
            let check = XxHash3_64::oneshot_with_seed(salt, &bytes) ^ spread;
            assert_eq!(Key::new(salt).check(place, &bytes), check, "{len} bytes");
        }
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
