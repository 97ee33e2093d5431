//! The program that runs inside the emulated-NVDIMM guest.
//!
//! Build it statically (`daxmap-pmem-tests`' harness does) and run it with `ci/vm`.

mod capture;
mod mapping;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
guest probe PATH...    what statx and mmap say about each file, made if it is not there
guest capture PATH...  the same, and everything sysfs and mountinfo show
guest poison PATH      takes the first page of the file away, as a memory error would";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, paths)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let result = match command.as_str() {
        "probe" => paths.iter().try_for_each(|path| mapping::print_probe(Path::new(path))),
        "capture" => capture::print(paths),
        "poison" if paths.len() == 1 => mapping::poison(Path::new(&paths[0])),
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
