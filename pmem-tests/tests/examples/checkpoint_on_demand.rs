//! `checkpoint_on_demand`: the file is a complete checkpoint at every moment.

use pmem_tests::guest::Persistence;
use pmem_tests::scratch::Directory;

use crate::program::{Ended, guest, number, run};

fn checkpoints(arguments: &[&str]) -> Ended {
    let directory = Directory::new(env!("CARGO_TARGET_TMPDIR"));
    let file = directory.path().join("set");
    let ended = run("checkpoint_on_demand", &[&[file.to_str().unwrap()], arguments].concat());
    if ended.success {
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        // What the last killed process was writing may be there, and no more than that.
        assert!(left.len() <= 2, "{left:?}");
    }
    ended
}

#[test]
fn every_state_of_the_file_is_a_complete_checkpoint() {
    for kib in ["64", "1024"] {
        let ended = checkpoints(&["--kills", "150", "--kib", kib]);
        assert!(ended.success);
        assert!(number(&ended.stdout, "checkpoints of") > 10, "hardly a checkpoint was taken");
        assert!(number(&ended.stdout, "times and had changed") > 100, "hardly looked at");
        assert_eq!(number(&ended.stdout, "looks found something else"), 0);
        assert_eq!(number(&ended.stdout, "kills left something else"), 0);
    }
}

#[test]
fn a_shared_mapping_reaches_the_file_unasked() {
    let ended = checkpoints(&["--kills", "20", "--shared"]);
    assert!(!ended.success);
    assert!(number(&ended.stdout, "looks found something else") > 0);
    assert!(number(&ended.stdout, "kills left something else") > 0);
}

#[test]
fn on_dax_too() {
    let output = guest("checkpoint_on_demand")
        .persistence(Persistence::CpuCache)
        .nvdimm("512M")
        .run_script(
            "mkpmem fsdax namespace0.0
             mkfs-dax ext4 /dev/pmem0 /mnt/dax
             ./checkpoint_on_demand /mnt/dax/set --kills 20 --kib 64",
        )
        .unwrap();
    println!("{}", output.stdout);
    assert_eq!(output.status, 0, "{}", output.stdout);
    assert_eq!(number(&output.stdout, "looks found something else"), 0);
}
