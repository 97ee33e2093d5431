//! The test programs that primitives are tried on, built once with `--cfg mutants`.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// A run that takes longer has noticed: it hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// A test program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    Unit,
    Loom,
    SystemCalls,
    WritableMapping,
    ModelledFilesystem,
    Publish,
    PublishCut,
    SyncErrors,
    BadEnvironment,
    BadInput,
    GroupCommit,
    Conformance,
    ConformanceUnguarded,
    Instructions,
    BlockFaults,
    LogExplorer,
    LogDamage,
    LogProperty,
    State,
    Guest,
    /// The quick tests of checkpoints.
    CheckpointFiles,
    Checkpoint,
}

/// How a program is built: what cargo is asked for, and the name of its target.
enum Build {
    Library,
    Loom,
    Test(&'static str),
}

impl Suite {
    pub const ALL: [Self; 22] = [
        Self::Unit,
        Self::Loom,
        Self::SystemCalls,
        Self::WritableMapping,
        Self::ModelledFilesystem,
        Self::Publish,
        Self::PublishCut,
        Self::SyncErrors,
        Self::BadEnvironment,
        Self::BadInput,
        Self::GroupCommit,
        Self::Conformance,
        Self::ConformanceUnguarded,
        Self::Instructions,
        Self::BlockFaults,
        Self::LogExplorer,
        Self::LogDamage,
        Self::LogProperty,
        Self::State,
        Self::Guest,
        Self::CheckpointFiles,
        Self::Checkpoint,
    ];

    const fn build(self) -> Build {
        match self {
            Self::Unit => Build::Library,
            Self::Loom => Build::Loom,
            Self::SystemCalls => Build::Test("system_calls"),
            Self::WritableMapping => Build::Test("writable_mapping"),
            Self::ModelledFilesystem => Build::Test("sim_filesystem"),
            Self::Publish => Build::Test("publish"),
            Self::PublishCut => Build::Test("publish_cut"),
            Self::SyncErrors => Build::Test("sync_errors"),
            Self::BadEnvironment => Build::Test("bad_environment"),
            Self::BadInput => Build::Test("bad_input"),
            Self::GroupCommit => Build::Test("group_commit"),
            Self::Conformance => Build::Test("conformance"),
            Self::ConformanceUnguarded => Build::Test("conformance_unguarded"),
            Self::Instructions => Build::Test("instructions"),
            Self::BlockFaults => Build::Test("block_faults"),
            Self::LogExplorer => Build::Test("log_explorer"),
            Self::LogDamage => Build::Test("log_damage"),
            Self::LogProperty => Build::Test("log_property"),
            Self::State => Build::Test("state"),
            Self::Guest => Build::Test("guest_matrix"),
            Self::CheckpointFiles | Self::Checkpoint => Build::Test("checkpoint"),
        }
    }

    /// What the table calls it.
    pub const fn label(self) -> &'static str {
        match self.build() {
            Build::Library => "unit tests",
            Build::Loom => "loom",
            Build::Test(name) => name,
        }
    }

    /// Tests of it that are left out: they ask about something else, or take long.
    const fn filter(self) -> &'static [&'static str] {
        match self {
            // The models of the group commit and of the log's watermark; nothing else is built for
            // loom.
            Self::Loom => &["region::group", "log::watermark"],
            // The model itself, beside real filesystems.
            Self::ModelledFilesystem => &["--skip", "real::"],
            Self::CheckpointFiles => &[
                "files::",
                "pointers::",
                "model::",
                "killed::",
                "overtaken::",
                "damage::going_back",
                "damage::every_bit_of_a_closed_file_with_a_redo_record",
            ],
            // The rest of the same program.
            Self::Checkpoint => &["crashes::", "damage::"],
            Self::State => &["crashes::", "killed::", "bits::", "in_place::"],
            _ => &[],
        }
    }
}

/// What a suite says.
pub enum Verdict {
    Passed,
    /// Names of the tests that failed; empty if the program died.
    Failed(Vec<String>),
    /// It did not end in time.
    Hangs,
}

/// The programs, built.
pub struct Programs(HashMap<Suite, PathBuf>);

impl Programs {
    /// Builds the programs of these suites. `target` is a directory of their own.
    pub fn build(suites: &[Suite], target: &Path) -> io::Result<Self> {
        let mut programs = HashMap::new();
        for &suite in suites {
            let (rustflags, directory, arguments): (_, _, Vec<&str>) = match suite.build() {
                Build::Library => {
                    ("--cfg mutants", "plain", vec!["-p", "daxmap", "--lib", "--all-features"])
                }
                Build::Loom => {
                    ("--cfg mutants --cfg loom", "loom", vec!["-p", "daxmap", "--lib", "--release"])
                }
                Build::Test(name) => (
                    "--cfg mutants",
                    "plain",
                    vec!["-p", "pmem-tests", "--release", "--test", name],
                ),
            };
            let program = cargo(&arguments, rustflags, &target.join(directory))?;
            programs.insert(suite, program);
        }
        Ok(Self(programs))
    }

    /// Runs a suite, or one test of it, without a primitive, or with all of them.
    pub fn run(
        &self,
        suite: Suite,
        only: Option<&str>,
        removed: Option<&str>,
    ) -> io::Result<Verdict> {
        let mut command = Command::new(&self.0[&suite]);
        match only {
            Some(test) => command.args(["--exact", test]),
            None => command.args(suite.filter()),
        };
        command.env("RUSTFLAGS", "--cfg mutants").env_remove("DAXMAP_REMOVED");
        if let Some(name) = removed {
            command.env("DAXMAP_REMOVED", name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Guests, tracers and publishers end with a test that hangs.
        let mut child = command.process_group(0).spawn()?;
        let mut stdout = child.stdout.take().expect("it is piped");
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stdout.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if began.elapsed() > PATIENCE {
                rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL)?;
                child.wait()?;
                return Ok(Verdict::Hangs);
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if status.success() {
            return Ok(Verdict::Passed);
        }
        let text = reader.join().unwrap_or_default();
        let failed = text.lines().filter_map(|line| {
            line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned)
        });
        Ok(Verdict::Failed(failed.collect()))
    }
}

/// Builds one test program and returns where it is.
fn cargo(arguments: &[&str], rustflags: &str, target: &Path) -> io::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--no-run", "--message-format=json"])
        .args(arguments)
        .arg("--target-dir")
        .arg(target)
        .env("RUSTFLAGS", rustflags)
        .env_remove("DAXMAP_REMOVED")
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("cargo test --no-run {}", arguments.join(" "))));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .ok_or_else(|| io::Error::other("cargo names no test program"))
}
