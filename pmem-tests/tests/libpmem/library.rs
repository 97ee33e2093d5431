//! Libraries to test: ours, as `libpmem/build` makes it, and Debian's; and programs to run on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The repository.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Debian's library, of the package libpmem1, by the name that the loader finds it by.
pub const DEBIAN: &str = "/lib/x86_64-linux-gnu/libpmem.so.1";

/// Where the tests put what they build.
fn built() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("libpmem")
}

/// Builds once, one at a time: they share a file of cargo's.
fn build(kind: &str, careless: Option<&str>) -> PathBuf {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = built().join(kind);
    let mut build = Command::new(format!("{ROOT}/libpmem/build"));
    build.arg(&folder).env_remove("CARELESS").env_remove("DESTDIR");
    if let Some(careless) = careless {
        build.env("CARELESS", careless);
    }
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

/// The folder of our library.
pub fn ours() -> &'static Path {
    static OURS: OnceLock<PathBuf> = OnceLock::new();
    OURS.get_or_init(|| build("ours", None))
}

/// The folder of a library that breaks its promise.
pub fn careless(how: &str) -> PathBuf {
    build(how, Some(how))
}

/// A C program of this folder, linked to libpmem.so.1. Compiled once: others may be running it.
pub fn program(name: &'static str, libraries: &[&str]) -> PathBuf {
    static COMPILED: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.entry(name).or_insert_with(|| compile(name, libraries)).clone()
}

fn compile(name: &str, libraries: &[&str]) -> PathBuf {
    let folder = built();
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join(name);
    let source = format!("{ROOT}/pmem-tests/tests/libpmem/{name}.c");
    let mut compile = Command::new("cc");
    compile.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program);
    let output = compile.arg(source).args(libraries).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// A command that loads our library, or another one's folder, and none of PMDK's variables.
pub fn on(folder: Option<&Path>, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH").env_remove("PMEM_IS_PMEM_FORCE");
    if let Some(folder) = folder {
        command.env("LD_LIBRARY_PATH", folder);
    }
    command
}

/// Runs a command, of which the loader says what it loads; fails unless that is `library`.
pub fn run_on(library: &Path, command: &mut Command) -> Output {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loaded");
    std::fs::create_dir_all(&folder).unwrap();
    let log = tempfile::Builder::new().tempdir_in(&folder).unwrap();
    command.env("LD_DEBUG", "libs").env("LD_DEBUG_OUTPUT", log.path().join("log"));
    let output = command.output().unwrap();
    let loaded = std::fs::read_dir(log.path()).unwrap().any(|entry| {
        let said = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        said.contains(&format!("calling init: {}", library.display()))
    });
    assert!(loaded, "{command:?} did not load {}:\n{}", library.display(), text(&output));
    output
}

/// What a program printed.
pub fn text(output: &Output) -> String {
    let (out, errors) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(errors))
}
