//! Each sync is left out, and each one before a name is made after it instead: on which profiles
//! does a crash break the promise then? The table of docs/publish.md says the same.

use std::fmt::Write;

use daxmap_sim::filesystem::{History, Profile, SyncCall, Tamper, Which};

use crate::operations::{
    ALL, CREATE, CREATE_ONLY, DRAIN, EXCHANGE, EXCHANGE_AGAIN, GROW, OPEN, Operation, PART,
    REPLACE, REPLACE_NOTHING, REPLACE_SET_ID,
};
use crate::{explore, run};

const DOCUMENT: &str = include_str!("../../../docs/publish.md");

/// A sync in a run.
#[derive(Clone, Copy, Debug)]
struct Made {
    call: SyncCall,
    /// Among those of its kind.
    number: usize,
    /// The file had its final name.
    named: bool,
    /// How many calls follow that give it one.
    names_to_come: usize,
}

fn syncs(history: &History) -> Vec<Made> {
    let calls: Vec<&str> = history.calls().collect();
    let gives_name =
        |call: &&&str| ["linkat", "renameat", "exchange"].iter().any(|name| call.starts_with(name));
    let mut numbers = [0; 3];
    let mut found = Vec::new();
    for (at, text) in calls.iter().enumerate() {
        let call = match *text {
            "fsync of the directory" => SyncCall::Directory,
            text if text.starts_with("fsync") => SyncCall::File,
            text if text.starts_with("fdatasync") => SyncCall::Data,
            _ => continue,
        };
        let number = numbers[call as usize];
        numbers[call as usize] += 1;
        let names_to_come = calls[at..].iter().filter(gives_name).count();
        let named = names_to_come == 0 && calls.iter().any(|call| gives_name(&call));
        found.push(Made { call, number, named, names_to_come });
    }
    found
}

/// A sync that an operation makes, and what it is in words. Its place: before (`false`) or after
/// the final name, and the how-manieth there.
struct Row {
    operation: &'static Operation,
    sync: &'static str,
    named: bool,
    number: usize,
}

const BEFORE: &str = "`fdatasync` of the file, before its name";
const AFTER: &str = "`fsync` of the directory (btrfs: of the file), after its name";

const fn row(operation: &'static Operation, sync: &'static str, named: bool, number: usize) -> Row {
    Row { operation, sync, named, number }
}

static ROWS: [Row; 23] = [
    row(&CREATE, "`fsync` of the file, before its name", false, 0),
    row(&CREATE, AFTER, true, 0),
    row(&OPEN, "`fsync` of the file", false, 0),
    row(&OPEN, "`fsync` of the directory", false, 1),
    row(&OPEN, "`fdatasync` of the first drain", false, 2),
    row(&GROW, "`fsync` of the file", false, 0),
    row(&DRAIN, "`fdatasync` of the file", false, 0),
    row(&CREATE_ONLY, BEFORE, false, 0),
    row(&CREATE_ONLY, AFTER, true, 0),
    row(&REPLACE_NOTHING, BEFORE, false, 0),
    row(&REPLACE_NOTHING, AFTER, true, 0),
    row(&PART, BEFORE, false, 0),
    row(&PART, "`fdatasync` of what was never written, before its name", false, 1),
    row(&PART, AFTER, true, 0),
    row(&REPLACE, BEFORE, false, 0),
    row(&REPLACE, AFTER, true, 0),
    row(&REPLACE_SET_ID, BEFORE, false, 0),
    row(&REPLACE_SET_ID, "`fsync` of the file after its mode, before its name", false, 1),
    row(&REPLACE_SET_ID, AFTER, true, 0),
    row(&EXCHANGE, BEFORE, false, 0),
    row(&EXCHANGE, AFTER, true, 0),
    row(&EXCHANGE_AGAIN, BEFORE, false, 0),
    row(&EXCHANGE_AGAIN, AFTER, true, 0),
];

/// The sync of a row in a run on one profile, if it is made there.
fn find(row: &Row, profile: Profile) -> Option<Made> {
    let whole = run(row.operation, profile, &[]);
    let there = syncs(&whole.history).into_iter().filter(|made| made.named == row.named);
    there.into_iter().nth(row.number)
}

/// Whether a crash can break the promise then.
fn breaks(row: &Row, profile: Profile, tamper: Tamper) -> bool {
    let outcome = run(row.operation, profile, &[tamper]);
    assert!(outcome.result.is_ok(), "nothing has failed");
    explore(row.operation, &outcome.history).is_err()
}

fn list(profiles: &[Profile]) -> String {
    if profiles.len() == Profile::ALL.len() {
        return "all".into();
    }
    let names: Vec<&str> = profiles.iter().map(|profile| profile.as_str()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// What the model says of a row: where its sync is missed, where it is when made after the name,
/// and where it is made and not missed.
fn findings(row: &Row) -> String {
    let (mut without, mut late, mut spared) = (Vec::new(), Vec::new(), Vec::new());
    for profile in Profile::ALL {
        let Some(made) = find(row, profile) else { continue };
        // What was not synced is found to be unwritten, and written and synced again: that one is
        // the same sync.
        let which = match made.call {
            SyncCall::Data => Which::From(made.number),
            _ => Which::Only(made.number),
        };
        let missed = breaks(row, profile, Tamper::LeaveOut(made.call, which));
        if missed { &mut without } else { &mut spared }.push(profile);
        if breaks(row, profile, Tamper::Late(made.call, which, made.names_to_come)) {
            late.push(profile);
        }
    }
    let (of, name) = (row.sync, row.operation.name);
    assert!(!without.is_empty(), "nothing misses {of} of {name}: it is one too many");
    let named = of.contains("before its name");
    assert!(!named || !late.is_empty(), "{of} of {name} could come later");
    let late = if named { list(&late) } else { "-".into() };
    format!("{} | {late} | {}", list(&without), list(&spared))
}

/// One line for all operations of which the same is true of the same sync.
fn table() -> String {
    let mut lines: Vec<(&str, String, Vec<&str>)> = Vec::new();
    for row in &ROWS {
        let found = findings(row);
        let name = row.operation.name;
        match lines.iter_mut().find(|(sync, same, _)| *sync == row.sync && *same == found) {
            Some((_, _, names)) => names.push(name),
            None => lines.push((row.sync, found, vec![name])),
        }
    }
    let mut table =
        "| sync | of | left out, missed on | made after the name instead, missed on | made \
                     and not missed on |\n|---|---|---|---|---|\n"
            .to_owned();
    for (sync, found, names) in lines {
        writeln!(table, "| {sync} | {} | {found} |", names.join("; "))
            .expect("a string takes what is written");
    }
    table
}

#[test]
fn the_table_of_the_document_is_what_the_model_says() {
    let table = table();
    println!("{table}");
    assert!(DOCUMENT.contains(&table), "docs/publish.md has another table than:\n{table}");
}

/// No sync of any operation is missing in the table.
#[test]
fn the_table_has_every_sync() {
    for operation in &ALL {
        for profile in Profile::ALL {
            let history = run(operation, profile, &[]).history;
            let mut numbers = [0; 2];
            for made in syncs(&history) {
                let number = numbers[usize::from(made.named)];
                numbers[usize::from(made.named)] += 1;
                let there = ROWS.iter().any(|row| {
                    (row.operation.name, row.named, row.number)
                        == (operation.name, made.named, number)
                });
                assert!(there, "{} on {}: {made:?}", operation.name, profile.as_str());
            }
        }
    }
}

/// Why `src/region/quirks.rs` has three ways: where the library takes a filesystem for another, it
/// leaves out what is needed there.
#[test]
fn what_one_filesystem_needs_another_misses() {
    let operations = [&CREATE, &CREATE_ONLY, &REPLACE, &REPLACE_SET_ID, &EXCHANGE];
    let mut found = Vec::new();
    for profile in Profile::ALL {
        // One of each way: with a journal, with a log of files, not known.
        for taken_for in [Profile::Ext4, Profile::Btrfs, Profile::NothingUntilFsync] {
            let broken = operations.iter().any(|operation| {
                let outcome = run(operation, profile, &[Tamper::Disguise(taken_for)]);
                explore(operation, &outcome.history).is_err()
            });
            if broken {
                found.push((profile.as_str(), taken_for.as_str()));
            }
        }
    }
    println!("taken for another: {found:?}");
    let none = "nothing until fsync";
    assert_eq!(found, [(none, "ext4"), (none, "btrfs")]);
}
