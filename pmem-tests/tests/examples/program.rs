//! Builds the examples, as the README says, and runs them here and in the guest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use pmem_tests::guest::Guest;

/// What a program of this machine needs besides itself and what every guest has.
const LIBGCC: &str = "/lib/x86_64-linux-gnu/libgcc_s.so.1";

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub success: bool,
    pub stdout: String,
}

/// Builds an example once in a process, and returns where it is.
pub fn path(name: &'static str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(name).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace member");
    let built = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--quiet", "--package", "daxmap", "--example", name])
        .arg("--message-format=json")
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let messages = String::from_utf8_lossy(&built.stdout);
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.expect("cargo names what it built")
}

/// Runs an example to its end. What it prints is printed here too: it is what the test saw.
pub fn run(name: &'static str, arguments: &[&str]) -> Ended {
    let program = path(name);
    let began = Instant::now();
    let output = Command::new(program).args(arguments).output().expect("the example runs");
    let took = began.elapsed();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{name} {arguments:?}, {took:.1?}\n{stdout}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    Ended { success: output.status.success(), stdout }
}

/// A guest that has the example as `./NAME`.
pub fn guest(name: &'static str) -> Guest {
    // At the place where the loader looks for it.
    let libgcc = PathBuf::from(format!("{LIBGCC}:{LIBGCC}"));
    Guest::new().file(&path(name)).file(&libgcc)
}

/// The number before these words.
pub fn number(stdout: &str, words: &str) -> u64 {
    let (before, _) = stdout.split_once(words).unwrap_or_else(|| panic!("no {words:?}:\n{stdout}"));
    let digits = before.trim_end().rsplit(|c: char| !c.is_ascii_digit()).next();
    let number = digits.and_then(|digits| digits.parse().ok());
    number.unwrap_or_else(|| panic!("no number before {words:?}:\n{stdout}"))
}
