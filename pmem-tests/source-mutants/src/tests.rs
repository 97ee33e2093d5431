//! The tests, each run by itself: which mutants it reaches and how long it takes.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::tree::Program;

/// A test, and what its run with every mutant off showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Test {
    pub program: Program,
    pub name: String,
    pub time: Duration,
    /// The numbers of the mutants that it reaches, in order.
    pub reached: Vec<u32>,
}

/// What the runs of all tests showed: of these programs, built then.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    pub tests: Vec<Test>,
    /// Tests that do not pass within the patience.
    pub unusable: Vec<String>,
    of: Vec<(PathBuf, SystemTime)>,
}

impl Measured {
    /// What an earlier run left in `file`, if it was of the same programs.
    pub fn read(file: &Path, programs: &[Program]) -> Option<Self> {
        let measured: Self = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        (measured.of == built(programs).ok()?).then_some(measured)
    }
}

/// The programs, and when they were built.
fn built(programs: &[Program]) -> io::Result<Vec<(PathBuf, SystemTime)>> {
    let when = |program: &Program| {
        let when = fs::metadata(&program.executable)?.modified()?;
        Ok((program.executable.clone(), when))
    };
    let mut built: Vec<_> = programs.iter().map(when).collect::<io::Result<_>>()?;
    built.sort();
    Ok(built)
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Passed,
    Failed,
    Hangs,
}

/// Runs tests.
pub struct Runner {
    environment: Vec<(String, String)>,
    scratch: PathBuf,
}

impl Runner {
    pub fn new(environment: Vec<(String, String)>, scratch: &Path) -> io::Result<Self> {
        fs::create_dir_all(scratch)?;
        Ok(Self { environment, scratch: scratch.to_owned() })
    }

    /// Runs one test with one mutant on, or with none and a file for what is reached.
    pub fn run(
        &self,
        worker: usize,
        program: &Program,
        test: &str,
        mutant: Option<u32>,
        reached: Option<&Path>,
        patience: Duration,
    ) -> io::Result<End> {
        let mut command = Command::new(&program.executable);
        command
            .args(["--exact", test, "--test-threads=1", "--include-ignored"])
            .env("DAXMAP_SOURCE_MUTANT", mutant.unwrap_or(0).to_string());
        if let Some(path) = reached {
            command.env("DAXMAP_SOURCE_REACHED", path);
        }
        self.finish(worker, program, command, patience)
    }

    /// Runs all tests of a program.
    pub fn run_all(&self, program: &Program, patience: Duration) -> io::Result<End> {
        self.finish(0, program, Command::new(&program.executable), patience)
    }

    fn finish(
        &self,
        worker: usize,
        program: &Program,
        mut command: Command,
        patience: Duration,
    ) -> io::Result<End> {
        let temporary = self.scratch.join(format!("tmp-{worker}"));
        fs::create_dir_all(&temporary)?;
        command
            .current_dir(&program.directory)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("CARGO_MANIFEST_DIR", &program.directory)
            .env("RUST_BACKTRACE", "0")
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command.spawn()?;
        // A mutant that asks for all memory is the first to go.
        let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), "1000");
        let began = Instant::now();
        let end = loop {
            if let Some(status) = child.try_wait()? {
                break if status.success() { End::Passed } else { End::Failed };
            }
            if began.elapsed() > patience {
                break End::Hangs;
            }
            let nap = if began.elapsed() < Duration::from_millis(20) { 500 } else { 3000 };
            std::thread::sleep(Duration::from_micros(nap));
        };
        // Processes that the test started end with it.
        let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
        if end == End::Hangs {
            child.wait()?;
        }
        if end != End::Passed {
            let _ = fs::remove_dir_all(&temporary);
            remove_directories_of(child.id());
        }
        Ok(end)
    }

    /// Every test of `programs`, with all mutants off.
    pub fn measure(
        &self,
        programs: &[Program],
        mutants: usize,
        patience: Duration,
        workers: usize,
    ) -> io::Result<Measured> {
        let mut all = Vec::new();
        for program in programs {
            for name in names(program)? {
                all.push((program, name));
            }
        }
        let next = AtomicUsize::new(0);
        let tests = Mutex::new(Vec::new());
        let unusable = Mutex::new(Vec::new());
        let work = |worker: usize| -> io::Result<()> {
            let file = self.scratch.join(format!("reached-{worker}"));
            while let Some((program, name)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (program, name) = (*program, name.as_str());
                let empty = File::create(&file)?;
                empty.set_len(mutants as u64 + 1)?;
                let began = Instant::now();
                let end = self.run(worker, program, name, None, Some(&file), patience)?;
                let time = began.elapsed();
                if end != End::Passed {
                    unusable
                        .lock()
                        .expect("no panics")
                        .push(format!("{}: {name}: {end:?}", program.name));
                    continue;
                }
                let reached: Vec<u32> = (0..)
                    .zip(fs::read(&file)?)
                    .filter(|(_, byte)| *byte != 0)
                    .map(|(id, _)| id)
                    .collect();
                let program = program.clone();
                let test = Test { program, name: name.to_owned(), time, reached };
                tests.lock().expect("no panics").push(test);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..workers).map(|worker| scope.spawn(move || work(worker))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panics"))
        })?;
        let (tests, unusable) = (tests.into_inner(), unusable.into_inner());
        let (tests, unusable) = (tests.expect("no panics"), unusable.expect("no panics"));
        Ok(Measured { tests, unusable, of: built(programs)? })
    }
}

/// Removes what a test that was killed has left in memory (`Directory` of the test package).
fn remove_directories_of(process: u32) {
    let prefix = format!("daxmap-test-{process}-");
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The names of a program's tests.
fn names(program: &Program) -> io::Result<Vec<String>> {
    let output = Command::new(&program.executable)
        .args(["--list", "--format", "terse"])
        .current_dir(&program.directory)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test").map(str::to_owned)).collect())
}
