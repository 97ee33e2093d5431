//! The records themselves.

use std::fmt::Write as _;
use std::io::{self, Write};

use daxmap::log::{Log, Lsn, Record};
use daxmap::{AnyRegion, Error};
use serde_json::json;

/// Which records, and how.
pub struct What {
    pub from: Option<u64>,
    pub to: Option<u64>,
    pub limit: Option<u64>,
    pub json: bool,
}

/// Bytes in a row.
const ROW: usize = 16;

/// Prints records. The outer error is that of writing, the inner one that of reading.
pub fn write(
    out: &mut impl Write,
    log: &Log<AnyRegion>,
    what: &What,
) -> io::Result<Result<(), Error>> {
    let mut reader = match log.reader(Lsn::new(what.from.unwrap_or(0))) {
        Ok(reader) => reader,
        Err(error) => return Ok(Err(error)),
    };
    let to = Lsn::new(what.to.unwrap_or(u64::MAX));
    for _ in 0..what.limit.unwrap_or(u64::MAX) {
        let record = match reader.next_record() {
            Ok(Some(record)) if record.lsn <= to => record,
            Ok(_) => break,
            Err(error) => return Ok(Err(error)),
        };
        if what.json {
            let object = json!({
                "lsn": record.lsn.get(),
                "bytes": record.payload.len(),
                "payload": hex(record.payload),
            });
            writeln!(out, "{object}")?;
        } else {
            as_text(out, &record)?;
        }
    }
    Ok(Ok(()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut all, byte| {
        let _ = write!(all, "{byte:02x}");
        all
    })
}

fn as_text(out: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
    writeln!(out, "{}  {} bytes", record.lsn, record.payload.len())?;
    for (row, bytes) in record.payload.chunks(ROW).enumerate() {
        let mut pairs = String::with_capacity(3 * ROW + 1);
        for (column, byte) in bytes.iter().enumerate() {
            let between = if column == ROW / 2 { "  " } else { " " };
            let _ = write!(pairs, "{between}{byte:02x}");
        }
        let printable = |&byte: &u8| if (b' '..=b'~').contains(&byte) { byte as char } else { '.' };
        let shown: String = bytes.iter().map(printable).collect();
        writeln!(out, "    {:08x} {pairs:<49}  |{shown}|", row * ROW)?;
    }
    Ok(())
}
