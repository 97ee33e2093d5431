//! The program that runs inside the emulated-NVDIMM guest.
//!
//! `pmem_tests::guest::program` builds it statically; `ci/vm` runs it.

mod bad;
mod capture;
mod flag;
mod load;
mod mapping;
mod poison;
mod remedy;
mod report;
mod suite;
mod touch;
mod trace;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
guest probe PATH...    what statx and mmap say about each file, made if it is not there
guest capture PATH...  the same, and everything sysfs and mountinfo show
guest load PATH        reads the first byte through a mapping; says which SIGBUS it got
guest report PATH...   what the library reports of each path
guest badblocks [PATH...]
                       what is known to be bad of each path, or of all persistent memory
guest create PATH LEN  creates a region, writes to it, and prints its report
guest require PATH...  creates a region that must survive a power cut, or says why not
guest remedy NAME PATH CODE LATER [FILE]
                       carries out the remedy that `daxmap probe` prints for a reason of PATH;
                       says what was there before, and after it at LATER, of mounts and FILE too
guest faults PATH      page faults at the first store to every page of a new region
guest bad PATH OFFSET [PROGRAM]
                       reads around a page that a memory error took away, or takes away now:
                       PROGRAM is given the path and the offset
guest repair PATH OFFSET
                       gives a bad page its contents again
guest conformance PLACE BACKEND DURABILITY GRANULARITY
                       every check of the trait in a directory or on a device
guest run-load DIRECTORY CARE recorder|console|log [STEPS]
                       writes and acknowledges until somebody ends it, or so many steps
guest check-load DIRECTORY LEAST MOST
                       whether so many steps are there, and no half of anything
guest run-stores DIRECTORY CARE recorder|console
                       stores into a state, a log, working sets and pages until somebody ends it
guest check-stores DIRECTORY LEAST MOST
                       whether so many steps are there, and no half of anything
guest sparse PATH sync|plain recorder|console|log [PAGES]
                       stores to holes through a mapping with or without MAP_SYNC
guest trace PATH       what probes of another user's file change of it, its lease and its directory
guest hold-lease PATH  has a lease for writing until the end of its input, and says if it kept it
guest replace PATH FLAG
                       replaces a file that has the DAX flag (1) or not (0), and looks again
guest adopt PATH...    what the library makes of a mapping with MAP_SYNC, and of one without
guest poison PATH OFFSET
                       takes a page away with MADV_HWPOISON, then loads it
guest poison-bad PATH OFFSET
                       the same, of a DAX file, when the device knows of the bad block";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, paths)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let said = |result: daxmap::Result<()>| result.map_err(std::io::Error::from);
    let result = match command.as_str() {
        "probe" => paths.iter().try_for_each(|path| mapping::print_probe(Path::new(path))),
        "adopt" => paths.iter().try_for_each(|path| mapping::print_adopted(Path::new(path))),
        "capture" => capture::print(paths),
        "load" if paths.len() == 1 => poison::load(Path::new(&paths[0])),
        "poison" | "poison-bad" if paths.len() == 2 => {
            let offset = paths[1].parse().map_err(std::io::Error::other);
            let reported = command == "poison-bad";
            offset.and_then(|offset| poison::poison(Path::new(&paths[0]), offset, reported))
        }
        "report" => paths.iter().try_for_each(|path| said(report::print(Path::new(path)))),
        "badblocks" if paths.is_empty() => said(report::print_all_bad()),
        "badblocks" => paths.iter().try_for_each(|path| said(report::print_bad(Path::new(path)))),
        "create" if paths.len() == 2 => {
            let len = paths[1].parse().map_err(std::io::Error::other);
            len.and_then(|len| said(report::create(Path::new(&paths[0]), len)))
        }
        "replace" if paths.len() == 2 => flag::replace(Path::new(&paths[0]), paths[1] == "1"),
        "trace" if paths.len() == 1 => trace::run(Path::new(&paths[0])),
        "hold-lease" if paths.len() == 1 => trace::hold_lease(Path::new(&paths[0])),
        "run-load" if paths.len() == 3 || paths.len() == 4 => {
            load::run(Path::new(&paths[0]), &paths[1], &paths[2], paths.get(3))
                .map_err(std::io::Error::other)
        }
        "check-load" if paths.len() == 3 => {
            load::check_both(Path::new(&paths[0]), &paths[1], &paths[2])
                .map_err(std::io::Error::other)
        }
        "run-stores" if paths.len() == 3 => {
            load::run_stores(Path::new(&paths[0]), &paths[1], &paths[2])
                .map_err(std::io::Error::other)
        }
        "check-stores" if paths.len() == 3 => {
            load::check_stores(Path::new(&paths[0]), &paths[1], &paths[2])
                .map_err(std::io::Error::other)
        }
        "sparse" if paths.len() == 3 || paths.len() == 4 => {
            load::sparse(Path::new(&paths[0]), &paths[1], &paths[2], paths.get(3))
        }
        "bad" if paths.len() == 2 || paths.len() == 3 => {
            let offset = paths[1].parse().map_err(std::io::Error::other);
            offset.and_then(|offset| said(bad::run(Path::new(&paths[0]), offset, paths.get(2))))
        }
        "repair" if paths.len() == 2 => {
            let offset = paths[1].parse().map_err(std::io::Error::other);
            offset.and_then(|offset| said(bad::repair(Path::new(&paths[0]), offset)))
        }
        "require" => paths.iter().try_for_each(|path| said(report::require(Path::new(path)))),
        "remedy" if paths.len() == 4 || paths.len() == 5 => {
            remedy::run(&paths[0], &paths[1], &paths[2], &paths[3], paths.get(4))
        }
        "faults" if paths.len() == 1 => said(touch::run(Path::new(&paths[0]))),
        "conformance" if paths.len() == 4 => {
            suite::run(Path::new(&paths[0]), &paths[1..]).map_err(std::io::Error::other)
        }
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
