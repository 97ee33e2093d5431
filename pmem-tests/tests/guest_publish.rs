//! Publishing over files with and without the DAX flag, on filesystems mounted `dax=inode` in the
//! guest: the new file has the flag that the old one had, and is DAX, or not, from the beginning.

use pmem_tests::guest::{Guest, Persistence, program};

fn replaced_on(kind: &str) {
    let script = format!(
        "mkpmem fsdax namespace0.0
         mkfs-dax {kind} /dev/pmem0 /mnt/dax dax=inode
         ./guest replace /mnt/dax/flagged 1
         ./guest replace /mnt/dax/plain 0
         ls -A /mnt/dax | grep -v lost"
    );
    let output = Guest::new()
        .persistence(Persistence::MemoryController)
        .nvdimm("512M")
        .file(program().unwrap())
        .run_script(&script)
        .unwrap();
    assert_eq!(output.status, 0, "{}", output.stdout);
    let lines: Vec<&str> = output.stdout.lines().filter(|line| !line.starts_with('/')).collect();
    let expected = [
        "flag=1 backend=fsdax durability=PowerFail again=fsdax",
        "flag=0 backend=page_cache durability=Fsync again=page_cache",
        "flagged",
        "plain",
    ];
    assert_eq!(lines, expected, "{kind}");
}

#[test]
fn the_dax_flag_is_handed_on_by_ext4() {
    replaced_on("ext4");
}

#[test]
fn the_dax_flag_is_handed_on_by_xfs() {
    replaced_on("xfs");
}
