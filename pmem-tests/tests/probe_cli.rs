//! `daxmap probe` as a person or a program runs it.

mod scratch_mounts;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use scratch_mounts::Scratch;
use serde_json::Value;

/// Builds the command line once, in the profile of this test, and says where it is.
fn daxmap() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // target/PROFILE/deps/this-test
        let here = std::env::current_exe().unwrap();
        let profile = here.parent().and_then(Path::parent).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "daxmap-cli"]);
        build.arg("--target-dir").arg(profile.parent().unwrap());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the command line does not build");
        profile.join("daxmap")
    })
}

fn probe(args: &[&str]) -> Output {
    // Two runs are compared, which may not measure the same.
    Command::new(daxmap()).arg("probe").args(args).env("DAXMAP_COPIES", "table").output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json_lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn people_read_the_verdict_first() {
    let scratch = Scratch::new();
    let output = probe(&[scratch.path().to_str().unwrap()]);
    assert!(output.status.success());
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert!(lines[0].starts_with("A file created in "), "{}", lines[0]);
    assert!(lines[0].contains("durability "));
    let fact = lines.iter().position(|line| line.trim_start().starts_with("filesystem ")).unwrap();
    let reasons = lines.iter().rposition(|line| line.starts_with("  why: "));
    assert!(reasons.is_none_or(|reason| reason < fact), "reasons come before the facts");
}

#[test]
fn programs_read_one_object_a_line() {
    let scratch = Scratch::new();
    let file = scratch.path().join("f");
    fs::write(&file, b"x").unwrap();
    let paths = [file.to_str().unwrap(), scratch.path().to_str().unwrap(), "/dev/shm", "/dev/null"];
    let output = probe(&[&["--json"], &paths[..]].concat());
    assert!(output.status.success() && output.stderr.is_empty());
    let objects = json_lines(&output);
    assert_eq!(objects.len(), paths.len());
    for (object, path) in objects.iter().zip(paths) {
        assert_eq!(object["path"], path);
        assert_eq!(object["schema"], 1);
        for field in [
            "filesystem",
            "mount_point",
            "mount_options",
            "device",
            "backend",
            "statx_dax",
            "map_sync",
            "map_sync_errno",
            "persistence_domain",
            "durability",
            "granularity",
            "huge_pages",
            "write_back",
            "reasons",
        ] {
            assert!(object.get(field).is_some(), "{path}: no {field}");
        }
        for reason in object["reasons"].as_array().unwrap() {
            assert!(reason["code"].is_string() && reason["text"].is_string());
            assert!(reason.get("remedy").is_some());
        }
    }
    assert_eq!(objects[2]["filesystem"], "tmpfs");
    assert_eq!(objects[2]["durability"], "ProcessOnly");
    assert_eq!(objects[2]["backend"], "volatile");
    assert_eq!(objects[2]["reasons"][0]["code"], "memory-backed");
    assert_eq!(objects[3]["target"], "other");
}

/// Which way copies go, where there are any; what is asked for is what is used.
#[test]
fn copies_go_the_way_that_is_asked_for() {
    let asked = "persist=64,flush=4096,cached-domain=never,direct=0,partial-lines=false";
    let output = Command::new(daxmap())
        .args(["probe", "--json", "/dev/shm", "/"])
        .env("DAXMAP_COPIES", asked)
        .output()
        .unwrap();
    let objects = json_lines(&output);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(objects[0]["copies"]["sizes"], asked);
        assert_eq!(objects[0]["copies"]["basis"], "DAXMAP_COPIES");
    }
    assert!(objects[1]["copies"].is_null(), "{}", objects[1]);
    let words = text(&probe(&["/dev/shm"]).stdout).to_owned();
    assert!(words.contains("CPU copies") && words.contains("persist="), "{words}");
}

#[test]
fn without_a_path_every_mount() {
    let objects = json_lines(&probe(&["--json"]));
    let paths: Vec<_> = objects.iter().map(|object| object["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"/"));
    assert!(!paths.contains(&"/proc") && !paths.contains(&"/sys"));
}

#[test]
fn a_path_that_fails_is_one_line_and_the_others_are_reported() {
    let output = probe(&["--json", "/no/such/path", "/", "/etc/passwd/x"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json_lines(&output).len(), 1);
    let errors: Vec<_> = text(&output.stderr).lines().collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("/no/such/path") && errors[0].contains("No such file"));
    assert!(errors[1].contains("/etc/passwd/x") && errors[1].contains("Not a directory"));
}

#[test]
fn a_closed_pipe_is_not_a_panic() {
    let mut child = Command::new(daxmap())
        .args(["probe", "--json"])
        .args(["/"; 400])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let output = probe(&["/tmp/a\u{1b}[31mb\nc", "/no\u{1b}/x"]);
    assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b));
    assert!(text(&output.stdout).starts_with("A file created as "));
}

/// A mount of memory, and the directory of the build on whatever this machine has.
fn two_places() -> [String; 2] {
    let built = daxmap().parent().unwrap().to_str().unwrap().to_owned();
    ["/dev/shm".to_owned(), built]
}

fn words<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The levels by their names, the least first.
fn rank(level: &str) -> usize {
    let order = ["ProcessOnly", "Unverified", "Fsync", "PowerFail"];
    order.iter().position(|name| *name == level).unwrap_or_else(|| panic!("no level {level}"))
}

#[test]
fn the_durability_is_the_least_of_the_layers() {
    for path in two_places() {
        let object = json_lines(&probe(&["--json", &path])).remove(0);
        let caps = object["caps"].as_array().unwrap();
        let least = caps.iter().map(|cap| words(cap, "level")).min_by_key(|level| rank(level));
        assert_eq!(least, object["durability"].as_str(), "{object}");
        let reasons = object["reasons"].as_array().unwrap();
        for cap in caps {
            assert!(!words(cap, "evidence").is_empty(), "{cap}");
            // A cap that has a reason has it among the reasons, in the same words.
            let is_said =
                |said: &Value| said["code"] == cap["reason"] && said["text"] == cap["evidence"];
            assert!(cap["reason"].is_null() || reasons.iter().any(is_said), "{cap} {object}");
        }
    }
    let memory = json_lines(&probe(&["--json", "/dev/shm"])).remove(0);
    let volatile = |cap: &Value| cap["level"] == "ProcessOnly" && cap["reason"] == "memory-backed";
    assert!(memory["caps"].as_array().unwrap().iter().any(volatile), "{memory}");
}

/// The ways of every operation, as the library's own table has them.
#[test]
fn the_fallbacks_are_shown_in_the_order_in_which_they_are_tried() {
    let output = probe(&["--fallbacks"]);
    assert!(output.status.success());
    let shown = text(&output.stdout);
    let mut rest = shown;
    for row in daxmap::probe::FALLBACKS {
        let level = row.level.map(|level| format!("at most {level}"));
        let parts = [row.operation, row.first, row.second, row.third];
        let parts = parts.into_iter().chain(level.as_deref()).chain([row.gives_up]);
        for part in parts.map(|part| part.replace('`', "")) {
            rest = rest.split_once(&part).unwrap_or_else(|| panic!("no {part:?} in:\n{shown}")).1;
        }
    }
    assert!(shown.lines().all(|line| line.len() <= 110), "{shown}");
    assert!(!probe(&["--fallbacks", "/"]).status.success());
}

/// `--layers` adds a row for each cap, top down, and changes nothing above it.
#[test]
fn layers_are_shown_only_when_they_are_asked_for() {
    const TITLE: &str = "  what each layer keeps, of which the least counts:\n";
    for path in two_places() {
        let plain = probe(&[path.as_str()]);
        assert!(!text(&plain.stdout).contains(TITLE));
        let output = probe(&["--layers", &path]);
        assert!(output.status.success() && output.stderr.is_empty());
        let (above, table) = text(&output.stdout).split_once(TITLE).expect("a table of layers");
        assert_eq!(above, text(&plain.stdout));
        let object = json_lines(&probe(&["--json", &path])).remove(0);
        let caps = object["caps"].as_array().unwrap();
        assert!(!caps.is_empty());
        let rows: Vec<Vec<&str>> =
            table.lines().map(|row| row.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), caps.len(), "{table}");
        for (row, cap) in rows.iter().zip(caps) {
            assert_eq!(row[..2], [words(cap, "layer"), words(cap, "level")], "{table}");
            let code = cap["reason"].as_str().map_or_else(String::new, |code| format!(" [{code}]"));
            let said = format!("{}{code}", words(cap, "evidence"));
            assert_eq!(row[2..], said.split_whitespace().collect::<Vec<_>>(), "{table}");
        }
    }
    let both = probe(&["--layers", "--json", "/"]);
    assert_eq!(both.status.code(), Some(2), "{}", text(&both.stderr));
}

/// As a user who owns nothing: what may be seen is reported, what may not is one error.
#[test]
fn without_permission() {
    // The build may lie where nobody but its owner can go, so all of this is in /tmp.
    let at = PathBuf::from(format!("/tmp/daxmap-probe-cli-{}", std::process::id()));
    fs::create_dir_all(at.join("closed")).unwrap();
    let _cleanup = Remove(at.clone());
    let program = at.join("daxmap");
    fs::copy(daxmap(), &program).unwrap();
    fs::write(at.join("secret"), b"x").unwrap();
    for (name, mode) in [("", 0o755), ("daxmap", 0o755), ("secret", 0o600), ("closed", 0o700)] {
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let run = |path: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["probe", "--json"])
            .arg(at.join(path))
            .output()
            .expect("setpriv (util-linux) is needed");
        assert!(
            !text(&output.stderr).contains("setpriv"),
            "this test takes privilege away: run it as root; {}",
            text(&output.stderr)
        );
        output
    };
    let output = run("secret");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let object = &json_lines(&output)[0];
    // It is not DAX, which is seen without opening it.
    assert_eq!(object["map_sync"], "refused");
    assert_eq!(object["map_sync_errno"], 95);
    assert_eq!(object["backend"], "page_cache");
    let as_root = &json_lines(&probe(&["--json", at.join("secret").to_str().unwrap()]))[0];
    assert_eq!(object, as_root, "no privilege is needed");

    let output = run("closed/x");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr).lines().count(), 1);
    assert!(text(&output.stderr).contains("Permission denied"), "{}", text(&output.stderr));

    let ordinary = json_lines(&run("new"));
    let as_root = json_lines(&probe(&["--json", at.join("new").to_str().unwrap()]));
    assert_eq!(ordinary, as_root, "no privilege is needed");
}

struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
