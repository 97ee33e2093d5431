//! `daxmap check`, the real binary: what its exit status, its JSON and its text promise.
//!
//! Some tests mount filesystems and need root. Limits are far from what a loaded machine may show.

mod cli_binary;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pmem_tests::passthrough::SYNC_DELAY_MS;
use pmem_tests::scratch::{Directory, Filesystem};
use serde_json::Value;

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(cli_binary::path());
    command.arg("check").arg(directory).args(arguments);
    command
}

fn check(directory: &Path, arguments: &[&str]) -> Output {
    command(directory, arguments).output().expect("the binary runs")
}

/// A directory of its own on the disk that the build is on.
fn on_disk() -> Directory {
    Directory::new(env!("CARGO_TARGET_TMPDIR"))
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).expect("it exists").next().is_none()
}

/// Checks the exit status and that nothing is left; returns what was written to standard output.
fn answer(directory: &Path, status: i32, arguments: &[&str]) -> String {
    let output = check(directory, arguments);
    let text = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{text}{errors}");
    assert_eq!(errors, "", "{text}");
    assert!(is_empty(directory), "nothing is left");
    text
}

/// The same with `--json`.
fn parsed(directory: &Path, status: i32, arguments: &[&str]) -> Value {
    let text = answer(directory, status, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// One line on standard error, nothing on standard output, status 2.
fn assert_one_error(output: &Output, expected: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.starts_with("daxmap: check ") && errors.contains(expected), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

fn codes(answer: &Value, field: &str) -> Vec<String> {
    let all = answer[field].as_array().expect("a list");
    all.iter().map(|one| one["code"].as_str().expect("a code").to_owned()).collect()
}

fn check_rows(answer: &Value, expected: &[(&str, u64, bool)], commits: u64) {
    let rows = answer["rows"].as_array().expect("a list");
    assert_eq!(rows.len(), expected.len(), "{rows:?}");
    for (row, &(method, threads, under_load)) in rows.iter().zip(expected) {
        assert_eq!(row["method"], method);
        assert_eq!(row["threads"], threads);
        assert_eq!(row["under_load"], under_load);
        let made = row["commits"].as_u64().expect("a count");
        assert!((commits..commits + threads).contains(&made), "{row}");
        let fields = ["p50_ns", "p95_ns", "p99_ns", "max_ns"];
        let times = fields.map(|field| row[field].as_u64().expect("a time"));
        assert!(times[0] > 0 && times.is_sorted(), "{row}");
        assert_eq!(row["p99_9_ns"].is_null(), made < 1000, "{row}");
        assert!(row["commits_per_second"].as_f64().expect("a rate") > 0.0, "{row}");
    }
}

const ALONE: [(&str, u64, bool); 2] = [("pwrite_fdatasync", 1, false), ("log_commit", 16, false)];

#[test]
fn limits_that_are_met_end_with_zero() {
    let scratch = on_disk();
    let limits = ["--commit-p99", "60s", "--commit-max", "600s", "--commits", "200"];
    let answer = parsed(scratch.path(), 0, &limits);
    assert_eq!(answer["schema"], 1);
    assert_eq!(answer["outcome"], "met");
    assert_eq!(answer["durability"], "Fsync");
    assert_eq!(answer["required"], "Fsync");
    assert_eq!(answer["durability_outcome"], "met");
    assert_eq!(answer["directory"], scratch.path().to_str().expect("text"));
    assert_eq!(answer["size"], 4096);
    assert_eq!(codes(&answer, "reasons").len() + codes(&answer, "suspicions").len(), 0);
    check_rows(&answer, &ALONE, 200);
    let limits = answer["limits"].as_array().expect("a list");
    assert_eq!(limits.len(), 2 * 2, "each limit beside each measurement");
    for (limit, row) in limits.iter().zip([0, 0, 1, 1]) {
        let row = &answer["rows"][row];
        assert_eq!((&limit["method"], &limit["threads"]), (&row["method"], &row["threads"]));
        let (name, ns, field) = match limit["limit"].as_str() {
            Some("commit_p99") => ("commit_p99", 60_000_000_000_u64, "p99_ns"),
            _ => ("commit_max", 600_000_000_000, "max_ns"),
        };
        assert_eq!(limit["limit"], name);
        assert_eq!(limit["limit_ns"], ns);
        assert_eq!(limit["seen_ns"], row[field]);
        assert_eq!(limit["outcome"], "met");
    }
}

#[test]
fn one_limit_that_is_missed_ends_with_one() {
    let scratch = on_disk();
    let limits = ["--commit-p99", "1us", "--commit-max", "600s", "--commits", "100"];
    let answer = parsed(scratch.path(), 1, &limits);
    assert_eq!(answer["outcome"], "missed");
    let outcomes: Vec<&Value> =
        answer["limits"].as_array().expect("a list").iter().map(|one| &one["outcome"]).collect();
    assert_eq!(outcomes, ["missed", "met", "missed", "met"]);
}

#[test]
fn without_limits_it_says_in_80_columns_what_the_place_is_good_for() {
    let scratch = on_disk();
    let text = answer(scratch.path(), 0, &["--commits", "1000", "--threads", "3", "--size", "512"]);
    let (first, rest) = text.split_once('\n').expect("lines");
    assert!(first.ends_with(": everything is met"), "{text}");
    // The path itself may be longer.
    for line in rest.lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [
        "met durability Fsync, Fsync is required",
        "for etcd's log: its p99 is to be below 10.0 ms, and is ",
        "3 threads at one log: ",
        "Records of 512 bytes.",
        "fdatasync, 1 thread 1000 ",
    ] {
        assert!(flat.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_filesystem_in_memory_is_refused_whatever_is_required() {
    let scratch = Directory::new("/dev/shm");
    let limits = ["--commit-p99", "60s", "--commits", "500"];
    let required = parsed(scratch.path(), 1, &[&limits[..], &["--require", "Fsync"]].concat());
    assert_eq!(required["durability"], "ProcessOnly");
    assert_eq!(required["durability_outcome"], "missed");
    assert_eq!(codes(&required, "reasons"), ["memory-backed"]);
    // What is acknowledged in no time is no flush, even where nobody requires a level.
    let lower = parsed(scratch.path(), 1, &[&limits[..], &["--require", "ProcessOnly"]].concat());
    assert_eq!(lower["durability_outcome"], "met");
    assert_eq!(codes(&lower, "suspicions"), ["too_fast"]);
    assert_eq!(lower["outcome"], "missed");
    for answer in [required, lower] {
        let words = answer["good_for"].as_array().expect("a list");
        assert_eq!(words.len(), 1, "{words:?}");
        assert!(words[0].as_str().expect("text").starts_with("Not for data"), "{words:?}");
    }
    let text = answer(scratch.path(), 1, &["--commits", "100"]);
    assert!(text.contains("why: ") && text.contains("remedy: "), "{text}");
}

#[test]
fn flushes_that_a_mount_option_leaves_out_are_noticed() {
    let filesystem =
        Filesystem::looped_with(env!("CARGO_TARGET_TMPDIR"), "ext4", 64 << 20, "nobarrier");
    let directory = filesystem.path().join("data");
    fs::create_dir(&directory).expect("a directory");
    let answer = parsed(&directory, 1, &["--commits", "500", "--require", "Unverified"]);
    assert_eq!(answer["durability_outcome"], "met");
    let seen = codes(&answer, "suspicions");
    assert!(seen.iter().any(|code| code == "no_flushes"), "{answer}");
}

/// Three answers of one device, in one test: the delay is that of every FUSE filesystem here.
#[test]
fn a_slow_device_misses_its_limit() {
    let filesystem = Filesystem::fuse(env!("CARGO_TARGET_TMPDIR"));
    let directory = filesystem.path().join("data");
    fs::create_dir(&directory).expect("a directory");
    SYNC_DELAY_MS.store(10, Ordering::SeqCst);
    let arguments = ["--require", "Unverified", "--commits", "100", "--threads", "4"];
    let slow = parsed(&directory, 1, &[&arguments[..], &["--commit-p99", "5ms"]].concat());
    assert_eq!(slow["limits"][0]["outcome"], "missed");
    assert!(slow["rows"][0]["p50_ns"].as_u64().expect("a time") >= 10_000_000, "{slow}");
    check_rows(&slow, &[("pwrite_fdatasync", 1, false), ("log_commit", 4, false)], 100);
    // Without --require the level alone is missed: nobody verifies what such a filesystem does.
    let level = parsed(&directory, 1, &["--commits", "100", "--commit-p99", "60s"]);
    assert_eq!(level["durability_outcome"], "missed");
    assert_eq!(level["limits"][0]["outcome"], "met");

    SYNC_DELAY_MS.store(100, Ordering::SeqCst);
    let short = [&arguments[..], &["--seconds", "1", "--commit-p99", "60s"]].concat();
    let unknown = parsed(&directory, 2, &short);
    assert_eq!(unknown["outcome"], "unknown");
    assert_eq!(unknown["limits"][0]["outcome"], "unknown");
    assert!(unknown["limits"][0]["seen_ns"].is_null());
    SYNC_DELAY_MS.store(0, Ordering::SeqCst);
}

#[test]
fn a_load_runs_beside_the_second_half_and_leaves_nothing() {
    let scratch = on_disk();
    let outside = on_disk();
    let beat = outside.path().join("beat");
    let load = format!(
        "while :; do head -c 100000 /dev/zero > $DAXMAP_CHECK_DIR/file; echo > '{}'; sleep 0.02; done",
        beat.display()
    );
    let answer = parsed(
        scratch.path(),
        0,
        &["--under-load", &load, "--commits", "100", "--commit-max", "600s"],
    );
    let loaded = ALONE.map(|(method, threads, _)| (method, threads, true));
    check_rows(&answer, &[ALONE, loaded].concat(), 100);
    assert_eq!(answer["limits"].as_array().expect("a list").len(), 4, "also under load");
    fs::remove_file(&beat).expect("the load ran");
    std::thread::sleep(Duration::from_millis(200));
    assert!(!beat.exists(), "and does not run any more");
}

#[test]
fn a_load_that_ends_is_no_load() {
    let scratch = on_disk();
    let output = check(scratch.path(), &["--under-load", "exit 7"]);
    assert_one_error(&output, "the load ended before the measurement (exit status: 7)");
    assert!(is_empty(scratch.path()));
    let arguments = ["--under-load", "sleep 1", "--commits", "1000000", "--seconds", "6"];
    assert_one_error(&check(scratch.path(), &arguments), "the load ended before");
    assert!(is_empty(scratch.path()));
}

#[test]
fn what_cannot_be_measured_is_one_error() {
    let scratch = on_disk();
    let missing = scratch.path().join("missing");
    assert_one_error(&check(&missing, &[]), "No such file or directory");
    let few = ["--commit-p999", "5ms", "--commits", "999"];
    assert_one_error(&check(scratch.path(), &few), "at least 1000 commits");
    let full = File::options().write(true).open("/dev/full").expect("it is there");
    let mut command = command(scratch.path(), &["--commits", "100"]);
    let output = command.stdout(full).output().expect("the binary runs");
    assert_one_error(&output, "No space left on device");
    assert!(is_empty(scratch.path()));
    let file = scratch.path().join("file");
    fs::write(&file, "text").expect("written");
    assert_one_error(&check(&file, &[]), "not a directory");
    assert_eq!(fs::read(&file).expect("it is there"), b"text");
    for usage in [["--commits", "99"], ["--size", "7"], ["--commit-p99", "5"], ["--require", "no"]]
    {
        let output = check(scratch.path(), &usage);
        assert_eq!(output.status.code(), Some(2), "{usage:?}");
    }
}

/// Runs it in a tmpfs mounted with these options, in a mount namespace of its own, and counts what it left.
fn in_tmpfs(options: &str) -> Output {
    let script =
        r#"mount -t tmpfs -o "$1" none "$2" && { "$3" check "$2"; s=$?; ls -A "$2"; exit $s; }"#;
    let mount_point = on_disk();
    Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", options])
        .arg(mount_point.path())
        .arg(cli_binary::path())
        .output()
        .expect("unshare runs")
}

#[test]
fn a_read_only_directory_is_one_error() {
    assert_one_error(&in_tmpfs("ro"), "Read-only file system");
}

#[test]
fn a_full_disk_is_one_error_and_nothing_is_left() {
    for size in ["size=1m", "size=9m"] {
        assert_one_error(&in_tmpfs(size), "No space left on device");
    }
}

#[test]
fn an_interruption_leaves_no_file_and_no_load() {
    let scratch = on_disk();
    let outside = on_disk();
    let beat = outside.path().join("beat");
    let load = format!("while :; do echo > '{}'; sleep 0.02; done", beat.display());
    let arguments = ["--commits", "1000000", "--seconds", "8", "--under-load", &load];
    for under_load in [false, true] {
        let child = command(scratch.path(), &arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("the binary runs");
        let begun = || if under_load { beat.exists() } else { !is_empty(scratch.path()) };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !begun() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(begun(), "it has begun");
        let group = format!("-{}", child.id());
        let sent = Command::new("kill").args(["-TERM", "--", &group]).status().expect("kill runs");
        assert!(sent.success(), "it is still there");
        assert_one_error(&child.wait_with_output().expect("it ends"), "interrupted by a signal");
        assert!(is_empty(scratch.path()), "its files are removed");
    }
    fs::remove_file(&beat).expect("the load ran");
    std::thread::sleep(Duration::from_millis(200));
    assert!(!beat.exists(), "and does not run any more");
}
