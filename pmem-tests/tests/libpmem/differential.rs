//! Our library and Debian's, seen through one program: what differs is in a list.

use std::collections::BTreeMap;
use std::path::Path;

use pmem_tests::scratch::Filesystem;

use crate::library::{DEBIAN, on, ours, program, run_on, text};

/// Cases in which the two differ, each with its reason, and what they print in common once the
/// words are taken out.
pub const DIFFERENCES: [(&str, &str, &str, &str); 7] = [
    // Debian's refuses these without a text. Ours always has one.
    ("null_device", "a refusal has a text", "message empty", "message text"),
    ("zero_device", "a refusal has a text", "message empty", "message text"),
    // Debian's leaves behind what its search for the region in sysfs met.
    ("device_whole", "a success leaves errno", "mapped errno ENOENT", "mapped errno 0"),
    ("device_exact", "a success leaves errno", "mapped errno ENOENT", "mapped errno 0"),
    ("device_flags", "a success leaves errno", "mapped errno ENOENT", "mapped errno 0"),
    ("device_syncs", "a success leaves errno", "mapped errno ENOENT", "mapped errno 0"),
    ("device_copies", "a success leaves errno", "mapped errno ENOENT", "mapped errno 0"),
];

/// What one library did, by case.
pub fn cases(output: &str) -> BTreeMap<&str, &str> {
    output.lines().filter_map(|line| line.split_once(": ")).collect()
}

/// Compares, but for the list.
#[track_caller]
pub fn compare(debian: &str, ours: &str, at_least: usize, place: &str) {
    let (debian, ours) = (cases(debian), cases(ours));
    assert!(debian.len() >= at_least, "{place}: {} cases", debian.len());
    assert_eq!(debian.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>(), "{place}");
    let mut wrong = Vec::new();
    for (case, expected) in &debian {
        assert!(!expected.contains("ended with"), "{place}: {case}: {expected}");
        let found = ours[case];
        let listed = DIFFERENCES.iter().find(|(name, ..)| name == case);
        let wanted = listed.map_or((*expected).to_owned(), |(_, _, theirs, own)| {
            assert!(expected.contains(theirs), "{place}: {case} differs no longer: {expected}");
            expected.replace(theirs, own)
        });
        if wanted != found {
            wrong.push(format!("{case}:\n  wanted {wanted}\n  found  {found}"));
        }
    }
    assert!(wrong.is_empty(), "{place}:\n{}", wrong.join("\n"));
}

fn run(folder: Option<&Path>, library: &Path, directory: &Path, force: Option<&str>) -> String {
    let mut command = on(folder, program("differential", &["-lpmem"]));
    command.arg(directory);
    if let Some(force) = force {
        command.env("PMEM_IS_PMEM_FORCE", force);
    }
    let output = run_on(library, &mut command);
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn both(directory: &Path, place: &str) {
    for force in [None, Some("0"), Some("1")] {
        let debian = run(None, Path::new(DEBIAN), directory, force);
        let own = run(Some(ours()), &ours().join("libpmem.so.1"), directory, force);
        compare(&debian, &own, 100, &format!("{place}, force {force:?}"));
        // The three runs are not the same run.
        let persistent = cases(&own)["ranges"].contains("whole 1");
        assert_eq!(persistent, force == Some("1"), "{}", cases(&own)["ranges"]);
    }
}

#[test]
fn on_tmpfs_it_does_what_debians_does() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    both(directory.path(), "tmpfs");
}

#[test]
fn on_ext4_it_does_what_debians_does() {
    let filesystem = Filesystem::looped(env!("CARGO_TARGET_TMPDIR"), "ext4", 256 << 20);
    both(filesystem.path(), "ext4");
}
