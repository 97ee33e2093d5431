//! The program that runs inside the emulated-NVDIMM guest.
//!
//! `pmem_tests::guest::program` builds it statically; `ci/vm` runs it.

mod capture;
mod mapping;
mod poison;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
guest probe PATH...    what statx and mmap say about each file, made if it is not there
guest capture PATH...  the same, and everything sysfs and mountinfo show
guest load PATH        reads the first byte through a mapping; says which SIGBUS it got
guest poison PATH      takes the first page away, as a memory error would, then loads it";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, paths)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let result = match command.as_str() {
        "probe" => paths.iter().try_for_each(|path| mapping::print_probe(Path::new(path))),
        "capture" => capture::print(paths),
        "load" if paths.len() == 1 => poison::load(Path::new(&paths[0])),
        "poison" if paths.len() == 1 => poison::poison(Path::new(&paths[0])),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest {command}: {error}");
            ExitCode::FAILURE
        }
    }
}
