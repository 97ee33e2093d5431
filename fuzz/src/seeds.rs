//! `seeds DIRECTORY`: writes a directory of seeds for each target, from files that the library
//! makes itself.

use std::fs;
use std::path::Path;

use daxmap_fuzz::{STORES, whole_state};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let directory = std::env::args().nth(1).ok_or("seeds DIRECTORY")?;
    let directory = Path::new(&directory);
    for stores in 1..=STORES {
        for closed in [false, true] {
            let name = format!("state-{stores}-{}", if closed { "closed" } else { "open" });
            let whole = whole_state(stores, closed)?;
            // As it is: the targets take what begins with a zero for a whole file.
            let raw = [&[0], whole.as_slice()].concat();
            write(directory, "state_open", &name, &raw)?;
            write(directory, "format", &name, &raw)?;
        }
        // One of their own files, with edits: in the header, and in each slot.
        for (page, at) in [(0, 8), (0, 24), (1, 60), (2, 0), (2, 8), (2, 16), (3, 20), (3, 40)] {
            let edits = [1, stores as u8, page, at, 0xff];
            let name = format!("edit-{stores}-{page}-{at}");
            write(directory, "state_open", &name, &edits)?;
        }
    }
    Ok(())
}

fn write(directory: &Path, target: &str, name: &str, bytes: &[u8]) -> Outcome {
    let directory = directory.join(target);
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(name), bytes)?)
}
