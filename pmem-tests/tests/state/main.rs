//! `daxmap::state`: what crashes, kills, damage and other programs leave of it.

mod bits;
mod crashes;
mod files;
mod in_place;
mod killed;
mod model;
mod property;
