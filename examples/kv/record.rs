//! The bytes of a change: 0 for a deletion or 1 for a put, the length of the key as four bytes, the
//! lowest first, the key, and the value. The log checks them, so no check value is in here.

use std::collections::BTreeMap;

/// The pairs of a store.
pub type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The change that puts a value, or deletes the key.
pub fn encode(key: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut bytes = vec![u8::from(value.is_some())];
    bytes.extend(length.to_le_bytes());
    bytes.extend(key);
    bytes.extend(value.unwrap_or_default());
    bytes
}

/// Makes a change to the pairs. `None` if it is none that [`encode`] makes.
pub fn apply(pairs: &mut Pairs, bytes: &[u8]) -> Option<()> {
    let (&kind, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (key, value) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    match (kind, value) {
        (0, []) => pairs.remove(key),
        (1, _) => pairs.insert(key.to_vec(), value.to_vec()),
        _ => return None,
    };
    Some(())
}
