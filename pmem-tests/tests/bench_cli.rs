//! `daxmap bench`, the real binary with little time: what its JSON and its table promise.
//!
//! Times are not checked, only that they are there. Two tests mount filesystems and need root.
// Counts per operation are sums divided by the number of operations: exact if they are whole.
#![allow(clippy::float_cmp, clippy::cast_precision_loss)]

mod cli_binary;

use std::fs;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use pmem_tests::scratch::Directory;
use serde_json::Value;

const SIZES: [u64; 5] = [8, 64, 512, 4096, 65536];
const FILE_METHODS: [&str; 5] =
    ["region_persist", "pwrite_fdatasync", "pwrite_fsync", "pwrite_o_dsync", "store_msync"];

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(cli_binary::path());
    command.arg("bench").args(["--seconds", "0.5"]).args(arguments);
    command.output().expect("the binary runs")
}

/// A directory of its own on the disk that the build is on.
fn on_disk() -> Directory {
    Directory::new(env!("CARGO_TARGET_TMPDIR"))
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).expect("it exists").next().is_none()
}

/// Runs it in this directory; returns the JSON and the table.
fn measured(directory: &Path) -> (Value, String) {
    let scratch = on_disk();
    let json = scratch.path().join("out.json");
    let output = bench(&[directory.to_str().unwrap(), "--json", json.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}{errors}");
    assert_eq!(errors, "", "no progress bar where there is no terminal");
    let parsed = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    (parsed, text)
}

fn rows<'a>(results: &'a Value, method: &str, size: u64) -> Vec<&'a Value> {
    let all = results["rows"].as_array().unwrap();
    all.iter().filter(|row| row["method"] == method && row["size"] == size).collect()
}

/// Both phases of a method at a size.
fn both<'a>(results: &'a Value, method: &str, size: u64) -> [&'a Value; 2] {
    let rows = rows(results, method, size);
    assert_eq!(rows.len(), 2, "{method} at {size} bytes: {rows:?}");
    assert_eq!(rows[0]["phase"], "first_touch");
    assert_eq!(rows[1]["phase"], "steady");
    [rows[0], rows[1]]
}

fn figure(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or_else(|| panic!("{field} in {row}"))
}

/// What holds wherever it runs on real hardware.
fn check_everywhere(results: &Value, text: &str) {
    assert_eq!(results["schema"], 1);
    assert!(results["times_withheld"].is_null(), "this is not an emulated processor");
    for field in ["cpu", "kernel", "architecture"] {
        assert!(results["machine"][field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let machine = results["machine"].to_string();
    assert!(!machine.contains(&format!("\"{}\"", host.trim())), "{machine}");

    for row in results["rows"].as_array().unwrap() {
        let emulated = row["method"] == "region_persist_cache_line";
        assert_eq!(row["emulated"], emulated, "{row}");
        assert!(row["operations"].as_u64().unwrap() > 0, "{row}");
        let median = row["p50_ns"].as_u64().unwrap();
        assert!(row["max_ns"].as_u64().unwrap() >= median, "{row}");
        assert!(row["operations_per_second"].as_u64().is_some(), "{row}");
        let few = row["operations"].as_u64().unwrap() < 1000;
        assert_eq!(row["p99_9_ns"].is_null(), few, "no percentile out of too few: {row}");
    }
    let emulated: Vec<&str> =
        text.lines().filter(|line| line.starts_with("   cache-line flush")).collect();
    assert_eq!(emulated.len(), 2 * SIZES.len());
    for line in emulated {
        assert!(line.contains("(emulated)") && line.ends_with("lost"), "{line}");
    }
    assert!(text.contains("not a result for persistent memory"), "{text}");

    for size in SIZES {
        for row in both(results, "region_persist_cache_line", size) {
            assert_eq!(figure(row, "fences_per_operation"), 1.0, "{row}");
            // Which of the two a line goes by is the library's choice by size.
            let lines = figure(row, "write_backs_per_operation")
                + figure(row, "non_temporal_lines_per_operation");
            assert_eq!(lines, size.div_ceil(64) as f64, "each line once: {row}");
            assert_eq!(figure(row, "system_calls_per_operation"), 0.0, "{row}");
            assert_eq!(row["durability"], "ProcessOnly");
            assert_eq!(row["power_cut"], "lost");
        }
        let calls = [("pwrite_fdatasync", 2.0), ("pwrite_fsync", 2.0), ("pwrite_o_dsync", 1.0)];
        for (method, expected) in calls.into_iter().chain([("store_msync", 1.0)]) {
            for row in both(results, method, size) {
                assert_eq!(figure(row, "system_calls_per_operation"), expected, "{row}");
                assert_eq!(figure(row, "fences_per_operation"), 0.0, "{row}");
            }
        }
    }
    let floor = |method: &str| {
        let all = results["rows"].as_array().unwrap();
        all.iter().find(|row| row["method"] == method).unwrap_or_else(|| panic!("{method}"))
    };
    assert_eq!(figure(floor("empty_system_call"), "system_calls_per_operation"), 1.0);
    assert_eq!(figure(floor("copy"), "system_calls_per_operation"), 0.0);
    assert_eq!(figure(floor("clock"), "system_calls_per_operation"), 0.0);
    assert!(floor("clock")["durability"].is_null());
    let summary = results["summary"].as_array().unwrap();
    assert!(summary[0].as_str().unwrap().starts_with("fsync or MAP_SYNC?"), "{summary:?}");
    assert!((3..=5).contains(&summary.len()), "{summary:?}");
    let threads = |line: &&Value| line.as_str().unwrap().starts_with("16 threads at one log make");
    assert_eq!(summary.iter().filter(threads).count(), 1, "{summary:?}");
    for line in summary {
        assert!(text.contains(line.as_str().unwrap()), "{line}");
    }
}

const FILE_SIZES: [u64; 3] = [64 << 10, 1 << 20, 8 << 20];

/// The one row of a job, with a number that tells it from others of its kind.
fn job<'a>(results: &'a Value, job: &str, field: &str, number: u64) -> &'a Value {
    let all = results["engine"].as_array().unwrap();
    let found: Vec<&Value> =
        all.iter().filter(|row| row["job"] == job && row[field] == number).collect();
    assert_eq!(found.len(), 1, "{job}, {field} {number}: {found:?}");
    found[0]
}

/// The second table, wherever it runs on real hardware.
fn check_engine(results: &Value, text: &str) {
    let all = results["engine"].as_array().unwrap();
    assert_eq!(all.len(), 3 + 4 + 3 + 2 * FILE_SIZES.len());
    for row in all {
        assert!(row["operations"].as_u64().unwrap() > 0, "{row}");
        assert!(figure(row, "max_ns") >= figure(row, "p50_ns"), "{row}");
        assert!(figure(row, "operations_per_second") > 0.0, "{row}");
        assert!(figure(row, "ratio") > 0.0, "{row}");
        let few = row["operations"].as_u64().unwrap() < 100;
        assert_eq!(row["p99_ns"].is_null(), few, "no percentile out of too few: {row}");
        let label = row["label"].as_str().unwrap();
        assert!(text.lines().any(|line| line.trim_start().starts_with(label)), "{label}");
    }
    assert_eq!(figure(job(results, "persist", "threads", 1), "ratio"), 1.0);
    for threads in [4, 16] {
        let row = job(results, "persist", "threads", threads);
        assert!(row["operations"].as_u64().unwrap() >= threads, "each thread one: {row}");
        assert_eq!(row["size"], 64);
        let by_hand = job(results, "log_by_hand", "writes_per_sync", threads);
        assert_eq!(by_hand["operations"].as_u64().unwrap() % threads, 0, "{by_hand}");
        assert_eq!(by_hand["threads"], 1);
        let append = job(results, "append", "threads", threads);
        assert!(append["operations"].as_u64().unwrap() >= threads, "each thread one: {append}");
        assert_eq!((&append["records_per_commit"], &append["size"]), (&1.into(), &64.into()));
        assert_eq!(append["durability"], results["durability"]);
    }
    let together = job(results, "append", "records_per_commit", 64);
    assert_eq!(together["operations"].as_u64().unwrap() % 64, 0, "{together}");
    assert_eq!(together["threads"], 1);
    assert_eq!(job(results, "log_by_hand", "writes_per_sync", 64)["threads"], 1);
    for size in FILE_SIZES {
        let by_hand = job(results, "publish_by_hand", "size", size);
        assert_eq!(figure(by_hand, "ratio"), 1.0);
        // open, fsync, rename, open, fsync, two closes, and a pwrite for each MiB.
        let writes = size.div_ceil(1 << 20);
        assert_eq!(figure(by_hand, "system_calls_per_operation"), (7 + writes) as f64);
        let publish = job(results, "publish", "size", size);
        assert!(figure(publish, "system_calls_per_operation") > 7.0, "{publish}");
        assert_eq!(publish["durability"], results["durability"]);
    }
}

#[test]
fn on_a_disk() {
    let scratch = on_disk();
    let directory = scratch.path();
    let (results, text) = measured(directory);
    check_everywhere(&results, &text);
    check_engine(&results, &text);
    assert!(is_empty(directory), "its files are removed");
    assert_eq!(results["backend"], "page_cache", "the target directory is on a disk");
    // A sync of a clean file is a flush there, if the device has a cache.
    let sends_none = text.contains("sends no flush on this filesystem");
    assert!(results["filesystem"] != "ext4" || !sends_none, "{text}");
    for row in results["engine"].as_array().unwrap() {
        assert_eq!(row["power_cut"], "survives", "{row}");
        let (written, size) = (figure(row, "device_bytes_per_operation"), figure(row, "size"));
        // Records share blocks; a file is its own.
        assert!(written >= if size > 64.0 { size } else { 1.0 }, "{row}");
    }
    // One sync for sixteen writes is what a single thread cannot have.
    let by_hand = job(&results, "log_by_hand", "writes_per_sync", 16);
    assert!(figure(by_hand, "ratio") > 1.5, "{by_hand}");
    let together = job(&results, "persist", "threads", 16);
    assert!(figure(together, "ratio") > 1.5, "they share syncs: {together}");
    let together = job(&results, "append", "threads", 16);
    assert!(figure(together, "ratio") > 1.5, "they share syncs: {together}");
    let commit = job(&results, "append", "records_per_commit", 64);
    assert!(figure(commit, "ratio") > 8.0, "one sync for all: {commit}");
    assert_eq!(results["map_sync"], false);
    for size in SIZES {
        for method in FILE_METHODS {
            for row in both(&results, method, size) {
                let written = figure(row, "device_bytes_per_operation");
                assert!(written >= size as f64, "more than the update: {row}");
                assert_eq!(row["durability"], results["durability"], "{row}");
                assert_eq!(row["power_cut"], "survives", "{row}");
            }
        }
        for row in both(&results, "region_persist", size) {
            let calls = figure(row, "system_calls_per_operation");
            assert!(calls >= 2.0 && calls.fract() == 0.0, "pwrite and fdatasync at least: {row}");
            assert_eq!(figure(row, "write_backs_per_operation"), 0.0);
        }
        let [_, steady] = both(&results, "store_msync", size);
        assert!(figure(steady, "page_faults_per_operation") >= 1.0, "msync protects: {steady}");
    }
}

#[test]
fn on_memory() {
    let scratch = Directory::new("/dev/shm");
    let directory = scratch.path();
    let (results, text) = measured(directory);
    assert!(is_empty(directory), "its files are removed");
    check_everywhere(&results, &text);
    check_engine(&results, &text);
    assert_eq!(results["backend"], "volatile");
    for row in results["engine"].as_array().unwrap() {
        assert_eq!(row["power_cut"], "lost", "{row}");
        assert!(row["device_bytes_per_operation"].is_null(), "{row}");
        let fences = figure(row, "fences_per_operation");
        if row["job"] == "persist" {
            assert_eq!(fences, 1.0, "those of every thread: {row}");
        }
        if row["job"] == "append" {
            // Those of beginning a segment, now and then, besides.
            let commits = 1.0 / figure(row, "records_per_commit");
            assert!(fences >= commits && fences < 1.5 * commits, "one a commit: {row}");
        }
    }
    assert!(text.contains("floor: bare device flush: not available"), "{text}");
    assert!(text.contains("nothing survives a power cut"), "{text}");
    for size in SIZES {
        for method in FILE_METHODS {
            for row in both(&results, method, size) {
                assert_eq!(row["power_cut"], "lost", "{row}");
                assert!(row["device_bytes_per_operation"].is_null(), "{row}");
            }
        }
        for row in both(&results, "region_persist", size) {
            assert_eq!(figure(row, "fences_per_operation"), 1.0);
            assert_eq!(figure(row, "system_calls_per_operation"), 0.0);
        }
    }
}

/// No child can be started from a program that has been removed: nothing is made up for it.
#[test]
fn system_calls_that_cannot_be_counted_are_not_invented() {
    let scratch = on_disk();
    let directory = scratch.path();
    let elsewhere = on_disk();
    let copy = elsewhere.path().join("daxmap");
    fs::copy(cli_binary::path(), &copy).unwrap();
    let child = Command::new(&copy)
        .args(["bench", "--seconds", "0.1", "--json", "-"])
        .arg(directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    fs::remove_file(&copy).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("note: system calls: not counted"), "{text}");
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    for row in ["rows", "engine"].iter().flat_map(|rows| results[rows].as_array().unwrap()) {
        assert!(row["system_calls_per_operation"].is_null(), "{row}");
    }
}

#[test]
fn json_on_standard_output_is_alone_there() {
    let scratch = on_disk();
    let directory = scratch.path();
    let output = bench(&[directory.to_str().unwrap(), "--json", "-"]);
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results["schema"], 1);
    assert!(String::from_utf8(output.stderr).unwrap().contains("fsync or MAP_SYNC?"));
}

/// One line on standard error, nothing on standard output, no panic.
fn assert_one_error(output: &Output, expected: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains(expected), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn a_bad_directory_is_one_error() {
    let scratch = on_disk();
    let directory = scratch.path();
    let missing = directory.join("missing");
    assert_one_error(&bench(&[missing.to_str().unwrap()]), "No such file or directory");
    let file = directory.join("file");
    fs::write(&file, "text").unwrap();
    assert_one_error(&bench(&[file.to_str().unwrap()]), "not a directory");
    assert_eq!(fs::read(&file).unwrap(), b"text", "the file is as it was");
}

#[test]
fn a_json_file_that_cannot_be_written_is_an_error_before_measuring() {
    let scratch = on_disk();
    let directory = scratch.path();
    let began = Instant::now();
    let json = directory.join("missing/out.json");
    let output = Command::new(cli_binary::path())
        .args(["bench", "--seconds", "60", "--json"])
        .args([&json, directory])
        .output()
        .unwrap();
    assert_one_error(&output, "out.json: No such file or directory");
    assert!(began.elapsed() < Duration::from_secs(30), "it did not measure first");
    assert!(is_empty(directory));
}

/// Runs it in a mount namespace of its own, in a tmpfs mounted with these options.
fn bench_in_tmpfs(options: &str) -> Output {
    in_tmpfs(options, r#"exec "$3" bench --seconds 0.5 "$2""#)
}

/// Runs this in the same; `$2` is where it is mounted, `$3` the program.
fn in_tmpfs(options: &str, what: &str) -> Output {
    let script = format!(r#"mount -t tmpfs -o "$1" none "$2" && {what}"#);
    let mount_point = on_disk();
    Command::new("unshare")
        .args(["--mount", "sh", "-c", &script, "sh", options])
        .arg(mount_point.path())
        .arg(cli_binary::path())
        .output()
        .expect("unshare runs")
}

#[test]
fn a_read_only_directory_is_one_error() {
    assert_one_error(&bench_in_tmpfs("ro"), "Read-only file system");
}

#[test]
fn a_json_file_in_a_read_only_directory_is_an_error_before_measuring() {
    let began = Instant::now();
    let what = r#"exec "$3" bench --seconds 60 --json "$2/out.json" /dev/shm"#;
    assert_one_error(&in_tmpfs("ro", what), "out.json: Read-only file system");
    assert!(began.elapsed() < Duration::from_secs(30), "it did not measure first");
}

/// On a terminal of 70 columns: it says how far it is, takes that away again, and divides the tables.
#[test]
fn on_a_terminal_there_is_a_progress_bar_and_tables_are_divided() {
    // In memory files are made in no time, which leaves the other stages theirs.
    let scratch = Directory::new("/dev/shm");
    let directory = scratch.path();
    let command = format!(
        "stty cols 70; exec '{}' bench --seconds 3 '{}'",
        cli_binary::path().display(),
        directory.display()
    );
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script runs");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for stage in ["making files", "counting calls", "first touch", "steady state", "log and files"]
    {
        assert!(text.contains(&format!("{stage:16} [")), "{stage}: {text}");
    }
    let bars = text.matches("steady state     [").count();
    assert!(bars > 2, "it moves: {bars}");
    let last = text.rfind("log and files").unwrap();
    let (after, _) = text[last..].split_once("update").expect("the tables come behind it");
    assert!(after.contains("\r\u{1b}[2K\r\n"), "the bar is gone: {after:?}");
    // Each table in two, one above the other.
    let heads = text[last..].lines().filter(|line| line.starts_with(" update ")).count();
    assert_eq!(heads, 2, "{text}");
}

/// As `nohup` has it.
#[test]
fn a_signal_that_is_ignored_stays_so() {
    let scratch = on_disk();
    let directory = scratch.path();
    let script = r#"trap "" HUP; exec "$0" bench --seconds 2 "$1""#;
    let mut child = Command::new("sh")
        .args(["-c", script])
        .arg(cli_binary::path())
        .arg(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_empty(directory) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    assert!(status.success(), "it has not ended before");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(is_empty(directory));
}

#[test]
fn a_full_disk_is_one_error() {
    let output = bench_in_tmpfs("size=8m");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("No space left on device"), "{errors}");
}

#[test]
fn a_termination_removes_the_files_first() {
    let began = Instant::now();
    terminate_when("60", |directory| !is_empty(directory));
    assert!(began.elapsed() < Duration::from_secs(40), "it ends when it is told to");
}

#[test]
fn a_termination_among_threads_and_whole_files_does_too() {
    // Long enough for the test to see the log, and short enough not to wait for it for long.
    terminate_when("8", |directory| {
        let mut scratch = fs::read_dir(directory).unwrap().filter_map(Result::ok);
        scratch.next().is_some_and(|scratch| scratch.path().join("whole-8388608").exists())
    });
}

/// Ends it when the directory looks so: its files are removed.
fn terminate_when(seconds: &str, begun: impl Fn(&Path) -> bool) {
    let scratch = on_disk();
    let directory = scratch.path();
    let mut child = Command::new(cli_binary::path())
        .args(["bench", "--seconds", seconds])
        .arg(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !begun(directory) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(begun(directory), "it has begun");
    // To the whole group, as a terminal does, the child that is watched included. Not SIGINT,
    // which a shell makes its background jobs ignore.
    assert!(terminate_group(child.id()), "the group is there");
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGTERM), "{status:?}");
    assert!(is_empty(directory), "its files are removed");
}

fn terminate_group(group: u32) -> bool {
    Command::new("kill")
        .args(["-TERM", "--", &format!("-{group}")])
        .status()
        .is_ok_and(|status| status.success())
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let scratch = on_disk();
    let directory = scratch.path();
    let mut child = Command::new(cli_binary::path())
        .args(["bench", "--seconds", "0.1"])
        .arg(directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert_eq!(errors, "");
    assert!(is_empty(directory));
}
