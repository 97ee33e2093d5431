//! Memory that goes bad while a region is open: the kernel takes a page away with MADV_HWPOISON,
//! on ext4 and xfs with `MAP_SYNC`, on tmpfs, and in the page cache of a disk. The library's next
//! access to it raises a SIGBUS (BUS_MCEERR_AR), and is an error with the range; the neighbours are
//! read on; the process lives.

use pmem_tests::guest::{Guest, Persistence, program};

/// Byte at which the bad page begins. On ext4 it lies inside of a huge page.
const BAD: u64 = 1 << 20;

/// What the guest program printed about one region.
struct Said<'a>(Vec<&'a str>);

impl Said<'_> {
    #[track_caller]
    fn expect(&self, facts: &[(&str, &str)]) {
        for (key, value) in facts {
            let line = format!("{key}={value}");
            assert!(self.0.contains(&line.as_str()), "no {line} among {:#?}", self.0);
        }
    }
}

/// The lines between "=== NAME" and the next such line.
fn section<'a>(output: &'a str, name: &str) -> Said<'a> {
    let head = format!("=== {name}");
    let lines = output.lines().skip_while(|line| *line != head).skip(1);
    Said(lines.take_while(|line| !line.starts_with("=== ")).collect())
}

#[test]
fn a_page_that_goes_bad_is_an_error_and_its_neighbours_are_read() {
    let script = format!(
        "look() {{
             echo === $1
             ./guest create $2/file 8388608
             ./guest bad $2/file {BAD} \"$3\"
         }}
         mkpmem fsdax namespace0.0
         mkpmem fsdax namespace1.0
         mkfs-dax ext4 /dev/pmem0 /mnt/ext4
         mkfs-dax xfs /dev/pmem1 /mnt/xfs
         mkfs-dax ext4 /dev/vda /mnt/disk defaults
         look ext4 /mnt/ext4 './guest poison-bad'
         look xfs /mnt/xfs './guest poison-bad'
         look tmpfs /dev/shm './guest poison'
         look disk /mnt/disk './guest poison'"
    );
    let output = Guest::new()
        .persistence(Persistence::MemoryController)
        .nvdimm("512M")
        .nvdimm("512M")
        .disk("256M")
        .file(program().unwrap())
        .run_script(&script)
        .unwrap();
    assert_eq!(output.status, 0, "{}", output.stdout);
    let range = format!("{BAD}..{}", BAD + 4096);
    for (name, backend) in
        [("ext4", "fsdax"), ("xfs", "fsdax"), ("tmpfs", "volatile"), ("disk", "page_cache")]
    {
        let said = section(&output.stdout, name);
        said.expect(&[
            ("region_backend", backend),
            // A load by somebody else gets the signal: the page is bad indeed.
            ("made", "true"),
            ("during=load sigbus", "BUS_MCEERR_AR lsb=12"),
            ("before", "read"),
            ("at", "gone"),
            ("at_range", &range),
            ("after", "read"),
            ("across", "gone"),
            ("load", "gone"),
            ("lives", "yes"),
        ]);
        if backend == "page_cache" {
            // By pwrite and a sync, whose error is the region's last.
            said.expect(&[("write", "other error"), ("write_after", "other error")]);
        } else {
            said.expect(&[("write", "gone"), ("write_after", "read")]);
        }
    }
}
