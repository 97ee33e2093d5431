//! Safe reads and writes around a page with a memory error.

use std::path::Path;
use std::process::Command;

use daxmap::{ErrorKind, Options, Region, Result};

/// Opens the file and accesses the pages before, at and after `offset`, which is the start of a
/// page that the kernel knows to be bad; or that becomes bad while it is open and has been read, by
/// a program of the guest that is given the file and the offset.
pub(crate) fn run(path: &Path, offset: u64, error_by: Option<&String>) -> Result<()> {
    let region = Options::new().open(path)?;
    println!("path=bad");
    if let Some(program) = error_by {
        region.read(offset - 4096, &mut [0; 3 * 4096])?;
        let mut words = program.split(' ');
        let made = Command::new(words.next().unwrap_or_default())
            .args(words)
            .arg(path)
            .arg(offset.to_string())
            .status();
        println!("made={}", made.is_ok_and(|status| status.success()));
    }
    for (name, at) in [("before", offset - 4096), ("at", offset), ("after", offset + 4096)] {
        let mut page = [0; 4096];
        let outcome = region.read(at, &mut page);
        println!("{name}={}", word(&outcome));
        if let Err(error) = outcome {
            if let Some(range) = error.range() {
                println!("{name}_range={}..{}", range.start, range.end);
            }
            println!("{name}_error={error}");
        }
    }
    println!("across={}", word(&region.read(offset - 8, &mut [0; 16])));
    println!("load={}", word(&region.load_u64(offset).map(drop)));
    println!("write={}", word(&region.write_persist(offset + 64, b"x")));
    println!("write_after={}", word(&region.write_persist(offset + 4096, b"x")));
    println!("lives=yes");
    Ok(())
}

/// Opens a file with a bad page at `offset`, gives the page its contents again, and says what can be
/// read then, here and by a region that is opened afterwards.
pub(crate) fn repair(path: &Path, offset: u64) -> Result<()> {
    const CONTENTS: [u8; 4096] = [0x5a; 4096];
    let region = Options::new().open(path)?;
    println!("path=repaired:{}", path.display());
    let mut page = [0; 4096];
    println!("before={}", word(&region.read(offset, &mut page)));
    match region.repair(offset, &CONTENTS) {
        Ok(()) => println!("repaired=yes"),
        Err(error) => println!("repaired={error}"),
    }
    println!("at={}", word(&region.read(offset, &mut page)));
    println!("is_whole={}", page == CONTENTS);
    println!("after={}", word(&region.read(offset + 4096, &mut page)));
    println!("goes_on={}", word(&region.write_persist(offset + 4096, &page)));
    region.close()?;
    let again = Options::new().read_only(true).open(path)?;
    println!("again={}", word(&again.read(offset, &mut page)));
    println!("again_is_whole={}", page == CONTENTS);
    Ok(())
}

fn word(outcome: &Result<()>) -> &'static str {
    match outcome {
        Ok(()) => "read",
        Err(error) if matches!(error.kind(), ErrorKind::Gone) => "gone",
        Err(_) => "other error",
    }
}
