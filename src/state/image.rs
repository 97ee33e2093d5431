//! The bytes of a slot in memory, with the value where a reference to it can be had.

use std::marker::PhantomData;

use zerocopy::IntoBytes;

use super::Plain;
use crate::format::cell::HEADER;
use crate::format::{LINE, Line};

/// Header, value and zeros up to a multiple of 64 bytes, as a slot has them.
pub(super) struct Image<T> {
    lines: Box<[Line]>,
    value: PhantomData<T>,
}

impl<T: Plain> Image<T> {
    /// Where the slot's bytes begin among the lines: at a line, which is copied fastest, unless the
    /// value, which follows the header, needs to be aligned to more than a word.
    const START: usize = if align_of::<T>() <= 8 { 0 } else { LINE as usize - HEADER };
    /// Where the value is in [`bytes`](Self::bytes).
    const VALUE: std::ops::Range<usize> = HEADER..HEADER + size_of::<T>();
    const LEN: usize = (HEADER + size_of::<T>()).next_multiple_of(LINE as usize);

    fn new() -> Self {
        const {
            assert!(
                align_of::<T>() <= LINE as usize,
                "a state's type is aligned to at most 64 bytes"
            );
            assert!(size_of::<T>() < u32::MAX as usize, "a state's type has less than 4 GiB");
        }
        let bytes = Self::START + Self::LEN;
        let lines = vec![Line::ZERO; bytes.div_ceil(LINE as usize)];
        Self { lines: lines.into_boxed_slice(), value: PhantomData }
    }

    /// All of it, for [`Cell::store_image`](crate::format::cell::Cell::store_image).
    #[inline]
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.lines.as_mut_bytes()[Self::START..][..Self::LEN]
    }

    #[inline]
    pub(super) fn set(&mut self, value: &T) {
        self.bytes()[Self::VALUE].copy_from_slice(value.as_bytes());
    }

    /// An image of a value.
    pub(super) fn of(value: &T) -> Self {
        let mut image = Self::new();
        image.set(value);
        image
    }

    /// Takes over another one: whole lines, between places that are aligned alike.
    #[inline]
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.lines.copy_from_slice(&other.lines);
    }

    /// The value.
    #[inline]
    pub(super) fn get(&self) -> &T {
        let value = T::ref_from_bytes(&self.lines.as_bytes()[Self::START..][Self::VALUE]);
        value.unwrap_or_else(|_| unreachable!("the place has its alignment and its size"))
    }

    /// The value, to be changed in its place.
    #[inline]
    pub(super) fn value(&mut self) -> &mut T {
        let value = T::mut_from_bytes(&mut self.bytes()[Self::VALUE]);
        value.unwrap_or_else(|_| unreachable!("the place has its alignment and its size"))
    }
}
