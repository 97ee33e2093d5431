//! Cache lines: covering a byte range, writing it back, fencing, and copies that are durable
//! after the next fence.

mod write_back;

pub use write_back::WriteBack;
