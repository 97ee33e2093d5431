//! The log beside libpmemlog, hand-written logs and okaywal, in one run, interleaved.
//!
//! ```text
//! cargo bench -p daxmap --bench log                     in memory, and on the filesystem of the target directory
//! cargo bench -p daxmap --bench log -- DIR...           in memory, and in these, one table each
//! cargo bench -p daxmap --bench log -- --quick          a tenth of the rounds
//! cargo bench -p daxmap --bench log -- --report-only    the same as without: `ci/bench` passes it to all
//! cargo bench -p daxmap --bench log -- --record         writes this processor's column of docs/processors.md
//! ```
//!
//! Persistent memory is emulated on DRAM: the times compare instruction sequences and say nothing
//! about a persistent medium. Best on an otherwise idle machine.
#![allow(clippy::cast_precision_loss)] // counts and times, far below 2^52
#![allow(unsafe_code)] // libpmemlog, and stores into a mapping by hand

#[path = "log/files.rs"]
mod files;
#[cfg(target_arch = "x86_64")]
#[path = "compare/hand.rs"]
#[allow(dead_code)]
mod hand;
#[cfg(target_arch = "x86_64")]
#[path = "log/memory.rs"]
mod memory;

#[cfg(target_arch = "x86_64")]
#[path = "compare/processors.rs"]
mod processors;

use std::path::PathBuf;

/// The middle of some values.
#[must_use]
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of the ratios within a round.
#[must_use]
pub fn ratio(of: &[f64], to: &[f64]) -> f64 {
    median(&mut of.iter().zip(to).map(|(of, to)| of / to).collect::<Vec<_>>())
}

fn main() {
    let mut quick = false;
    let mut directories: Vec<PathBuf> = Vec::new();
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            // Cargo adds --bench. Nothing here fails for a target that is missed.
            Some("--bench" | "--report-only" | "--record") => {}
            Some("--quick") => quick = true,
            Some(option) if option.starts_with('-') => {
                eprintln!(
                    "log: unknown option {option}; --quick, --report-only, --record and directories are \
                     known"
                );
                std::process::exit(2);
            }
            _ => directories.push(argument.into()),
        }
    }
    if directories.is_empty() {
        directories.push(PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    }
    #[cfg(target_arch = "x86_64")]
    memory::run(if quick { 30 } else { 400 });
    for directory in directories {
        files::run(&directory, if quick { 3 } else { 15 });
    }
}
