//! A write-ahead log: replays what is there, then adds a record.
//!
//! ```text
//! cargo run --release --example wal        # twice
//! ```

use daxmap::log::{LogOptions, Lsn};
use daxmap::{Durability, Options};

fn main() -> daxmap::Result<()> {
    let region = Options::new().len(64 << 20).require(Durability::Fsync);
    let log = LogOptions::new().region(region).open_or_create("wal")?;

    for record in log.reader(Lsn::ZERO)? {
        let (lsn, payload) = record?;
        println!("record {lsn}: {}", String::from_utf8_lossy(&payload));
    }

    let payload = format!("after {}", log.last());
    let lsn = log.append(payload.as_bytes())?;
    println!("record {lsn} {}", log.durability().after_power_cut());
    log.close()
}
