//! The emulated-NVDIMM guest, from the host's side: builds a program for it, boots it
//! through `ci/vm`, and hands back what it printed and how it ended.
//!
//! What is not there is an error, never a pass: a guest that cannot be had, runs out of
//! time, or ends without a status is a [`GuestError`].

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

mod running;

pub use running::{PATIENCE, Running};

/// Time after which `ci/vm` kills a guest unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What the guest's NVDIMMs say is safe when the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// What reached the memory controller (ADR): stores need a cache-line write-back.
    MemoryController,
    /// What reached the CPU caches (eADR).
    CpuCache,
    /// The platform does not say.
    Absent,
}

impl Persistence {
    fn as_option(self) -> &'static str {
        match self {
            Self::MemoryController => "mem-ctrl",
            Self::CpuCache => "cpu",
            Self::Absent => "absent",
        }
    }
}

/// A guest that ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status of the command; 128 and the signal's number if one killed it.
    pub status: i32,
    /// What the command printed, output and errors in their order.
    pub stdout: String,
}

/// Why there is no [`Output`].
#[derive(Debug)]
#[non_exhaustive]
pub enum GuestError {
    /// `ci/vm` could not be started, or its output not read.
    Host(io::Error),
    /// The static program for the guest could not be built; the compiler's words.
    Build(String),
    /// The guest could not be had, panicked, or ended without a status; what `ci/vm` said,
    /// console log included, and what the command printed until then.
    NoGuest {
        /// Words of `ci/vm`.
        reason: String,
        /// Words of the command.
        stdout: String,
    },
    /// The guest was still running after its time; fields as above.
    TimedOut {
        /// Words of `ci/vm`.
        reason: String,
        /// Words of the command.
        stdout: String,
    },
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => write!(f, "ci/vm: {error}"),
            Self::Build(reason) => write!(f, "building the guest program: {reason}"),
            Self::NoGuest { reason, stdout } => {
                write!(f, "no guest: {reason}\nthe command printed:\n{stdout}")
            }
            Self::TimedOut { reason, stdout } => {
                write!(f, "guest timed out: {reason}\nthe command printed:\n{stdout}")
            }
        }
    }
}

impl std::error::Error for GuestError {}

impl From<io::Error> for GuestError {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

/// A guest to boot. Every run is a machine of its own; several may run at once.
#[derive(Clone, Debug, Default)]
pub struct Guest {
    options: Vec<OsString>,
    timeout: Option<Duration>,
}

impl Guest {
    /// A guest without any persistent memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the NVDIMMs promise. Without it they promise nothing.
    #[must_use]
    pub fn persistence(self, persistence: Persistence) -> Self {
        self.option("--persistence", persistence.as_option())
    }

    /// Adds an NVDIMM of the size ("512M", "1G"); at most two. It comes up as a raw namespace.
    #[must_use]
    pub fn nvdimm(self, size: &str) -> Self {
        self.option("--nvdimm", size)
    }

    /// Gives the NVDIMMs label areas: a region then holds several namespaces.
    #[must_use]
    pub fn labels(self) -> Self {
        self.flag("--labels")
    }

    /// Makes the NVDIMMs report that their save at power loss is not armed: read-only.
    #[must_use]
    pub fn unarmed(self) -> Self {
        self.flag("--unarmed")
    }

    /// Declares RAM persistent, as `memmap=SIZE!OFFSET` does; offset and size below 2 GiB.
    #[must_use]
    pub fn e820(self, size: &str, offset: &str) -> Self {
        self.option("--e820", format!("{size}@{offset}"))
    }

    /// Adds a virtio-pmem device.
    #[must_use]
    pub fn virtio_pmem(self, size: &str) -> Self {
        self.option("--virtio-pmem", size)
    }

    /// Adds a persistent CXL memory device; `mkcxl` makes a region of it.
    #[must_use]
    pub fn cxl(self, size: &str) -> Self {
        self.option("--cxl", size)
    }

    /// Adds a disk: `/dev/vda`, `/dev/vdb`, ...
    #[must_use]
    pub fn disk(self, size: &str) -> Self {
        self.option("--disk", size)
    }

    /// Adds an NVMe disk, `/dev/nvme0n1`, which has a volatile write cache.
    #[must_use]
    pub fn nvme(self, size: &str) -> Self {
        self.option("--nvme", size)
    }

    /// Copies a file of the host to `/root` of the guest.
    #[must_use]
    pub fn file(self, path: &Path) -> Self {
        self.option("--file", path)
    }

    /// Sets an environment variable of the command.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        self.option("--env", format!("{name}={value}"))
    }

    /// Keeps the contents of NVDIMMs and disks in `directory`; the next guest with the same
    /// directory finds them as this one left them.
    #[must_use]
    pub fn keep_files(self, directory: &Path) -> Self {
        self.option("--keep-files", directory)
    }

    /// Records what of the first NVDIMM a power cut would leave, in files beside the one that
    /// [`keep_files`](Self::keep_files) keeps: `pmem_tests::recorded` reads them.
    #[must_use]
    pub fn record(self, plugin: &Path) -> Self {
        self.option("--record", plugin)
    }

    /// Time after which the guest is killed; 300 s unless set. Whole seconds.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Boots, runs the command, and waits for its end. A first word with a slash is a static
    /// executable of the host, any other a program of the guest (`sh`, `ndctl`, ...).
    pub fn run(&self, command: &[&str]) -> Result<Output, GuestError> {
        self.spawn(command)?.wait()
    }

    /// Boots, runs the shell script with `-e`, and waits for its end.
    pub fn run_script(&self, script: &str) -> Result<Output, GuestError> {
        self.run(&["sh", "-ec", script])
    }

    /// Boots and starts the command.
    pub fn spawn(&self, command: &[&str]) -> Result<Running, GuestError> {
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        // If the thread that runs the test is gone, so is the guest: a test that is killed drops
        // nothing, and a guest that stands would stand for its whole time.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(workspace().join("ci/vm"))
            .args(&self.options)
            .args(["--timeout", &timeout.as_secs().to_string()])
            .arg("--")
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Running::new(child, timeout)?)
    }

    fn option(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.options.push(name.into());
        self.options.push(value.into());
        self
    }

    fn flag(mut self, name: &str) -> Self {
        self.options.push(name.into());
        self
    }
}

/// The guest program of this package, built statically, once in a process.
pub fn program() -> Result<&'static Path, GuestError> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || {
        let words = ["-p", "pmem-tests", "--bin", "guest", "--target", TARGET];
        build(&words, "-C target-feature=+crt-static", &format!("{TARGET}/release/guest"))
    };
    BUILT.get_or_init(build).as_deref().map_err(|reason| GuestError::Build(reason.clone()))
}

/// The command `daxmap`, built statically, once in a process.
pub fn daxmap() -> Result<&'static Path, GuestError> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || {
        let words = ["-p", "daxmap-cli", "--bin", "daxmap", "--target", TARGET];
        build(&words, "-C target-feature=+crt-static", &format!("{TARGET}/release/daxmap"))
    };
    BUILT.get_or_init(build).as_deref().map_err(|reason| GuestError::Build(reason.clone()))
}

/// The emulator's plugin that records stores, built once in a process.
pub fn recorder() -> Result<&'static Path, GuestError> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || {
        let words = ["-p", "store-recorder", "--features", "plugin"];
        build(&words, "", "release/libstore_recorder.so")
    };
    BUILT.get_or_init(build).as_deref().map_err(|reason| GuestError::Build(reason.clone()))
}

/// Builds something in a directory of its own, which keeps it from waiting for the build that
/// runs the tests, and returns where it is.
fn build(words: &[&str], flags: &str, made: &str) -> Result<PathBuf, String> {
    let directory = workspace().join("target/guest");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // A primitive that is left out here is left out there: see `src/primitives.rs`.
    let removes = std::env::var_os("DAXMAP_REMOVED").is_some();
    let flags = if removes { format!("{flags} --cfg mutants") } else { flags.to_owned() };
    let output = Command::new(cargo)
        .current_dir(workspace())
        .args(["build", "--quiet", "--release"])
        .args(words)
        .arg("--target-dir")
        .arg(&directory)
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(directory.join(made))
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("pmem-tests is inside the workspace")
}
