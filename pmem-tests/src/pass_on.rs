//! Regions that pass most of what they are asked on to another one.

/// Methods of [`Region`](daxmap::Region), passed on to the region in a field: `pass_on!(field: len read ...)`
/// within an `impl Region`, which has the others itself.
#[macro_export]
macro_rules! pass_on {
    ($field:ident: $($method:ident)*) => { $($crate::pass_on!(@$method $field);)* };
    (@len $to:ident) => { $crate::pass_on!(@@$to len() -> u64); };
    (@durability $to:ident) => { $crate::pass_on!(@@$to durability() -> ::daxmap::Durability); };
    (@granularity $to:ident) => { $crate::pass_on!(@@$to granularity() -> ::daxmap::Granularity); };
    (@backend $to:ident) => { $crate::pass_on!(@@$to backend() -> ::daxmap::Backend); };
    (@is_emulated $to:ident) => { $crate::pass_on!(@@$to is_emulated() -> bool); };
    (@read $to:ident) => {
        $crate::pass_on!(@@$to read(offset: u64, into: &mut [u8]) -> ::daxmap::Result<()>);
    };
    (@write $to:ident) => {
        $crate::pass_on!(@@$to write(offset: u64, data: &[u8]) -> ::daxmap::Result<()>);
    };
    (@write_flush $to:ident) => {
        $crate::pass_on!(@@$to write_flush(offset: u64, data: &[u8]) -> ::daxmap::Result<()>);
    };
    (@fill_flush $to:ident) => {
        $crate::pass_on!(@@$to fill_flush(offset: u64, len: u64, byte: u8) -> ::daxmap::Result<()>);
    };
    (@flush $to:ident) => {
        $crate::pass_on!(@@$to flush(offset: u64, len: u64) -> ::daxmap::Result<()>);
    };
    (@drain $to:ident) => { $crate::pass_on!(@@$to drain() -> ::daxmap::Result<()>); };
    (@sync_all $to:ident) => { $crate::pass_on!(@@$to sync_all() -> ::daxmap::Result<()>); };
    (@deep_flush $to:ident) => {
        $crate::pass_on!(@@$to deep_flush(offset: u64, len: u64) -> ::daxmap::Result<()>);
    };
    (@load_u64 $to:ident) => {
        $crate::pass_on!(@@$to load_u64(offset: u64) -> ::daxmap::Result<u64>);
    };
    (@store_u64 $to:ident) => {
        $crate::pass_on!(@@$to store_u64(offset: u64, value: u64) -> ::daxmap::Result<()>);
    };
    (@compare_exchange_u64 $to:ident) => {
        $crate::pass_on!(@@$to compare_exchange_u64(offset: u64, current: u64, new: u64)
            -> ::daxmap::Result<::std::result::Result<u64, u64>>);
    };
    (@grow $to:ident) => { $crate::pass_on!(@@$to grow(len: u64) -> ::daxmap::Result<()>); };
    (@close $to:ident) => { $crate::pass_on!(@@$to close() -> ::daxmap::Result<()>); };
    (@slices $to:ident) => {
        #[allow(unsafe_code)]
        unsafe fn slice(&self, offset: u64, len: u64) -> ::daxmap::Result<&[u8]> {
            // SAFETY: passed on.
            unsafe { self.$to.slice(offset, len) }
        }

        #[allow(unsafe_code, clippy::mut_from_ref)]
        unsafe fn slice_mut(&self, offset: u64, len: u64) -> ::daxmap::Result<&mut [u8]> {
            // SAFETY: passed on.
            unsafe { self.$to.slice_mut(offset, len) }
        }
    };
    (@@$to:ident $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty) => {
        fn $name(&self, $($arg: $ty),*) -> $ret {
            self.$to.$name($($arg),*)
        }
    };
}
