//! Safe reads and writes around a page with a memory error.

use std::path::Path;

use daxmap::{ErrorKind, Options, Region, Result};

/// Opens the file and accesses the pages before, at and after `offset`, which is the start of a
/// page that the kernel knows to be bad.
pub(crate) fn run(path: &Path, offset: u64) -> Result<()> {
    let region = Options::new().open(path)?;
    println!("path=bad");
    for (name, at) in [("before", offset - 4096), ("at", offset), ("after", offset + 4096)] {
        let mut page = [0; 4096];
        let outcome = region.read(at, &mut page);
        println!("{name}={}", word(&outcome));
        if let Err(error) = outcome {
            println!("{name}_error={error}");
        }
    }
    println!("across={}", word(&region.read(offset - 8, &mut [0; 16])));
    println!("load={}", word(&region.load_u64(offset).map(drop)));
    println!("write={}", word(&region.write_persist(offset + 64, b"x")));
    println!("write_after={}", word(&region.write_persist(offset + 4096, b"x")));
    Ok(())
}

fn word(outcome: &Result<()>) -> &'static str {
    match outcome {
        Ok(()) => "read",
        Err(error) if matches!(error.kind(), ErrorKind::Gone) => "gone",
        Err(_) => "other error",
    }
}
