//! Page faults at the first store to every page of a region just created.

use std::path::Path;

use daxmap::{Options, Region};

/// Pages of 4 KiB.
const PAGES: u64 = 8192;
const STEP: u64 = 16;

/// Minor and major faults of this thread so far.
fn faults() -> i64 {
    // SAFETY: getrusage fills a struct of ours, for which zeros are a valid value.
    #[allow(unsafe_code)]
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    usage.ru_minflt + usage.ru_majflt
}

/// Creates a region of 8,192 pages in `path`, stores to each, grows it by 16 and to twice that, stores to
/// each again, and prints the faults of the stores both times, and of the first growth. The control maps the same file anew.
pub(crate) fn run(path: &Path) -> daxmap::Result<()> {
    // The code that stores and counts is loaded page by page too: once through it first.
    Options::new().len(4096).in_memory()?.store_u64(0, faults().unsigned_abs())?;
    let region = Options::new().len(PAGES * 4096).create(path)?;
    let mut before = faults();
    for page in 0..PAGES {
        region.store_u64(page * 4096, page)?;
    }
    println!("path={}", path.display());
    println!("faults_after_create={}", faults() - before);
    before = faults();
    region.grow((PAGES + STEP) * 4096)?;
    println!("faults_of_grow={}", faults() - before);
    region.grow(2 * PAGES * 4096)?;
    before = faults();
    for page in 0..2 * PAGES {
        region.store_u64(page * 4096, page)?;
    }
    println!("faults_after_grow={}", faults() - before);
    // The control: the same pages through a mapping that nobody populated do fault, so the
    // counter counts.
    let file = std::fs::File::options().read(true).write(true).open(path).expect("just created");
    // SAFETY: this program alone has the file.
    #[allow(unsafe_code)]
    let mut plain = unsafe { memmap2::MmapMut::map_mut(&file) }.expect("just created");
    before = faults();
    for page in 0..PAGES as usize {
        plain[page * 4096] = 1;
    }
    println!("faults_of_control={}", faults() - before);
    Ok(())
}
