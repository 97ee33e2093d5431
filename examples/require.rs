//! Refuses to start where a committed write would not survive a power cut, and says why.
//!
//! ```text
//! cargo run --release --example require -- FILE [PowerFail|Fsync|Unverified|ProcessOnly]
//! ```
//!
//! What a storage engine does with its data directory at start: open with the level it needs,
//! and hand the operator the reasons and remedies when the level is not there.

use std::process::ExitCode;

use daxmap::{Durability, ErrorKind, Options, Region};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: require FILE [LEVEL]");
        return ExitCode::from(2);
    };
    let level = match arguments.next().map_or(Ok(Durability::PowerFail), |level| level.parse()) {
        Ok(level) => level,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };

    match Options::new().len(16 << 20).require(level).open_or_create(&path) {
        Ok(region) => {
            println!("{path}: {} by {}", region.durability(), region.backend());
            ExitCode::SUCCESS
        }
        Err(error) => {
            if let ErrorKind::Durability { required, available, reasons } = error.kind() {
                eprintln!("{path} gives {available}, not {required}:");
                for reason in reasons {
                    eprintln!("  {}", reason.text);
                    if let Some(remedy) = &reason.remedy {
                        eprintln!("    remedy: {remedy}");
                    }
                }
            } else {
                eprintln!("{error}");
            }
            ExitCode::FAILURE
        }
    }
}
