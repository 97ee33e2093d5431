//! The README, its programs, and the links of every page.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pmem_tests::scratch::Directory;

use crate::program::{path, run};

/// On a filesystem that grants `Fsync`, as the programs require.
const HERE: &str = env!("CARGO_TARGET_TMPDIR");
const LINES_MAX: usize = 220;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace member")
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The blocks of this kind in a page.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let begin = format!("```{kind}\n");
    page.split(&begin)
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()))
        .collect()
}

#[test]
fn it_fits_on_a_few_screens() {
    let lines = text("README.md").lines().count();
    assert!(lines <= LINES_MAX, "{lines} lines");
}

/// The first program is `wal`, to the letter, and its second run prints what stands below it.
#[test]
fn the_first_program_replays_what_it_wrote() {
    let readme = text("README.md");
    let example = text("examples/wal.rs");
    let (_, program) = example.split_once("\n\n").expect("documentation, then the program");
    assert_eq!(blocks(&readme, "rust")[0], program);
    let directory = Directory::new(HERE);
    let wal = path("wal");
    let run = || {
        let output = Command::new(&wal).current_dir(directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(), "record 1 survives a power cut\n");
    assert_eq!(run(), blocks(&readme, "text")[0]);
}

#[test]
fn a_configuration_is_replaced_or_left_alone() {
    let directory = Directory::new(HERE);
    let file = directory.path().join("config");
    let name = file.to_str().unwrap();
    for contents in ["listen = 8080", "", "listen = 8081"] {
        assert!(run("replace_config", &[name, contents]).success);
        assert_eq!(fs::read_to_string(&file).unwrap(), contents);
    }
    assert!(!run("replace_config", &[name]).success);
    assert_eq!(fs::read_to_string(&file).unwrap(), "listen = 8081");
    // Where the level is not to be had, nothing changes.
    let memory = Directory::new("/dev/shm");
    let file = memory.path().join("config");
    fs::write(&file, "old").unwrap();
    assert!(!run("replace_config", &[file.to_str().unwrap(), "new"]).success);
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
}

#[test]
fn numbers_are_kept_by_a_checkpoint() {
    let directory = Directory::new(HERE);
    let file = directory.path().join("numbers");
    let name = file.to_str().unwrap();
    assert_eq!(run("checkpoint_vec", &[name, "3", "5"]).stdout, "3\n5\n");
    // A bad argument comes after a good one: the good one was in memory only.
    assert!(!run("checkpoint_vec", &[name, "7", "x"]).success);
    assert_eq!(run("checkpoint_vec", &[name, "8"]).stdout, "3\n5\n8\n");
    assert_eq!(run("checkpoint_vec", &[name]).stdout, "3\n5\n8\n");
}

/// Relative links of the pages lead to files.
#[test]
fn links_lead_somewhere() {
    let mut pages: Vec<PathBuf> = ["README.md", "FORMAT.md", "MUTANTS.md", "CONTRIBUTING.md"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|end| end == "md")));
    let mut links = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for rest in text.split("](").skip(1) {
            let Some((link, _)) = rest.split_once(')') else { continue };
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let at = page.parent().unwrap().join(file);
            assert!(at.exists(), "{}: {link}", page.display());
            links += 1;
        }
    }
    assert!(links > 40, "{links}");
}
