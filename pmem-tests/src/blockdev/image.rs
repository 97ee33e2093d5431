//! The contents of a medium, as a value: sparse, and cheap to copy.

use std::sync::Arc;

/// Bytes are kept in pieces of this size, shared between copies until one of them changes.
const PIECE: usize = 16 << 10;

type Piece = [u8; PIECE];

/// What a medium holds. A copy costs a pointer for each 16 KiB, and shares what it does not
/// change; what was never written is zero.
#[derive(Clone)]
pub struct Image {
    len: u64,
    pieces: Vec<Option<Arc<Piece>>>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held = self.pieces.iter().flatten().count() * PIECE;
        f.debug_struct("Image").field("len", &self.len).field("held", &held).finish()
    }
}

impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        let zero = [0; PIECE];
        let bytes = |piece: &Option<Arc<Piece>>| piece.as_deref().copied().unwrap_or(zero);
        self.len == other.len
            && self.pieces.iter().zip(&other.pieces).all(|(a, b)| match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) if Arc::ptr_eq(a, b) => true,
                _ => bytes(a) == bytes(b),
            })
    }
}

/// The pieces that `offset..offset + len` touches: number, first byte inside, bytes inside.
fn touched(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = offset as usize;
    let end = at + len;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let inside = at % PIECE;
            let part = (PIECE - inside).min(end - at);
            let piece = at / PIECE;
            at += part;
            (piece, inside, part)
        })
    })
}

impl Image {
    /// A medium of `len` zero bytes.
    #[must_use]
    pub fn new(len: u64) -> Self {
        Self { len, pieces: vec![None; (len as usize).div_ceil(PIECE)] }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a medium of no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it holds, in order: where, and the bytes. What lies between is zero.
    pub(super) fn held(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let len = self.len as usize;
        self.pieces.iter().enumerate().filter_map(move |(number, piece)| {
            let at = number * PIECE;
            piece.as_ref().map(|bytes| (at as u64, &bytes[..PIECE.min(len - at)]))
        })
    }

    fn contains(&self, offset: u64, len: usize) -> bool {
        offset.checked_add(len as u64).is_some_and(|end| end <= self.len)
    }

    /// Copies bytes out.
    ///
    /// # Panics
    ///
    /// If the range does not lie in the medium.
    pub fn read(&self, offset: u64, buf: &mut [u8]) {
        assert!(self.contains(offset, buf.len()), "read past the end of the medium");
        let mut done = 0;
        for (piece, inside, part) in touched(offset, buf.len()) {
            let to = &mut buf[done..done + part];
            match &self.pieces[piece] {
                Some(bytes) => to.copy_from_slice(&bytes[inside..inside + part]),
                None => to.fill(0),
            }
            done += part;
        }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    ///
    /// If the range does not lie in the medium.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        assert!(self.contains(offset, data.len()), "write past the end of the medium");
        let mut done = 0;
        for (piece, inside, part) in touched(offset, data.len()) {
            let from = &data[done..done + part];
            done += part;
            let slot = &mut self.pieces[piece];
            if slot.is_none() && from.iter().all(|&byte| byte == 0) {
                continue;
            }
            let bytes = Arc::make_mut(slot.get_or_insert_with(|| Arc::new([0; PIECE])));
            bytes[inside..inside + part].copy_from_slice(from);
        }
    }

    /// Makes a range zero.
    ///
    /// # Panics
    ///
    /// If the range does not lie in the medium.
    pub fn zero(&mut self, offset: u64, len: u64) {
        assert!(self.contains(offset, len as usize), "zeros past the end of the medium");
        for (piece, inside, part) in touched(offset, len as usize) {
            let slot = &mut self.pieces[piece];
            if part == PIECE {
                *slot = None;
            } else if let Some(bytes) = slot {
                Arc::make_mut(bytes)[inside..inside + part].fill(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_behaves_like_an_array() {
        const LEN: usize = 5 * PIECE + 512;
        let mut image = Image::new(LEN as u64);
        let mut array = vec![0_u8; LEN];
        let mut state = 1_u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for step in 0..500_u32 {
            let at = random(LEN);
            let len = random((LEN - at).min(3 * PIECE) + 1);
            if random(4) == 0 {
                image.zero(at as u64, len as u64);
                array[at..at + len].fill(0);
            } else {
                let data = vec![step as u8; len];
                image.write(at as u64, &data);
                array[at..at + len].copy_from_slice(&data);
            }
            let mut found = vec![0xff; LEN];
            image.read(0, &mut found);
            assert!(found == array, "step {step}");
        }
    }

    #[test]
    fn a_copy_keeps_what_it_was() {
        let mut image = Image::new(1 << 20);
        image.write(100, b"old");
        let copy = image.clone();
        assert_eq!(copy, image);
        image.write(100, b"new");
        assert_ne!(copy, image);
        let mut found = [0; 3];
        copy.read(100, &mut found);
        assert_eq!(&found, b"old");
        assert_eq!(image.held().map(|(at, bytes)| (at, bytes.len())).next(), Some((0, PIECE)));
        // Zeros that are held and zeros that are not are the same zeros.
        image.write(100, &[0; 3]);
        assert_eq!(image, Image::new(1 << 20));
    }
}
