//! Files that say which version they are and whether they are whole.
//!
//! A version is its number, a checksum over everything else, and words that follow from the
//! number: a file with parts of two versions, or with a part missing, is none.

const HEADER_BYTES: usize = 16;

/// A version of `len` bytes, at least 16.
///
/// # Panics
///
/// If `len` is less than that.
#[must_use]
pub fn content(version: u64, len: usize) -> Vec<u8> {
    assert!(len >= HEADER_BYTES, "a version has a header of {HEADER_BYTES} bytes");
    let mut bytes = vec![0; len];
    let mut word = version;
    for piece in bytes[HEADER_BYTES..].chunks_mut(8) {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        piece.copy_from_slice(&word.to_le_bytes()[..piece.len()]);
    }
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    let sum = checksum(version, &bytes[HEADER_BYTES..]);
    bytes[8..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The version that these bytes are, whole and unchanged; `None` if they are none.
#[must_use]
pub fn version_of(bytes: &[u8]) -> Option<u64> {
    let (version, rest) = bytes.split_first_chunk::<8>()?;
    let (sum, body) = rest.split_first_chunk::<8>()?;
    let version = u64::from_le_bytes(*version);
    (checksum(version, body) == u64::from_le_bytes(*sum)).then_some(version)
}

/// FNV-1a by words, with the length.
fn checksum(version: u64, body: &[u8]) -> u64 {
    let seed = 0xcbf2_9ce4_8422_2325 ^ version ^ body.len() as u64;
    body.chunks(8).fold(seed, |sum, piece| {
        let mut word = [0; 8];
        word[..piece.len()].copy_from_slice(piece);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_recognised_and_a_damaged_one_is_not() {
        for len in [16, 17, 4096, 10_001] {
            let mut bytes = content(7, len);
            assert_eq!(version_of(&bytes), Some(7));
            bytes[len - 1] ^= 1;
            assert_eq!(version_of(&bytes), None);
        }
        assert_eq!(version_of(&content(7, 4096)[..4000]), None);
        assert_eq!(version_of(&[0; 4096]), None);
        assert_eq!(version_of(&[]), None);
    }
}
