//! Counting system calls: this program runs itself as a child and watches it with ptrace(2).
//!
//! The child brackets each case with two calls that nothing else makes, and does nothing between
//! them but the updates. What is counted is what the kernel saw; if it refuses to show it, there is
//! no count.
//!
//! # Safety
//!
//! ptrace writes into memory of this process where it is told to; only the request that fills a
//! buffer gets a pointer.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::engine::{self, Job};
use super::interrupt;
use super::methods::{Visitor, prepare};
use super::plan::{Case, Layout, Method, Phase, cases};
use super::scratch::doing;

/// Arguments of getpgid(2) that mark the trace: no process has such a number
/// (`PID_MAX_LIMIT` is 2^22).
const BEGIN: i32 = 0x4441_0000;
const END: i32 = 0x4558_0000;
/// Bits of a mark that carry a number.
const NUMBER: i32 = 0xffff;

/// Updates and whole files that are counted at least, if the time is short.
const COUNTED_MIN: u64 = 8;
const FILES_MIN: u64 = 2;

/// Run as a child of `daxmap bench`, which counts the system calls.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A directory for the files; the caller removes it.
    directory: PathBuf,
    /// Time for one case, in microseconds.
    budget_us: u64,
    /// Names of the methods and of the jobs with whole files, as in the JSON.
    names: Vec<String>,
}

/// What is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Run {
    /// Updates of a case in a phase.
    Update(Case, Phase),
    /// Whole files.
    Job(Job),
}

/// Average number of system calls of an update, for each run that was watched.
pub type Calls = HashMap<Run, f64>;

/// The child: asks to be watched, then runs the updates between marks.
pub fn run_child(args: &Args) -> io::Result<()> {
    let asked = |key: &str| args.names.iter().any(|name| name == key);
    let methods: Vec<Method> =
        Method::ALL.into_iter().filter(|method| asked(method.key())).collect();
    let jobs: Vec<Job> = Job::files().filter(|job| asked(job.key())).collect();
    let runs = runs(&methods, &jobs);
    let layout = Layout::to_count();
    let mut ready = Vec::new();
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_TRACEME ignores the other arguments.
    let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, nothing, nothing) };
    if traced != 0 {
        return Err(doing("ptrace")(io::Error::last_os_error()));
    }
    rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)?;
    for (number, &run) in runs.iter().enumerate() {
        match run {
            Run::Job(job) => count_files(number, job, args)?,
            Run::Update(case, phase) => {
                if ready.is_empty() {
                    for &method in &methods {
                        ready.push((method, prepare(method, &args.directory, layout.len())?));
                    }
                }
                let found = ready.iter_mut().find(|(method, _)| *method == case.method);
                let (_, method) = found.expect("every case is one of these methods");
                let budget_us = args.budget_us;
                method.accept(&mut Marked { number, case, phase, layout, budget_us })?;
            }
        }
    }
    Ok(())
}

/// Every job, then every case in every phase, in an order that parent and child agree on. The whole
/// files come first: they go again before the methods need the space.
fn runs(methods: &[Method], jobs: &[Job]) -> Vec<Run> {
    let cases = cases(methods);
    let updates = cases.iter().flat_map(|&case| Phase::ALL.map(|phase| (case, phase)));
    let updates = updates.filter(|(case, phase)| case.runs_in(*phase));
    let updates = updates.map(|(case, phase)| Run::Update(case, phase));
    jobs.iter().copied().map(Run::Job).chain(updates).collect()
}

fn count_files(number: usize, job: Job, args: &Args) -> io::Result<()> {
    let data = vec![0x5a; job.bytes()];
    let directory = args.directory.join(job.bytes().to_string());
    std::fs::create_dir(&directory)?;
    // The first creates the name, the second replaces it.
    engine::replace(job, &directory, &data)?;
    let start = Instant::now();
    engine::replace(job, &directory, &data)?;
    let files = affordable(args.budget_us, start, FILES_MIN);
    mark(BEGIN, number as u64);
    for _ in 0..files {
        engine::replace(job, &directory, &data)?;
    }
    mark(END, files);
    std::fs::remove_dir_all(&directory)
}

/// How many the time is enough for, if one took since `start`.
fn affordable(budget_us: u64, start: Instant, least: u64) -> u64 {
    let one_us = start.elapsed().as_micros().max(1) as u64;
    (budget_us / one_us).clamp(least, Layout::COUNTED)
}

struct Marked {
    number: usize,
    case: Case,
    phase: Phase,
    layout: Layout,
    budget_us: u64,
}

impl Visitor for Marked {
    fn visit(&mut self, mut update: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let data = vec![0x5a; self.case.bytes()];
        let touched = Layout::COUNTED + 1;
        let walk = self.layout.walk(self.case, self.phase, touched);
        let start = Instant::now();
        update(walk.offset(0), &data)?;
        let updates = affordable(self.budget_us, start, COUNTED_MIN);
        mark(BEGIN, self.number as u64);
        for number in 1..=updates {
            update(walk.offset(number), &data)?;
        }
        mark(END, updates);
        Ok(())
    }
}

fn mark(kind: i32, number: u64) {
    let number = (number as i32) & NUMBER;
    // There is no such process: the answer is an error, and only the question counts.
    let _ = rustix::process::getpgid(Pid::from_raw(kind | number));
}

/// Counts the system calls of these methods and jobs in a child. The error says why there is no count.
pub fn count(
    methods: &[Method],
    jobs: &[Job],
    directory: &Path,
    budget: Duration,
) -> io::Result<Calls> {
    let runs = runs(methods, jobs);
    let each_us = (budget.as_micros() as u64) / (runs.len().max(1) as u64);
    let child = Command::new(std::env::current_exe()?)
        .arg("bench-trace")
        .arg(directory)
        .arg(each_us.to_string())
        .args(methods.iter().map(|method| method.key()))
        .args(jobs.iter().map(|job| job.key()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(doing("start a child"))?;
    let mut watched = Watched::new(child);
    let outcome = watched.watch(&runs);
    match outcome {
        Ok(calls) if calls.len() == runs.len() => Ok(calls),
        Ok(_) => Err(watched.complaint()),
        Err(error) => Err(error),
    }
}

/// A child that does not outlive this.
struct Watched {
    child: Child,
    pid: Pid,
    reaped: bool,
}

impl Watched {
    fn new(child: Child) -> Self {
        let pid = Pid::from_child(&child);
        Self { child, pid, reaped: false }
    }

    /// Follows the child to its end.
    fn watch(&mut self, runs: &[Run]) -> io::Result<Calls> {
        let mut calls = Calls::new();
        let mut meter = Meter::default();
        let mut options_set = false;
        loop {
            let status = self.wait()?;
            let Some(signal) = status.stopping_signal() else {
                self.reaped = true;
                return Ok(calls);
            };
            if !options_set {
                // A stop for a system call is then told from a real SIGTRAP, and the child dies
                // with this process.
                let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
                self.ptrace(libc::PTRACE_SETOPTIONS, options as usize)?;
                options_set = true;
            }
            let mut deliver = 0;
            if signal == libc::SIGTRAP | 0x80 {
                if let Some((number, argument)) = self.entered()?
                    && let Some((run, count)) = meter.see(number, argument)
                    && let Some(&run) = runs.get(run)
                {
                    calls.insert(run, count);
                }
            } else if signal != libc::SIGSTOP {
                deliver = signal as usize;
            }
            interrupt::check()?;
            self.ptrace(libc::PTRACE_SYSCALL, deliver)?;
        }
    }

    fn wait(&self) -> io::Result<WaitStatus> {
        loop {
            match rustix::process::waitpid(Some(self.pid), WaitOptions::UNTRACED) {
                Ok(Some((_, status))) => return Ok(status),
                Ok(None) | Err(rustix::io::Errno::INTR) => interrupt::check()?,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn ptrace(&self, request: libc::c_uint, data: usize) -> io::Result<()> {
        let nowhere = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: the requests made here (SETOPTIONS, SYSCALL) take a number as data and write
        // nothing.
        let result = unsafe { libc::ptrace(request, self.pid.as_raw_pid(), nowhere, data) };
        if result == 0 { Ok(()) } else { Err(doing("ptrace")(io::Error::last_os_error())) }
    }

    /// Number and first argument of the system call that the child stopped at the entry of; `None`
    /// at an exit.
    fn entered(&self) -> io::Result<Option<(u64, u64)>> {
        // struct ptrace_syscall_info (ptrace(2)): op in the first byte, then arch, ip, sp; at an
        // entry the number and six arguments follow from byte 24.
        const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
        const ENTRY: u8 = 1;
        let mut info = [0_u64; 11];
        let size = std::mem::size_of_val(&info);
        // SAFETY: the kernel writes at most `size` bytes to the buffer, which has as many.
        let result = unsafe {
            libc::ptrace(GET_SYSCALL_INFO, self.pid.as_raw_pid(), size, info.as_mut_ptr())
        };
        if result < 0 {
            return Err(doing("ptrace")(io::Error::last_os_error()));
        }
        let entry = info[0].to_ne_bytes()[0] == ENTRY;
        Ok(entry.then_some((info[3], info[4])))
    }

    /// What the child said before it ended too early.
    fn complaint(&mut self) -> io::Error {
        use std::io::Read;
        let mut text = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.take(4096).read_to_string(&mut text);
        }
        let text = text.trim();
        let text = text.strip_prefix("daxmap: ").unwrap_or(text);
        io::Error::other(if text.is_empty() { "the child ended early" } else { text }.to_owned())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.reaped {
            // Not reaped, so the number is still this child's.
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Counts between a mark and the next.
#[derive(Debug, Default)]
struct Meter {
    run: Option<usize>,
    calls: u64,
}

impl Meter {
    /// Takes the next system call; returns the run and its average if this call ended one.
    fn see(&mut self, number: u64, argument: u64) -> Option<(usize, f64)> {
        let mark = argument as i32;
        if number == libc::SYS_getpgid as u64 && mark & !NUMBER == BEGIN {
            self.run = Some((mark & NUMBER) as usize);
            self.calls = 0;
        } else if number == libc::SYS_getpgid as u64 && mark & !NUMBER == END {
            let updates = f64::from(mark & NUMBER);
            return self.run.take().map(|run| (run, self.calls as f64 / updates));
        } else {
            self.calls += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_marks_counts() {
        let getpgid = libc::SYS_getpgid as u64;
        let pwrite = libc::SYS_pwrite64 as u64;
        let mut meter = Meter::default();
        assert_eq!(meter.see(pwrite, 3), None);
        assert_eq!(meter.see(getpgid, (BEGIN + 5) as u64), None);
        for _ in 0..20 {
            assert_eq!(meter.see(pwrite, 3), None);
        }
        assert_eq!(meter.see(getpgid, 1), None, "somebody's real getpgid counts");
        assert_eq!(meter.see(getpgid, (END + 10) as u64), Some((5, 2.1)));
        assert_eq!(meter.see(getpgid, (END + 10) as u64), None, "an end without a begin");
    }

    #[test]
    fn marks_are_no_process() {
        const PID_MAX_LIMIT: i32 = 1 << 22;
        const { assert!(BEGIN > PID_MAX_LIMIT && END > PID_MAX_LIMIT) };
        assert_eq!((BEGIN & NUMBER, END & NUMBER), (0, 0));
    }
}
