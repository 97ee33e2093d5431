//! A remedy carried out as the probe prints it, and everything around it before and after.

use std::fs;
use std::io::{self, Read};
use std::process::Command;

use serde_json::{Value, json};

/// The program that an operator asks, as `ci/vm` copied it.
const DAXMAP: &str = "/root/daxmap";

/// Probes `path`, carries out the command of its reason `code` with `sh`, and probes `later`, which is
/// the same unless its name changes. One line of JSON says all of it. The contents of `file` are compared where it is given.
pub fn run(
    name: &str,
    path: &str,
    code: &str,
    later: &str,
    file: Option<&String>,
) -> io::Result<()> {
    let contents = || file.map(contents).transpose();
    let (before, mounts, data) = (probe(path)?, mounts()?, contents()?);
    let reasons = before["reasons"].as_array().ok_or_else(|| io::Error::other("no reasons"))?;
    let reason = reasons.iter().find(|reason| reason["code"] == code).cloned();
    let command = reason.as_ref().and_then(|reason| reason["remedy_command"].as_str());
    let (mut status, mut said) = (None, String::new());
    if let Some(command) = command {
        let output = Command::new("sh").args(["-c", command]).output()?;
        status = output.status.code();
        said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    }
    let kept = data.is_none() || contents().ok() == Some(data);
    let line = json!({
        "scenario": name,
        "reason": reason,
        "status": status,
        "said": said,
        "before": before,
        "after": probe(later)?,
        "mounts_before": mounts,
        "mounts_after": self::mounts()?,
        "data_kept": kept,
    });
    println!("{line}");
    Ok(())
}

/// The contents of a file, or the beginning of a device.
fn contents(path: &String) -> io::Result<Vec<u8>> {
    const BYTES_MAX: u64 = 16 << 20;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn probe(path: &str) -> io::Result<Value> {
    let output = Command::new(DAXMAP).args(["probe", "--json", "--", path]).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr)));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The mount table without the numbers that a new mount gets.
fn mounts() -> io::Result<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut lines: Vec<String> =
        table.lines().filter_map(|line| Some(line.splitn(3, ' ').nth(2)?.to_owned())).collect();
    lines.sort_unstable();
    Ok(lines)
}
