//! `libpmem.so.1` in the place of Debian's: what it exports, what it does in every case that a
//! program can see, and programs of others that run on it unchanged.
//!
//! It keeps away: symbols without a version, an errno that PMDK does not give, a copy that loses
//! bytes, an msync that forgets an error.

mod differential;
mod exports;
mod fio;
mod library;
mod losses;
mod pools;
