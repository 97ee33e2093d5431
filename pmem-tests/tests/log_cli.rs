//! `daxmap log` as a person or a program runs it.

mod cli_binary;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use daxmap::Options;
use daxmap::log::{Log, LogOptions, Lsn};
use pmem_tests::scratch::Directory;
use serde_json::{Value, json};

const HERE: &str = env!("CARGO_TARGET_TMPDIR");

/// Where the first block is, from FORMAT.md: behind the headers of the log and of a segment.
const BLOCKS_AT: usize = 16384 + 8192;

fn run(command: &str, path: &Path, more: &[&str]) -> Output {
    let mut run = Command::new(cli_binary::path());
    run.args(["log", command]).arg(path).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The object that a command prints, and whether it says by its exit status that all is well.
fn json(command: &str, path: &Path) -> (Value, bool) {
    let output = run(command, path, &["--json"]);
    assert_eq!(text(&output.stderr), "");
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.success())
}

fn lsns(path: &Path, more: &[&str]) -> Vec<u64> {
    let output = run("dump", path, &[&["--json"], more].concat());
    let lines = text(&output.stdout).lines().map(serde_json::from_str::<Value>);
    lines.map(|object| object.unwrap()["lsn"].as_u64().unwrap()).collect()
}

fn damage(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A log of four segments of 16 KiB with five records, each in a line of its own but the last two,
/// which are one commit; one is released.
fn example(directory: &Directory) -> (PathBuf, Log<daxmap::AnyRegion>) {
    let path = directory.path().join("wal");
    let region = Options::new().len(16384 + 4 * 20480);
    let log = LogOptions::new().region(region).segment_bytes(20480).create(&path).unwrap();
    for payload in [&b"first"[..], b"second", b"a\x1b[31m record of 20\xff"] {
        log.append(payload).unwrap();
    }
    log.append_many([b"four", b"five"]).unwrap();
    log.release_up_to(Lsn::FIRST).unwrap();
    (path, log)
}

fn closed(directory: &Directory) -> PathBuf {
    let (path, log) = example(directory);
    log.close().unwrap();
    path
}

#[test]
fn records_are_printed_with_their_lsns() {
    let directory = Directory::new(HERE);
    let path = closed(&directory);
    let before = fs::read(&path).unwrap();
    let output = run("dump", &path, &[]);
    assert!(output.status.success() && output.stderr.is_empty());
    let expected = "\
2  6 bytes
    00000000  73 65 63 6f 6e 64                                 |second|
3  20 bytes
    00000000  61 1b 5b 33 31 6d 20 72  65 63 6f 72 64 20 6f 66  |a.[31m record of|
    00000010  20 32 30 ff                                       | 20.|
4  4 bytes
    00000000  66 6f 75 72                                       |four|
5  4 bytes
    00000000  66 69 76 65                                       |five|
";
    assert_eq!(text(&output.stdout), expected);
    let output = run("dump", &path, &["--from", "5", "--json"]);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object, json!({"lsn": 5, "bytes": 4, "payload": "66697665"}));
    assert_eq!(fs::read(&path).unwrap(), before, "it was only looked at");
}

#[test]
fn some_of_the_records_are_printed() {
    let directory = Directory::new(HERE);
    let path = closed(&directory);
    assert_eq!(lsns(&path, &[]), [2, 3, 4, 5]);
    assert_eq!(lsns(&path, &["--from", "3"]), [3, 4, 5]);
    assert_eq!(lsns(&path, &["--from", "3", "--to", "4"]), [3, 4]);
    assert_eq!(lsns(&path, &["--limit", "2"]), [2, 3]);
    assert_eq!(lsns(&path, &["--to", "4", "--limit", "2"]), [2, 3]);
    assert_eq!(lsns(&path, &["--from", "6"]), [0; 0]);
    let output = run("dump", &path, &["--from", "1"]);
    assert_eq!(output.status.code(), Some(2), "it was released");
    assert!(text(&output.stderr).contains("from Lsn 2 on"), "{}", text(&output.stderr));
}

#[test]
fn a_sound_log_is_told_in_words() {
    let directory = Directory::new(HERE);
    let path = closed(&directory);
    let output = run("verify", &path, &[]);
    assert!(output.status.success());
    let expected = format!(
        "{}: sound: closed, and nothing is missing
  records      4, Lsns 2 to 5; up to 1 released
  shutdowns    unsafe ones: unknown, the medium has no count to compare
  read         12288 bytes of segments
",
        path.display()
    );
    assert_eq!(text(&output.stdout), expected);
    let output = run("stat", &path, &[]);
    assert!(output.status.success());
    let said = text(&output.stdout);
    // Four commits of a line each; the records of the last two bytes fit in theirs.
    for line in [
        "  closed       yes\n",
        "  file         98304 bytes\n",
        "  segments     4 of 20480 bytes: 3 free, 0 lost\n",
        "  used         256 bytes\n",
        "  free         48896 bytes\n",
        "  a commit     12248 bytes at most\n",
    ] {
        assert!(said.contains(line), "{line:?} in\n{said}");
    }
}

#[test]
fn programs_read_an_object() {
    let directory = Directory::new(HERE);
    let path = closed(&directory);
    let head = |object: &Value| {
        assert_eq!(object["schema"], 1);
        assert_eq!((&object["kind"], &object["sound"]), (&"log".into(), &true.into()));
        assert_eq!(object["path"], path.to_str().unwrap());
        assert_eq!((&object["first"], &object["last"]), (&2.into(), &5.into()));
        assert_eq!((&object["records"], &object["released"]), (&4.into(), &1.into()));
        assert_eq!((&object["closed"], &object["missing"]), (&true.into(), &0.into()));
        assert_eq!(object["unsafe_shutdown"], "unknown");
    };
    let (object, sound) = json("verify", &path);
    assert!(sound);
    head(&object);
    for nothing in ["damaged", "lost_segments", "copies", "dropped"] {
        assert_eq!(object[nothing], json!([]), "{nothing}");
    }
    let (object, sound) = json("stat", &path);
    assert!(sound);
    head(&object);
    assert_eq!((&object["segments"], &object["free_segments"]), (&4.into(), &3.into()));
    assert_eq!((&object["used_bytes"], &object["free_bytes"]), (&256.into(), &48896.into()));
    assert_eq!((&object["segment_bytes"], &object["file_bytes"]), (&20480.into(), &98304.into()));
}

#[test]
fn a_log_in_use_is_sound_and_stays_with_its_program() {
    let directory = Directory::new(HERE);
    let (path, log) = example(&directory);
    let (object, sound) = json("verify", &path);
    assert!(sound && object["sound"] == true && object["closed"] == false);
    let said = run("verify", &path, &[]).stdout;
    assert!(text(&said).contains(": sound, in use or not closed\n"), "{}", text(&said));
    assert!(!text(&said).contains("without one"), "{}", text(&said));
    assert_eq!((&object["records"], &object["last"]), (&4.into(), &5.into()));
    log.append(b"another").unwrap();
    assert_eq!(lsns(&path, &[]), [2, 3, 4, 5, 6]);
    log.close().unwrap();
    assert_eq!(json("stat", &path).0["closed"], true);
}

#[test]
fn a_log_that_is_written_meanwhile_is_not_called_damaged() {
    let directory = Directory::new(HERE);
    let (path, log) = example(&directory);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let lsn = log.append(&[7; 100]).unwrap();
                if lsn.get() % 64 == 0 {
                    log.release_up_to(lsn).unwrap();
                }
            }
        });
        for _ in 0..40 {
            let output = run("verify", &path, &[]);
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            if !output.status.success() {
                done.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            assert!(output.status.success(), "{said}");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn damage_is_named_with_its_place() {
    let directory = Directory::new(HERE);
    let path = closed(&directory);
    // In the record with Lsn 3.
    damage(&path, BLOCKS_AT + 128 + 45);
    let (object, sound) = json("verify", &path);
    assert!(!sound && object["sound"] == false);
    let (from, to) = (BLOCKS_AT + 128, BLOCKS_AT + 192);
    let expected = json!([{"bytes": {"start": from, "end": to}, "lsns": {"first": 3, "last": 3}}]);
    assert_eq!(object["damaged"], expected);
    let output = run("verify", &path, &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    let line = format!("  damaged      bytes {from} to {to}: Lsns between 3 and 3\n");
    assert!(said.contains(&line) && said.contains("not there"), "{said}");
    assert!(said.contains("\n  without one  1 Lsns below the last\n"), "{said}");
    let output = run("stat", &path, &[]);
    assert_eq!(output.status.code(), Some(1));
    // What is behind it can be had.
    assert_eq!(lsns(&path, &[]), [2, 4, 5]);
    let output = run("dump", &path, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("damaged"), "{}", text(&output.stderr));
}

#[test]
fn a_damaged_copy_and_a_lost_segment_are_told() {
    let directory = Directory::new(HERE);
    let path = closed(&directory);
    damage(&path, 16384 + 20);
    let (object, sound) = json("verify", &path);
    assert!(!sound, "of a closed log, a copy that is not valid is damage");
    assert_eq!(object["copies"], json!([{"start": 16384, "end": BLOCKS_AT}]));
    assert_eq!((&object["damaged"], &object["records"]), (&json!([]), &4.into()));
    let said = run("verify", &path, &[]).stdout;
    let words = "every record is there, but one of two copies of something is damaged";
    assert!(text(&said).contains(words), "{}", text(&said));
    damage(&path, 16384 + 4096 + 20);
    let (object, sound) = json("verify", &path);
    assert!(!sound);
    assert_eq!(object["lost_segments"], json!([{"start": 16384, "end": 16384 + 20480}]));
    assert_eq!((&object["records"], &object["last"]), (&0.into(), &Value::Null));
    assert_eq!(json("stat", &path).0["lost_segments"], 1);
    assert_eq!(lsns(&path, &[]), [0; 0]);
}

#[test]
fn a_commit_that_a_crash_cut_is_dropped_and_told() {
    let directory = Directory::new(HERE);
    let (path, log) = example(&directory);
    // Above what the release of the example has noted as durable.
    log.append(b"six").unwrap();
    let crashed = directory.path().join("crashed");
    fs::copy(&path, &crashed).unwrap();
    drop(log);
    // The last commit, of which nothing says that it was durable.
    damage(&crashed, BLOCKS_AT + 256 + 41);
    let (object, sound) = json("verify", &crashed);
    assert!(sound, "{object}");
    let cut = json!([{"start": BLOCKS_AT + 256, "end": BLOCKS_AT + 320}]);
    assert_eq!((&object["dropped"], &object["last"]), (&cut, &5.into()));
    let said = run("verify", &crashed, &[]).stdout;
    assert!(text(&said).contains("behind the last commit there are bytes"), "{}", text(&said));
    // Of the closed log it is damage.
    damage(&path, BLOCKS_AT + 192 + 41);
    let (object, sound) = json("verify", &path);
    assert!(!sound && object["dropped"] == json!([]) && object["damaged"] != json!([]));
}

#[test]
fn what_is_no_log_is_one_line() {
    let directory = Directory::new(HERE);
    let path = directory.path().join("other");
    for (content, words) in [
        (&b"hello"[..], "this is not a daxmap log"),
        (&[0; 16384], "this is not a daxmap log"),
        (b"", "no length"),
    ] {
        fs::write(&path, content).unwrap();
        for command in ["dump", "verify", "stat"] {
            let output = run(command, &path, &["--json"]);
            assert_eq!(output.status.code(), Some(2), "neither sound nor damaged");
            assert_eq!(text(&output.stdout), "");
            let said = text(&output.stderr);
            assert!(said.contains(words) && said.lines().count() == 1, "{said}");
            assert!(said.contains(path.to_str().unwrap()), "{said}");
        }
    }
    let output = run("verify", &directory.path().join("none"), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("No such file"));
    let output = run("verify", &directory.path().join("a\u{1b}[31m"), &[]);
    assert!(!output.stderr.contains(&0x1b));
}

/// Of a file that was cut, whatever is left is printed.
#[test]
fn a_cut_file_is_dumped_as_far_as_it_goes() {
    let directory = Directory::new(HERE);
    let (path, log) = example(&directory);
    log.close().unwrap();
    let whole = lsns(&path, &[]);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for (lines, left) in [(64, whole.len()), (3, 2), (1, 0), (0, 0)] {
        file.set_len((BLOCKS_AT + lines * 64) as u64).unwrap();
        assert_eq!(lsns(&path, &[]), whole[..left], "{lines} lines");
        for command in ["dump", "verify"] {
            let output = run(command, &path, &[]);
            assert_eq!(output.status.code(), Some(1), "{command}, {lines} lines");
        }
    }
}
