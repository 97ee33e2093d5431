//! Litmus tests: small programs, an outcome of each, and the profiles that allow it. All others
//! forbid it. What they stand on is in docs/filesystem_model.md.

use std::io::Result;

use super::{History, Image, Limits, Model, Profile, Shown, Tamper};

mod states;
mod user;

const EXT4: Profile = Profile::Ext4;
const XFS: Profile = Profile::Xfs;
const BTRFS: Profile = Profile::Btrfs;
const NOTHING: Profile = Profile::NothingUntilFsync;
/// In bytes: two sectors.
const LEN: usize = 1024;

/// What a file shows: length, and the first byte of each sector.
type Seen = Option<(u64, u8, u8)>;

fn seen(image: &Image, name: &str) -> Seen {
    match image.shows(name) {
        Shown::Nothing => None,
        Shown::Broken => Some((u64::MAX, 0, 0)),
        Shown::File(file) => {
            let bytes = file.bytes();
            let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
            Some((file.len(), byte(0), byte(512)))
        }
    }
}

/// What a program leaves to be crashed.
fn history(profile: Profile, program: impl Fn(&Model) -> Result<()>) -> History {
    let model = Model::new(profile).unwrap();
    program(&model).unwrap();
    model.history()
}

/// The profiles on which a crash after the program can leave the outcome.
fn allowed(
    program: impl Fn(&Model) -> Result<()>,
    outcome: impl Fn(&Image) -> bool,
) -> Vec<Profile> {
    allowed_before(0, program, outcome)
}

/// The same, of a crash before the last so many calls of the program.
fn allowed_before(
    last: usize,
    program: impl Fn(&Model) -> Result<()>,
    outcome: impl Fn(&Image) -> bool,
) -> Vec<Profile> {
    let can = |profile: &Profile| {
        let history = history(*profile, &program);
        let point = history.calls().count() - last;
        let mut met = false;
        let look = |crash: super::Crash<'_>| {
            met |= crash.point == point && outcome(crash.image);
            Ok(())
        };
        history.explore_from(point, Limits::default(), look).unwrap();
        met
    };
    Profile::ALL.into_iter().filter(can).collect()
}

fn old_file(model: &Model, name: &str) -> Result<()> {
    let file = model.create(name)?;
    model.write(&file, &[1; LEN], 0)?;
    model.settle();
    Ok(())
}

#[test]
fn sectors_of_one_write() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        model.write(&model.open("a")?, &[2; LEN], 0)
    };
    let second_only = |image: &Image| seen(image, "a") == Some((1024, 1, 2));
    assert_eq!(allowed(program, second_only), [EXT4, XFS, BTRFS, NOTHING]);
    let neither = |image: &Image| seen(image, "a") == Some((1024, 1, 1));
    assert_eq!(allowed(program, neither), Profile::ALL);
}

#[test]
fn a_later_write_of_a_sector_is_not_undone_by_an_earlier_one() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.write(&file, &[2; 512], 0)?;
        model.sync_data(&file)?;
        model.write(&file, &[3; 512], 0)
    };
    for (byte, expected) in [(1, &[][..]), (2, &Profile::ALL[..]), (3, &Profile::ALL[..])] {
        let found = allowed(program, |image| seen(image, "a") == Some((1024, byte, 1)));
        assert_eq!(found, expected, "{byte}");
    }
}

#[test]
fn the_length_that_a_write_made() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.truncate(&file, 0)?;
        model.settle();
        model.write(&file, &[2; LEN], 0)
    };
    let before_data = |image: &Image| seen(image, "a") == Some((1024, 0, 0));
    assert_eq!(allowed(program, before_data), [NOTHING]);
    let whole = |image: &Image| seen(image, "a") == Some((1024, 2, 2));
    assert_eq!(allowed(program, whole), Profile::ALL);
}

#[test]
fn the_length_that_a_write_made_within_a_block() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        model.write(&model.open("a")?, &[2; 3584], LEN as u64)
    };
    // Up to the end of the block that had its place before.
    let within = |image: &Image| match image.shows("a") {
        Shown::File(file) => file.len() == 4096 && file.bytes()[LEN..].iter().all(|b| *b == 0),
        _ => false,
    };
    assert_eq!(allowed(program, within), [EXT4]);
    let beyond = |image: &Image| match image.shows("a") {
        Shown::File(file) => file.len() == 4608 && file.bytes()[4096..].iter().all(|b| *b == 0),
        _ => false,
    };
    assert_eq!(allowed(program, beyond), [NOTHING]);
}

#[test]
fn the_length_that_fallocate_made() {
    let program = |model: &Model| {
        let file = model.create("a")?;
        model.settle();
        model.allocate(&file, 0, LEN as u64)?;
        model.write(&file, &[2; LEN], 0)
    };
    assert_eq!(allowed(program, |i| seen(i, "a") == Some((1024, 0, 0))), Profile::ALL);
    // Space and length come in one step or in two.
    let unwritten = |image: &Image| match image.shows("a") {
        Shown::File(file) => file.is_empty() && file.has_space(),
        _ => false,
    };
    assert_eq!(allowed(program, unwritten), [XFS, NOTHING]);
}

#[test]
fn a_rename_and_the_data_of_what_is_renamed() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.create("b")?;
        model.write(&file, &[2; LEN], 0)?;
        model.rename("b", "a")
    };
    let empty = |image: &Image| seen(image, "a") == Some((0, 0, 0));
    assert_eq!(allowed(program, empty), [EXT4, XFS, BTRFS, NOTHING]);
    let no_file = |image: &Image| seen(image, "a").is_none();
    assert_eq!(allowed(program, no_file), []);
    // Both names lead to the new file, or the old one still has its own.
    let both = |i: &Image| seen(i, "a").is_some_and(|a| a.1 == 2) && seen(i, "b").is_some();
    assert_eq!(allowed(program, both), []);
    // Its count is lowered, and the name still leads there.
    let broken = |image: &Image| seen(image, "a") == Some((u64::MAX, 0, 0));
    assert_eq!(allowed(program, broken), [NOTHING]);
}

#[test]
fn names_of_two_files() {
    let program = |model: &Model| {
        model.create("a")?;
        model.create("b").map(drop)
    };
    let second_only = |image: &Image| seen(image, "a").is_none() && seen(image, "b").is_some();
    assert_eq!(allowed(program, second_only), [BTRFS, NOTHING]);
}

#[test]
fn an_fsync_of_a_file_and_its_name() {
    let program = |model: &Model| {
        let file = model.create("a")?;
        model.write(&file, &[2; LEN], 0)?;
        model.sync(&file)
    };
    assert_eq!(allowed(program, |image| seen(image, "a").is_none()), [NOTHING]);
    let part = |image: &Image| seen(image, "a").is_some_and(|seen| seen != (1024, 2, 2));
    assert_eq!(allowed(program, part), []);
}

#[test]
fn an_fdatasync_of_a_file_and_a_name_that_it_got_since() {
    let program = |model: &Model| {
        let file = model.create("a")?;
        model.write(&file, &[2; LEN], 0)?;
        model.settle();
        model.link(&file, "b")?;
        model.sync_data(&file)
    };
    assert_eq!(allowed(program, |image| seen(image, "b").is_none()), [EXT4, XFS, NOTHING]);
}

#[test]
fn an_fsync_of_the_directory_and_the_data() {
    let program = |model: &Model| {
        let file = model.create("a")?;
        model.write(&file, &[2; LEN], 0)?;
        model.sync_directory()
    };
    assert_eq!(allowed(program, |image| seen(image, "a").is_none()), []);
    assert_eq!(allowed(program, |i| seen(i, "a") == Some((0, 0, 0))), Profile::ALL);
    let broken = |image: &Image| seen(image, "a") == Some((u64::MAX, 0, 0));
    assert_eq!(allowed(program, broken), [NOTHING]);
}

#[test]
fn an_fsync_of_one_file_and_what_was_named_before() {
    let program = |model: &Model| {
        model.create("a")?;
        let file = model.create("b")?;
        model.sync(&file)
    };
    assert_eq!(allowed(program, |image| seen(image, "a").is_none()), [BTRFS, NOTHING]);
}

#[test]
fn a_file_synced_without_a_name() {
    let program = |model: &Model| {
        let file = model.create_unnamed()?;
        model.write(&file, &[2; LEN], 0)?;
        model.sync(&file)?;
        model.link(&file, "a")
    };
    assert_eq!(allowed(program, |image| seen(image, "a").is_none()), Profile::ALL);
    let broken = |image: &Image| seen(image, "a") == Some((u64::MAX, 0, 0));
    assert_eq!(allowed(program, broken), [NOTHING]);
    let part = |i: &Image| seen(i, "a").is_some_and(|a| a != (1024, 2, 2) && a.0 != u64::MAX);
    assert_eq!(allowed(program, part), []);
}

#[test]
fn a_mode_and_a_name_given_after_it() {
    let program = |model: &Model| {
        let file = model.create("a")?;
        model.settle();
        model.change_mode(&file, 0o640)?;
        model.link(&file, "b")
    };
    let named_with_old_mode =
        |image: &Image| matches!(image.shows("b"), Shown::File(file) if file.mode() == 0o600);
    assert_eq!(allowed(program, named_with_old_mode), [NOTHING]);
}

#[test]
fn an_exchange_is_one_step() {
    let program = |model: &Model| {
        for (name, byte) in [("a", 1), ("b", 2)] {
            let file = model.create(name)?;
            model.write(&file, &[byte; LEN], 0)?;
        }
        model.settle();
        model.exchange("a", "b")
    };
    let twice = |image: &Image| seen(image, "a") == seen(image, "b");
    assert_eq!(allowed(program, twice), []);
    assert_eq!(allowed(program, |i| seen(i, "a") == Some((1024, 2, 2))), Profile::ALL);
}

#[test]
fn after_a_failed_sync_the_next_one_covers_nothing() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.tamper(Tamper::Fail(1, libc::EIO));
        model.write(&file, &[2; LEN], 0)?;
        assert_eq!(model.sync_data(&file).unwrap_err().raw_os_error(), Some(libc::EIO));
        model.sync_data(&file)
    };
    let old = |image: &Image| seen(image, "a") == Some((1024, 1, 1));
    assert_eq!(allowed(program, old), Profile::ALL);
    // What is written again is dirty again.
    let again = |model: &Model| {
        program(model)?;
        let file = model.open("a")?;
        model.write(&file, &[2; LEN], 0)?;
        model.sync_data(&file)
    };
    assert_eq!(allowed(again, old), []);
}

#[test]
fn a_length_does_not_wait_for_data_that_a_failed_sync_lost() {
    let program = |model: &Model| {
        let file = model.create("a")?;
        model.settle();
        model.tamper(Tamper::Fail(1, libc::EIO));
        model.write(&file, &[2; LEN], 0)?;
        assert_eq!(model.sync(&file).unwrap_err().raw_os_error(), Some(libc::EIO));
        Ok(())
    };
    let without_data = |image: &Image| seen(image, "a") == Some((1024, 0, 0));
    assert_eq!(allowed(program, without_data), Profile::ALL);
    // Before that sync nothing was lost.
    assert_eq!(allowed_before(1, program, without_data), [NOTHING]);
}

#[test]
fn a_length_waits_for_the_data_of_its_own_write_alone() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.create("b")?;
        model.settle();
        model.write(&model.open("a")?, &[3; 512], 0)?;
        model.write(&file, &[2; LEN], 0)
    };
    let second_only = |image: &Image| {
        seen(image, "a") == Some((1024, 1, 1)) && seen(image, "b") == Some((1024, 2, 2))
    };
    assert_eq!(allowed(program, second_only), [EXT4, XFS, BTRFS, NOTHING]);
}

#[test]
fn the_length_within_a_block_and_what_the_block_had() {
    let program = |model: &Model| {
        let file = model.create("a")?;
        model.write(&file, &[1; 512], 0)?;
        model.settle();
        model.write(&file, &[2; 512], 0)?;
        model.write(&file, &[3; 512], 512)
    };
    let length_only = |image: &Image| seen(image, "a") == Some((1024, 1, 0));
    assert_eq!(allowed(program, length_only), [EXT4, NOTHING]);
    // The second has its data, and needs nothing of the first.
    let second_only = |image: &Image| seen(image, "a") == Some((1024, 1, 3));
    assert_eq!(allowed(program, second_only), [EXT4, XFS, BTRFS, NOTHING]);
    // Where the block has no place yet, the length before comes first, and waits for its data.
    let program = |model: &Model| {
        let file = model.create("a")?;
        model.settle();
        model.write(&file, &[2; 512], 0)?;
        model.write(&file, &[3; 512], 512)
    };
    assert_eq!(allowed(program, |image| seen(image, "a") == Some((1024, 0, 3))), [NOTHING]);
    assert_eq!(allowed(program, |image| seen(image, "a") == Some((1024, 2, 0))), [EXT4, NOTHING]);
}

#[test]
fn what_a_truncation_took_does_not_come_back() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.truncate(&file, 0)?;
        model.truncate(&file, LEN as u64)
    };
    let wanted = [(1024, 1, 1), (0, 0, 0), (1024, 0, 0)].map(Some);
    let otherwise = |image: &Image| !wanted.contains(&seen(image, "a"));
    assert_eq!(allowed(program, otherwise), []);
    // That the medium has never had the longer length does not keep what lay there.
    let program = |model: &Model| {
        let file = model.create("a")?;
        model.write(&file, &[1; 512], 0)?;
        model.settle();
        model.write(&file, &[2; 512], 512)?;
        model.truncate(&file, 512)?;
        model.truncate(&file, 1536)
    };
    assert_eq!(allowed(program, |image| seen(image, "a") == Some((1536, 1, 0))), Profile::ALL);
    assert_eq!(allowed(program, |image| seen(image, "a") == Some((1536, 1, 2))), []);
}

#[test]
fn a_length_is_not_overtaken_by_a_later_one() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.truncate(&file, 512)?;
        model.truncate(&file, LEN as u64)?;
        model.sync_data(&file)
    };
    assert_eq!(allowed(program, |image| seen(image, "a") == Some((1024, 1, 0))), Profile::ALL);
    assert_eq!(allowed(program, |image| seen(image, "a") != Some((1024, 1, 0))), []);
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.truncate(&file, 512)?;
        model.truncate(&file, LEN as u64)
    };
    let first = |image: &Image| seen(image, "a") == Some((512, 1, 0));
    assert_eq!(allowed(program, first), Profile::ALL);
    assert_eq!(allowed(program, |image| seen(image, "a") == Some((1024, 1, 1))), Profile::ALL);
}

#[test]
fn data_of_an_old_file_and_a_name_that_it_got() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.link(&file, "b")?;
        model.write(&file, &[2; LEN], 0)
    };
    let data_only =
        |image: &Image| seen(image, "a") == Some((1024, 2, 2)) && seen(image, "b").is_none();
    assert_eq!(allowed(program, data_only), [EXT4, XFS, BTRFS, NOTHING]);
}

#[test]
fn an_fdatasync_of_a_new_file() {
    let empty = |model: &Model| {
        let file = model.create("a")?;
        model.sync_data(&file)?;
        model.sync_directory()
    };
    // It has its inode, with what the inode needs to be one.
    assert_eq!(allowed(empty, |image| seen(image, "a") != Some((0, 0, 0))), []);
    let written = |model: &Model| {
        let file = model.create("a")?;
        model.write(&file, &[2; LEN], 0)?;
        model.sync_data(&file)
    };
    assert_eq!(allowed(written, |image| seen(image, "a").is_none()), [NOTHING]);
}

#[test]
fn an_fdatasync_and_a_mode_that_no_data_needs() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.change_mode(&file, 0o640)?;
        model.write(&file, &[2; LEN], 0)?;
        model.sync_data(&file)
    };
    let old_mode = |i: &Image| matches!(i.shows("a"), Shown::File(file) if file.mode() == 0o600);
    assert_eq!(allowed(program, old_mode), [EXT4, XFS, NOTHING]);
    // A length is written with the inode, and the inode has the mode.
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.change_mode(&file, 0o640)?;
        model.truncate(&file, 512)?;
        model.sync_data(&file)
    };
    assert_eq!(allowed(program, old_mode), []);
}

#[test]
fn an_fdatasync_and_other_files() {
    let program = |model: &Model| {
        old_file(model, "a")?;
        let file = model.open("a")?;
        model.create("b")?;
        model.truncate(&file, 512)?;
        model.sync_data(&file)
    };
    assert_eq!(allowed(program, |image| seen(image, "b").is_none()), [BTRFS, NOTHING]);
}
