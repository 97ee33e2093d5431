//! A page replaced whole, beside the ways of InnoDB and SQLite by hand: `cargo bench -p daxmap --bench pages --
//! DIRECTORY...` (default: the build directory). Interleaved, medians of microseconds and ratios.
//!
//! | way | what it does for a page |
//! |---|---|
//! | record | [`daxmap::pages`], by its record: the page twice, one fdatasync |
//! | kernel | the same, by `RWF_ATOMIC`, where the filesystem offers it |
//! | doublewrite | InnoDB's: the page to a second place, fdatasync, the page to its own, fdatasync |
//! | journal | SQLite's rollback journal: the old page to a second file, fdatasync, the new one to its place, fdatasync, the journal's head zeroed, fdatasync |
//! | wal | SQLite's WAL: the page to the end of a second file, fdatasync; the place is written later, by a checkpoint that is not measured |

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use daxmap::pages::{PageOptions, Pages, Way};

const PAGES: u64 = 256;
const ROUNDS: u64 = 40;
/// Writes of one way before it is another's turn.
const TURN: u64 = 8;

type Write = Box<dyn FnMut(u64, &[u8]) -> std::io::Result<()>>;

fn main() -> Result<(), Box<dyn Error>> {
    let places: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let places =
        if places.is_empty() { vec![env!("CARGO_TARGET_TMPDIR").to_owned()] } else { places };
    for place in places {
        for bytes in [4096, 16384, 65536] {
            measure(Path::new(&place), bytes)?;
        }
    }
    Ok(())
}

fn measure(place: &Path, bytes: usize) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir_in(place)?;
    let path = |name: &str| directory.path().join(name);
    let len = PAGES * bytes as u64;
    let pages = |name, kernel| {
        let pages = PageOptions::new().kernel(kernel).create(path(name), len)?;
        pages.write_atomic(0, &vec![1; bytes])?;
        Ok::<Pages, daxmap::Error>(pages)
    };
    let mut ways: Vec<(&str, Write)> = vec![("record", by(pages("record", false)?))];
    let kernel = pages("kernel", true)?;
    if kernel.way() == Way::Kernel {
        ways.push(("kernel", by(kernel)));
    }
    let filled = |name: &str| -> std::io::Result<File> {
        let file = File::options().read(true).write(true).create_new(true).open(path(name))?;
        file.write_all_at(&vec![0; len as usize + 65536], 0)?;
        file.sync_all()?;
        Ok(file)
    };
    let (double, data) = (filled("double")?, filled("doublewritten")?);
    ways.push((
        "doublewrite",
        Box::new(move |at, page| {
            double.write_all_at(page, 0)?;
            double.sync_data()?;
            data.write_all_at(page, at)?;
            data.sync_data()
        }),
    ));
    let (journal, data, mut old) = (filled("journal")?, filled("journalled")?, vec![0; bytes]);
    ways.push((
        "journal",
        Box::new(move |at, page| {
            data.read_exact_at(&mut old, at)?;
            journal.write_all_at(&old, 512)?;
            journal.write_all_at(&[1; 28], 0)?;
            journal.sync_data()?;
            data.write_all_at(page, at)?;
            data.sync_data()?;
            journal.write_all_at(&[0; 28], 0)?;
            journal.sync_data()
        }),
    ));
    let (wal, mut end) = (filled("wal")?, 0);
    ways.push((
        "wal",
        Box::new(move |_, page| {
            let frame = [&[7; 24], page].concat();
            wal.write_all_at(&frame, end)?;
            end = (end + frame.len() as u64) % (len - len % frame.len() as u64);
            wal.sync_data()
        }),
    ));
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..ROUNDS {
        for turn in 0..ways.len() {
            let way = (turn + round as usize) % ways.len();
            for write in 0..TURN {
                let number = round * TURN + write;
                let page = vec![number as u8; bytes];
                let began = Instant::now();
                ways[way].1(number * 97 % PAGES * bytes as u64, &page)?;
                times[way].push(began.elapsed());
            }
        }
    }
    let medians: Vec<Duration> = times.into_iter().map(median).collect();
    print!("{} {:>2} KiB:", place.display(), bytes / 1024);
    for ((name, _), median) in ways.iter().zip(&medians) {
        let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
        print!(" {name} {:.0} us ({ratio:.2})", median.as_secs_f64() * 1e6);
    }
    println!();
    Ok(())
}

fn by(pages: Pages) -> Write {
    Box::new(move |at, page| pages.write_atomic(at, page).map_err(std::io::Error::from))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
