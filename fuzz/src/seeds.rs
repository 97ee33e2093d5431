//! `seeds DIRECTORY`: writes a directory of seeds for each target, from files that the library
//! makes itself.

use std::fs;
use std::path::Path;

use daxmap_fuzz::{STORES, checkpoint, log, whole_state};

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
    for number in 0..log::LOGS {
        let whole = log::whole(number)?.bytes;
        // In the root, in the header of the first segment, in its first and in its second block.
        write_all(
            directory,
            "log_open",
            number,
            &whole,
            [8192 + 40, 16384 + 20, 24576 + 20, 24646],
        )?;
    }
    // Once went unnoticed: the last block of a segment that is full to its last byte.
    write(directory, "log_open", "full-segment", &[1, 11, 0, 0x50, 0x9f, 0x76, 1])?;
    for number in 0..checkpoint::FILES {
        let whole = checkpoint::whole(number)?.bytes;
        write_all(
            directory,
            "checkpoint_open",
            number,
            &whole,
            [20, 8192 + 20, 12288 + 60, 20480],
        )?;
    }
    Ok(())
}

/// A file as it is, and one of the targets' own with changes at these places.
fn write_all(
    directory: &Path,
    target: &str,
    number: u8,
    whole: &[u8],
    places: [u16; 4],
) -> Outcome {
    let raw = [&[0], whole].concat();
    write(directory, target, &format!("whole-{number}"), &raw)?;
    write(directory, "format", &format!("{target}-{number}"), &raw)?;
    write(directory, target, &format!("as-it-is-{number}"), &[1, number])?;
    for place in places {
        let [low, high] = place.to_le_bytes();
        for kind in [0, 2, 3] {
            let name = format!("change-{number}-{place}-{kind}");
            write(directory, target, &name, &[1, number, kind, low, high, 0xff, 1])?;
        }
    }
    Ok(())
}

fn write(directory: &Path, target: &str, name: &str, bytes: &[u8]) -> Outcome {
    let directory = directory.join(target);
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(name), bytes)?)
}
