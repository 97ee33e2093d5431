//! Publishes versions of a file, for tests that watch, stop or kill it.

use std::ffi::OsStr;
use std::io::Write;
use std::process::ExitCode;

use daxmap::publish::Commit;
use daxmap::{AnyRegion, Options, Region};
use pmem_tests::versions;

const USAGE: &str = "\
publisher once PATH BYTES VERSION create|replace|KEPT   publishes one version; KEPT: the name to
                                                        keep the old one under
publisher times PATH BYTES COUNT                        replaces so often, and says each time
publisher forever PATH BYTES                            replaces with versions 1, 2, ... and
                                                        prints each when it is published";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["once", path, bytes, version, how] => once(path, bytes, version, how),
        ["times", path, bytes, count] => times(path, bytes, count),
        ["forever", path, bytes] => forever(path, bytes),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("publisher: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn once(path: &str, bytes: &str, version: &str, how: &str) -> Outcome<()> {
    let how = match how {
        "create" => Commit::CreateOnly,
        "replace" => Commit::Replace,
        kept => Commit::Exchange(OsStr::new(kept)),
    };
    let region = publish(path, bytes.parse()?, version.parse()?, how)?;
    println!("published");
    // Open and usable to the end.
    let mut header = [0; 8];
    region.read(0, &mut header)?;
    assert_eq!(header, version.parse::<u64>()?.to_le_bytes());
    Ok(())
}

fn times(path: &str, bytes: &str, count: &str) -> Outcome<()> {
    for version in 1..=count.parse()? {
        let region = publish(path, bytes.parse()?, version, Commit::Replace)?;
        println!("{version}");
        drop(region);
    }
    Ok(())
}

fn forever(path: &str, bytes: &str) -> Outcome<()> {
    let mut out = std::io::stdout();
    for version in 1.. {
        publish(path, bytes.parse()?, version, Commit::Replace)?;
        writeln!(out, "{version}")?;
        out.flush()?;
    }
    Ok(())
}

fn publish(path: &str, len: usize, version: u64, how: Commit<'_>) -> Outcome<AnyRegion> {
    let draft = Options::new().len(len as u64).draft(path)?;
    // In two pieces, so that something can come between them.
    let content = versions::content(version, len);
    let (first, second) = content.split_at(len / 2);
    draft.write(0, first)?;
    draft.write(len as u64 / 2, second)?;
    Ok(draft.commit(how)?)
}
