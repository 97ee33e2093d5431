//! How long does a commit take over a region, beside redb's file backend? `commits DIRECTORY
//! plain|emulated [COMMITS]`: both write the same keys in turn, and the medians are printed.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use daxmap::{Emulation, Options};
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};
use redb_region::RegionBackend;

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("table");
/// Commits of one backend before it is the other's turn.
const TURN: u64 = 20;
const VALUE_BYTES: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (directory, options, commits) = match arguments.as_slice() {
        [directory, how, rest @ ..] => {
            let options = match how.as_str() {
                "emulated" => Options::new().emulate(Emulation::Adr),
                _ => Options::new(),
            };
            (directory, options, rest.first().map_or(Ok(1000), |count| count.parse())?)
        }
        _ => return Err("commits DIRECTORY plain|emulated [COMMITS]".into()),
    };
    let directory = tempfile::tempdir_in(directory)?;
    let file = |name: &str| {
        File::create_new(directory.path().join(name))
            .and_then(|_| File::options().read(true).write(true).open(directory.path().join(name)))
    };
    let by_file = database(FileBackend::new(file("file")?)?)?;
    let by_region = database(RegionBackend::new(file("region")?, options))?;
    let again = database(FileBackend::new(file("again")?)?)?;
    let databases = [&by_file, &by_region, &again];
    let mut times: [Vec<Duration>; 3] = Default::default();
    for turn in 0..commits / TURN {
        for place in 0..databases.len() {
            // Nobody always comes after the same one.
            let place = (place + turn as usize) % databases.len();
            for commit in 0..TURN {
                let began = Instant::now();
                insert(databases[place], turn * TURN + commit)?;
                times[place].push(began.elapsed());
            }
        }
    }
    for database in databases {
        check(database, commits / TURN * TURN)?;
    }
    let [file, region, again] = times.map(median);
    let ratio = |time: Duration| time.as_secs_f64() / file.as_secs_f64();
    println!(
        "{}: commit p50 by file {file:?}, by region {region:?} ({:.2}), by file again {again:?} \
         ({:.2}), {commits} commits each",
        shown(directory.path()),
        ratio(region),
        ratio(again)
    );
    Ok(())
}

fn shown(directory: &Path) -> String {
    directory.parent().unwrap_or(directory).display().to_string()
}

fn database(backend: impl StorageBackend) -> Result<Database, Box<dyn Error>> {
    let database = Database::builder().create_with_backend(backend)?;
    let transaction = database.begin_write()?;
    transaction.open_table(TABLE)?;
    transaction.commit()?;
    Ok(database)
}

/// Keys in an order that visits pages all over the tree.
fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn insert(database: &Database, number: u64) -> Result<(), Box<dyn Error>> {
    let transaction = database.begin_write()?;
    transaction.open_table(TABLE)?.insert(key(number), &[number as u8; VALUE_BYTES][..])?;
    transaction.commit()?;
    Ok(())
}

fn check(database: &Database, count: u64) -> Result<(), Box<dyn Error>> {
    let table = database.begin_read()?.open_table(TABLE)?;
    for number in 0..count {
        let found = table.get(key(number))?.ok_or("a key is missing")?;
        if black_box(found.value()) != &[number as u8; VALUE_BYTES][..] {
            return Err(format!("another value of {number}").into());
        }
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
