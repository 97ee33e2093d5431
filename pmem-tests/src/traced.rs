//! Programs run under strace(1): their system calls listed, one of them left out or made to fail,
//! or the program killed just before it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use crate::scratch::Directory;

/// One system call of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// The how-manieth of this name, from 1.
    pub number: usize,
    /// Arguments and result, as strace prints them.
    pub text: String,
}

/// What is done to one system call.
#[derive(Clone, Copy, Debug)]
pub enum Tamper {
    /// The program is killed instead of making it.
    Kill,
    /// It and all later ones of its name are not made, and reported to have succeeded.
    LeaveOut,
    /// It is not made, and fails with this errno (`EIO`).
    Fail(&'static str),
}

/// How a program ended, and what it called.
#[derive(Debug)]
pub struct Traced {
    /// Exit status of the program.
    pub status: ExitStatus,
    /// What it printed, output and errors.
    pub output: String,
    /// Its calls of the set asked for, in order.
    pub calls: Vec<Call>,
}

/// Runs a program, lists its calls of the set (`fsync,linkat`, or a class such as `%file`), and
/// tampers with some of them, given by name and number.
///
/// # Panics
///
/// If strace is not there or may not trace.
#[must_use]
pub fn run(program: &str, arguments: &[&OsStr], set: &str, tampered: &[(&Call, Tamper)]) -> Traced {
    let directory = Directory::new("/dev/shm");
    let log: PathBuf = directory.path().join("log");
    let mut command = Command::new("strace");
    command.arg("-f").arg("-o").arg(&log).arg("-e").arg(format!("trace={set}"));
    command.args(["-e", "signal=none", "-s", "64"]);
    for (call, tamper) in tampered {
        let (name, number) = (&call.name, call.number);
        command.arg("-e").arg(match tamper {
            Tamper::Kill => format!("inject={name}:signal=SIGKILL:when={number}"),
            Tamper::LeaveOut => format!("inject={name}:retval=0:when={number}+"),
            Tamper::Fail(errno) => format!("inject={name}:error={errno}:when={number}"),
        });
    }
    let output = command
        .arg(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("strace is needed for this test: {error}"));
    let text = std::fs::read_to_string(&log).expect("strace writes its log");
    let mut printed = output.stdout;
    printed.extend(output.stderr);
    Traced {
        status: output.status,
        output: String::from_utf8_lossy(&printed).into_owned(),
        // Calls that this strace has no name for are printed whatever the set is, and cannot be
        // tampered with.
        calls: {
            let mut calls = parse(&text);
            calls.retain(|call| set == "all" || !call.name.starts_with("syscall_"));
            calls
        },
    }
}

/// Lines such as `123 fsync(3) = 0`; a call that another thread interrupted is taken at its
/// beginning.
fn parse(log: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for line in log.lines() {
        let line = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        let Some((name, rest)) = line.split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let number = 1 + calls.iter().filter(|call| call.name == name).count();
        calls.push(Call { name: name.to_owned(), number, text: format!("({rest}") });
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read() {
        let log = "12 fsync(3) = 0\n12 +++ killed by SIGKILL +++\n13  linkat(1, \"a(b\", 2) = 0\n\
                   12 fsync(4) = -1 EIO (Input/output error) (INJECTED)\n12 <... read resumed>) = 1";
        let calls = parse(log);
        let short: Vec<_> = calls.iter().map(|call| (call.name.as_str(), call.number)).collect();
        assert_eq!(short, [("fsync", 1), ("linkat", 1), ("fsync", 2)]);
        assert!(calls[1].text.contains("a(b"));
    }
}
