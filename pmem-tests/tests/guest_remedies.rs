//! Every remedy that is a command, carried out word for word in a guest where the probe prints it:
//! afterwards the reason is gone, the level is the expected one, every other mount and option is as
//! it was, and the data is there, unless the remedy said first that it erases.
//!
//! It keeps away: a mount that is left unmounted, or comes back with fewer options; a command that
//! takes a path for words of the shell; one that turns a warning off and leaves its cause.

use std::fmt::Write as _;

use daxmap::probe::Recipe;
use pmem_tests::guest::{Guest, Persistence, daxmap, program};
use serde_json::Value;

/// What comes of a remedy.
#[derive(Clone, Copy)]
enum Outcome {
    /// The command succeeds, the reason is gone, and this is the level.
    Gone(Recipe, &'static str),
    /// The same, and what was there is lost, which is said first.
    Erased(Recipe, &'static str),
    /// The command fails, and everything is as it was.
    Refused(Recipe),
    /// There are only words.
    Advice,
}
use Outcome::{Advice, Erased, Gone, Refused};

struct Scenario {
    name: &'static str,
    /// Shell lines that make the situation.
    setup: &'static str,
    path: &'static str,
    code: &'static str,
    /// The path that is probed afterwards, if its name changes.
    later: &'static str,
    /// A file whose contents must stay; none if empty.
    data: &'static str,
    outcome: Outcome,
    /// What changes in the mount table: the mount's point as it stands there, and its options.
    changes: Option<(&'static str, &'static [(&'static str, &'static str)])>,
    /// Shell lines that clean up.
    cleanup: &'static str,
}

const ALWAYS: &[(&str, &str)] = &[("dax=never", "dax=always")];
const FLUSHES: &[(&str, &str)] = &[(",nobarrier", "")];
const WRITABLE: &[(&str, &str)] = &[(" ro", " rw")];

const PLAIN: Scenario = Scenario {
    name: "",
    setup: "",
    path: "/m/file",
    code: "mounted-dax-never",
    later: "",
    data: "/m/file",
    outcome: Advice,
    changes: None,
    cleanup: "umount /m",
};

/// In this order in one guest; `ext4`, `xfs` and `fill` are functions of its script.
const ARMED: &[Scenario] = &[
    Scenario {
        name: "raw namespace",
        path: "/dev/pmem0",
        code: "raw-namespace",
        data: "",
        outcome: Erased(Recipe::FsdaxNamespace, "PowerFail"),
        cleanup: "",
        ..PLAIN
    },
    Scenario {
        name: "sector namespace",
        setup: "mkpmem sector namespace0.0 >/dev/null",
        path: "/dev/pmem0s",
        code: "sector-namespace",
        data: "",
        later: "/dev/pmem0",
        outcome: Erased(Recipe::FsdaxNamespace, "PowerFail"),
        cleanup: "",
        ..PLAIN
    },
    Scenario {
        name: "raw namespace in use",
        setup: "mkpmem raw namespace0.0 >/dev/null; ext4 /dev/pmem0 noatime",
        code: "raw-namespace",
        cleanup: "umount /m; mkpmem fsdax namespace0.0 >/dev/null",
        ..PLAIN
    },
    Scenario {
        name: "ext4 dax=never",
        setup: "ext4 /dev/pmem0 dax=never,noatime,nosuid,nodev,noexec,data=writeback,lazytime,\
                errors=remount-ro,commit=17",
        outcome: Gone(Recipe::DaxAlways, "PowerFail"),
        changes: Some(("/m", ALWAYS)),
        ..PLAIN
    },
    Scenario {
        name: "ext4 dax=never, strictatime",
        setup: "ext4 /dev/pmem0 dax=never,strictatime,nodiratime,sync",
        path: "/m",
        outcome: Gone(Recipe::DaxAlways, "PowerFail"),
        changes: Some(("/m", ALWAYS)),
        ..PLAIN
    },
    Scenario {
        name: "ext4 in use",
        setup: "ext4 /dev/pmem0 dax=never; exec 9</m/file",
        outcome: Refused(Recipe::DaxAlways),
        cleanup: "exec 9<&-; umount /m",
        ..PLAIN
    },
    Scenario {
        name: "ext4 that refuses DAX",
        setup: "mke2fs -q -F -t ext4 -b 4096 -O inline_data /dev/pmem0
                mount -t ext4 -o dax=never,noatime /dev/pmem0 /m; fill /m/file",
        outcome: Refused(Recipe::DaxAlways),
        ..PLAIN
    },
    Scenario {
        name: "ext4 data=journal",
        setup: "ext4 /dev/pmem0 dax=never,data=journal",
        ..PLAIN
    },
    Scenario {
        name: "ext4 at an odd place",
        setup:
            "o=\"/mnt/it's \\\"a\\\" \\$(reboot) ; b\"; mkdir -p \"$o\"; ext4 /dev/pmem0 dax=never
                umount /m; mount -t ext4 -o dax=never,nodev /dev/pmem0 \"$o\"",
        path: "/mnt/it's \"a\" $(reboot) ; b/file",
        data: "/mnt/it's \"a\" $(reboot) ; b/file",
        outcome: Gone(Recipe::DaxAlways, "PowerFail"),
        changes: Some(("/mnt/it's\\040\"a\"\\040$(reboot)\\040;\\040b", ALWAYS)),
        cleanup: "umount \"$o\"",
        ..PLAIN
    },
    Scenario {
        name: "ext4 mounted twice",
        setup: "ext4 /dev/pmem0 dax=never; mount /dev/pmem0 /n",
        cleanup: "umount /n; umount /m",
        ..PLAIN
    },
    Scenario {
        name: "ext4 behind a bind mount",
        setup: "ext4 /dev/pmem0 dax=never; mkdir /m/sub; fill /m/sub/file; mount --bind /m/sub /n
                umount /m",
        path: "/n/file",
        data: "/n/file",
        cleanup: "umount /n",
        ..PLAIN
    },
    Scenario {
        name: "xfs dax=never with reflink",
        setup: "xfs /dev/pmem0 dax=never,largeio,inode32,noquota",
        outcome: Gone(Recipe::DaxAlways, "PowerFail"),
        changes: Some(("/m", ALWAYS)),
        ..PLAIN
    },
    Scenario {
        name: "xfs dax=never with a log device",
        setup: "mkfs.xfs -q -f -l logdev=/dev/vda,size=64m /dev/pmem0
                mount -t xfs -o dax=never,logdev=/dev/vda,noatime /dev/pmem0 /m; fill /m/file",
        outcome: Gone(Recipe::DaxAlways, "Fsync"),
        changes: Some(("/m", ALWAYS)),
        ..PLAIN
    },
    Scenario {
        name: "ext4 dax=inode, a file",
        setup: "ext4 /dev/pmem0 dax=inode",
        code: "dax-inode-without-flag",
        outcome: Gone(Recipe::DaxFlag, "PowerFail"),
        ..PLAIN
    },
    Scenario {
        name: "xfs dax=inode, a file",
        setup: "xfs /dev/pmem0 dax=inode; cp /m/file '/m/it'\\''s'",
        path: "/m/it's",
        data: "/m/it's",
        code: "dax-inode-without-flag",
        outcome: Gone(Recipe::DaxFlag, "PowerFail"),
        cleanup: "",
        ..PLAIN
    },
    Scenario {
        name: "xfs dax=inode, a directory",
        setup: "mkdir /m/d",
        path: "/m/d",
        code: "dax-inode-without-flag",
        outcome: Gone(Recipe::DaxFlag, "PowerFail"),
        cleanup: "",
        ..PLAIN
    },
    Scenario {
        name: "xfs dax=inode, a name",
        setup: "mkdir '/m/d d'",
        path: "/m/d d/new",
        code: "dax-inode-without-flag",
        outcome: Gone(Recipe::DaxFlag, "PowerFail"),
        ..PLAIN
    },
    Scenario {
        name: "DAX flag set while open",
        setup: "ext4 /dev/pmem0 dax=inode; exec 9</m/file; xfs_io -c 'chattr +x' /m/file",
        code: "dax-flag-set-file-open",
        cleanup: "exec 9<&-; umount /m",
        ..PLAIN
    },
    Scenario {
        name: "nobarrier with DAX",
        setup: "ext4 /dev/pmem0 dax=always,nobarrier,noatime,nodev,data=writeback,lazytime",
        code: "no-barrier",
        outcome: Gone(Recipe::Barriers, "PowerFail"),
        changes: Some(("/m", FLUSHES)),
        ..PLAIN
    },
    Scenario {
        name: "nobarrier without DAX",
        setup: "ext4 /dev/vdb nobarrier,strictatime,nosuid,noexec,commit=17",
        code: "no-barrier",
        outcome: Gone(Recipe::Barriers, "Fsync"),
        changes: Some(("/m", FLUSHES)),
        ..PLAIN
    },
    Scenario {
        name: "nobarrier on btrfs",
        setup: "mkfs.btrfs -q -f /dev/vdb; mount -t btrfs /dev/vdb /m; btrfs subvolume create /m/s
                umount /m; mount -t btrfs -o nobarrier,noatime,subvol=s /dev/vdb /m; fill /m/file",
        code: "no-barrier",
        outcome: Gone(Recipe::Barriers, "Fsync"),
        changes: Some(("/m", FLUSHES)),
        ..PLAIN
    },
    Scenario {
        name: "ext4 read-only",
        setup:
            "ext4 /dev/pmem0 dax=always; umount /m
                mount -t ext4 -o ro,dax=always,noatime,nosuid,nodev,errors=remount-ro /dev/pmem0 /m",
        code: "read-only",
        outcome: Gone(Recipe::WritableMount, "PowerFail"),
        changes: Some(("/m", WRITABLE)),
        ..PLAIN
    },
    Scenario {
        name: "xfs read-only",
        setup: "xfs /dev/pmem0 dax=always; umount /m
                mount -t xfs -o ro,dax=always,inode32,strictatime,noexec /dev/pmem0 /m",
        code: "read-only",
        outcome: Gone(Recipe::WritableMount, "PowerFail"),
        changes: Some(("/m", WRITABLE)),
        ..PLAIN
    },
    Scenario {
        name: "one read-only mount of a writable ext4",
        setup: "ext4 /dev/pmem0 dax=always; mount --bind /m /n
                mount -o remount,bind,ro,noatime,nosuid /n",
        path: "/n/file",
        code: "read-only",
        outcome: Gone(Recipe::WritableMount, "PowerFail"),
        changes: Some(("/n", WRITABLE)),
        cleanup: "umount /n; umount /m",
        ..PLAIN
    },
    Scenario {
        name: "read-only pmem device",
        setup: "ext4 /dev/pmem0 dax=always; umount /m; blockdev --setro /dev/pmem0",
        path: "/dev/pmem0",
        data: "",
        code: "read-only",
        outcome: Gone(Recipe::WritableDevice, "PowerFail"),
        cleanup: "",
        ..PLAIN
    },
    Scenario {
        name: "read-only disk",
        setup: "blockdev --setro /dev/vdb",
        path: "/dev/vdb",
        data: "",
        code: "read-only",
        outcome: Gone(Recipe::WritableDevice, "Fsync"),
        cleanup: "",
        ..PLAIN
    },
    Scenario {
        name: "read-only region of armed NVDIMMs",
        setup: "echo 1 >/sys/bus/nd/devices/region0/read_only",
        path: "/dev/pmem0",
        data: "/dev/pmem0",
        code: "read-only",
        outcome: Gone(Recipe::WritableRegion, "PowerFail"),
        cleanup: "",
        ..PLAIN
    },
    Scenario {
        name: "overlay on DAX",
        setup: "xfs /dev/pmem0 dax=always; mount-overlay /m /n; fill /n/file",
        path: "/n/file",
        data: "/n/file",
        code: "overlay-on-dax",
        cleanup: "umount /n; umount /m",
        ..PLAIN
    },
    Scenario {
        name: "ext4 on a partition",
        setup: "partition '\\000\\010'; ext4 /dev/pmem0p1 dax=never,noatime",
        outcome: Gone(Recipe::DaxAlways, "PowerFail"),
        changes: Some(("/m", ALWAYS)),
        ..PLAIN
    },
    Scenario {
        name: "xfs with reflink on a partition",
        setup: "xfs /dev/pmem0p1 dax=never,noatime",
        ..PLAIN
    },
    Scenario {
        name: "the advice for it: dax=inode and the flag",
        setup: "xfs /dev/pmem0p1 dax=inode,noatime",
        code: "dax-inode-without-flag",
        outcome: Gone(Recipe::DaxFlag, "PowerFail"),
        ..PLAIN
    },
    Scenario {
        name: "partition between pages",
        setup: "partition '\\077\\000'; ext4 /dev/pmem0p1 noatime",
        code: "no-dax-device",
        ..PLAIN
    },
];

const FUNCTIONS: &str = r#"
fill() { head -c 1000000 /dev/urandom >"$1"; sync; }
ext4() { mke2fs -q -F -t ext4 -b 4096 "$1"; mount -t ext4 -o "$2" "$1" /m; fill /m/file; }
xfs() { mkfs.xfs -q -f "$1"; mount -t xfs -o "$2" "$1" /m; fill /m/file; }
# A partition table with one partition, from this sector on.
partition() {
    dd if=/dev/zero of=/dev/pmem0 bs=4096 count=256 2>/dev/null
    printf '\000\000\000\000\203\000\000\000'"$1"'\000\000\000\100\017\000' |
        dd of=/dev/pmem0 bs=1 seek=446 conv=notrunc 2>/dev/null
    printf '\125\252' | dd of=/dev/pmem0 bs=1 seek=510 conv=notrunc 2>/dev/null
    sync; blockdev --rereadpt /dev/pmem0
}
mkdir -p /m /n
"#;

fn script(scenarios: &[Scenario]) -> String {
    let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let mut script = FUNCTIONS.to_owned();
    for scenario in scenarios {
        let later = if scenario.later.is_empty() { scenario.path } else { scenario.later };
        let words = [scenario.name, scenario.path, scenario.code, later, scenario.data];
        let words = words.into_iter().filter(|word| !word.is_empty()).map(quoted);
        let words = words.collect::<Vec<_>>().join(" ");
        let (setup, cleanup) = (scenario.setup, scenario.cleanup);
        writeln!(script, "{setup}\n./guest remedy {words}\n{cleanup}").unwrap();
    }
    script
}

/// Runs them in one guest; what each printed.
fn run(guest: Guest, scenarios: &[Scenario]) -> Vec<Value> {
    let guest = guest.file(program().unwrap()).file(daxmap().unwrap());
    let output = guest.run_script(&script(scenarios)).unwrap();
    assert_eq!(output.status, 0, "{}", output.stdout);
    output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn lines(value: &Value) -> Vec<String> {
    let lines = value.as_array().expect("a list of mounts");
    lines.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// The mount table that is expected afterwards.
fn expected_mounts(scenario: &Scenario, before: &[String]) -> Vec<String> {
    let Some((point, changes)) = scenario.changes else { return before.to_owned() };
    let mut after = before.to_owned();
    for line in after.iter_mut().filter(|line| line.split(' ').nth(2) == Some(point)) {
        for (from, to) in changes {
            assert!(line.contains(from), "{}: no {from} in {line}", scenario.name);
            *line = line.replace(from, to);
        }
    }
    assert_ne!(after, before, "{}: no mount on {point}", scenario.name);
    after.sort_unstable();
    after
}

fn has_reason(report: &Value, code: &str) -> bool {
    report["reasons"].as_array().unwrap().iter().any(|reason| reason["code"] == code)
}

fn verify(scenario: &Scenario, found: &Value) {
    let said = serde_json::to_string_pretty(found).unwrap();
    let name = scenario.name;
    assert_eq!(found["scenario"], name);
    assert_eq!(found["reason"]["code"], scenario.code, "{said}");
    let (recipe, succeeds, erases) = match scenario.outcome {
        Gone(recipe, _) => (Some(recipe), true, false),
        Erased(recipe, _) => (Some(recipe), true, true),
        Refused(recipe) => (Some(recipe), false, false),
        Advice => (None, false, false),
    };
    assert_eq!(found["reason"]["remedy_recipe"].as_str(), recipe.map(Recipe::as_str), "{said}");
    assert_eq!(recipe.is_some(), found["reason"]["remedy_command"].is_string(), "{said}");
    let before = lines(&found["mounts_before"]);
    let after = lines(&found["mounts_after"]);
    let says_first =
        found["reason"]["remedy"].as_str().is_some_and(|text| text.starts_with("ERASES DATA: "));
    assert!(says_first || found["data_kept"] == true, "{said}");
    let (Gone(_, level) | Erased(_, level)) = scenario.outcome else {
        assert!(found["status"] != 0, "{said}");
        assert_eq!(after, before, "{said}");
        assert!(has_reason(&found["after"], scenario.code), "{said}");
        return;
    };
    assert!(succeeds && found["status"] == 0, "{said}");
    assert_eq!(says_first, erases, "{said}");
    assert_eq!(after, expected_mounts(scenario, &before), "{said}");
    assert!(!has_reason(&found["after"], scenario.code), "{said}");
    assert_eq!(found["after"]["durability"], level, "{said}");
}

#[test]
fn every_command_does_what_it_says_and_nothing_else() {
    let guest = Guest::new()
        .persistence(Persistence::MemoryController)
        .nvdimm("512M")
        .disk("128M")
        .disk("256M");
    let found = run(guest, ARMED);
    assert_eq!(found.len(), ARMED.len());
    for (scenario, found) in ARMED.iter().zip(&found) {
        verify(scenario, found);
    }
}

/// A command that is not carried out above is none.
#[test]
fn every_recipe_has_a_scenario() {
    for recipe in Recipe::ALL {
        let carried_out = |scenario: &Scenario| match scenario.outcome {
            Gone(found, _) | Erased(found, _) => found == recipe,
            Refused(_) | Advice => false,
        };
        assert!(ARMED.iter().any(carried_out), "{} is not carried out", recipe.as_str());
    }
}

/// Memory whose save at a power loss is not armed is read-only for that reason: no command that the
/// probe prints makes it writable, or erases it.
#[test]
fn nothing_makes_unarmed_memory_writable() {
    let guest = Guest::new().persistence(Persistence::MemoryController).nvdimm("256M").unarmed();
    let fresh = Scenario {
        name: "as it comes",
        path: "/dev/pmem0",
        code: "read-only",
        data: "",
        cleanup: "",
        ..PLAIN
    };
    let unlock = "echo 0 >/sys/bus/nd/devices/region0/read_only";
    let lock = "echo 1 >/sys/bus/nd/devices/region0/read_only";
    let setup = format!(
        "{unlock}; mkpmem fsdax namespace0.0 >/dev/null; ext4 /dev/pmem0 dax=always; umount /m
         {lock}; mount -t ext4 -o ro,dax=always /dev/pmem0 /m"
    );
    let mounted = Scenario { name: "mounted", setup: setup.leak(), code: "read-only", ..PLAIN };
    let scenarios = [fresh, mounted];
    let found = run(guest, &scenarios);
    assert_eq!(found.len(), scenarios.len());
    for (scenario, found) in scenarios.iter().zip(&found) {
        verify(scenario, found);
        for reason in found["before"]["reasons"].as_array().unwrap() {
            assert!(reason["remedy_command"].is_null(), "{}: {reason}", scenario.name);
        }
    }
}
