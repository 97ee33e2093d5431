//! A region whose user forgets something, for controls: what the tests must notice.

use daxmap::{Backend, Durability, Granularity, Region, Result};

use crate::load::Care;

/// Passes everything on but what its care leaves out.
#[derive(Debug)]
pub struct Careless<R> {
    region: R,
    care: Care,
}

impl<R> Careless<R> {
    /// A region that is used with this care.
    pub fn new(region: R, care: Care) -> Self {
        Self { region, care }
    }
}

macro_rules! passed_on {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {
        $(fn $name(&self, $($arg: $ty),*) -> $ret {
            self.region.$name($($arg),*)
        })*
    };
}

impl<R: Region> Region for Careless<R> {
    passed_on! {
        fn len() -> u64;
        fn durability() -> Durability;
        fn granularity() -> Granularity;
        fn backend() -> Backend;
        fn is_emulated() -> bool;
        fn read(offset: u64, buf: &mut [u8]) -> Result<()>;
        fn write(offset: u64, data: &[u8]) -> Result<()>;
        fn fill_flush(offset: u64, len: u64, byte: u8) -> Result<()>;
        fn load_u64(offset: u64) -> Result<u64>;
        fn store_u64(offset: u64, value: u64) -> Result<()>;
        fn compare_exchange_u64(offset: u64, current: u64, new: u64)
            -> Result<std::result::Result<u64, u64>>;
        fn grow(new_len: u64) -> Result<()>;
        fn deep_flush(offset: u64, len: u64) -> Result<()>;
        fn close() -> Result<()>;
    }

    fn write_flush(&self, offset: u64, data: &[u8]) -> Result<()> {
        if self.care.flushes() {
            return self.region.write_flush(offset, data);
        }
        self.region.write(offset, data)
    }

    fn write_stream(&self, offset: u64, data: &[u8]) -> Result<()> {
        if self.care.flushes() {
            return self.region.write_stream(offset, data);
        }
        self.region.write(offset, data)
    }

    fn write_persist(&self, offset: u64, data: &[u8]) -> Result<()> {
        if self.care.flushes() && self.care.drains() {
            return self.region.write_persist(offset, data);
        }
        self.write_flush(offset, data)?;
        self.drain()
    }

    fn flush(&self, offset: u64, len: u64) -> Result<()> {
        if self.care.flushes() { self.region.flush(offset, len) } else { Ok(()) }
    }

    fn drain(&self) -> Result<()> {
        if self.care.drains() { self.region.drain() } else { Ok(()) }
    }

    #[allow(unsafe_code)]
    unsafe fn slice(&self, offset: u64, len: u64) -> Result<&[u8]> {
        // SAFETY: passed on.
        unsafe { self.region.slice(offset, len) }
    }

    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn slice_mut(&self, offset: u64, len: u64) -> Result<&mut [u8]> {
        // SAFETY: passed on.
        unsafe { self.region.slice_mut(offset, len) }
    }
}
