//! Ten thousand regions in one process: each may grow, and address space is left for the program.

use daxmap::{Options, Region};

/// Files that this process may have open, raised as far as it may be raised.
#[allow(unsafe_code)]
fn files_max() -> usize {
    // SAFETY: a structure of numbers, filled and read by the kernel.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0, "getrlimit");
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0, "setrlimit");
        limit.rlim_cur as usize
    }
}

/// Bytes of address space of this process.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find(|line| line.starts_with("VmSize:")).expect("its size");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    kib.expect("a number") << 10
}

#[test]
fn ten_thousand_regions_leave_room_for_their_growth_and_for_the_program() {
    const TIB: u64 = 1 << 40;
    let count = files_max().saturating_sub(1000).min(10_000);
    // So many that the default for few of them would take more.
    assert!(count > 1000, "only {count} files may be open");
    let before = address_space();
    let regions: Vec<_> = (0..count)
        .map(|i| {
            let made = Options::new().len(4096).in_memory();
            made.unwrap_or_else(|error| panic!("region {i}: {error}"))
        })
        .collect();
    let taken = address_space() - before;
    assert!(taken < 12 * TIB, "{} TiB for {count} regions", taken / TIB);
    for (i, region) in regions.iter().enumerate() {
        region.grow(64 << 10).unwrap_or_else(|error| panic!("region {i}: {error}"));
        region.write(60_000, b"grown").expect("write");
    }
    regions[count - 1].grow(32 << 20).expect("and much more");
    for region in regions {
        region.close().expect("close");
    }
    assert!(address_space() < before + TIB, "address space that is not given back");
}
