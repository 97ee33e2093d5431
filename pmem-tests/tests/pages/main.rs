//! Pages that are replaced whole: what a crash leaves of them, what a kill does, what a file says.

mod crashes;
mod files;
mod killed;
mod limits;
mod model;
