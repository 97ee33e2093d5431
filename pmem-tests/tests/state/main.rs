//! `daxmap::state`: what crashes, kills, damage and other programs leave of it.

mod bits;
mod crashes;
mod files;
mod kills;
mod model;
