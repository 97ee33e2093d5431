//! The killer and the killed.

#![allow(unsafe_code)]

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapRaw;
use rustix::process::Signal;

use super::Arguments;
use super::state::{Found, Rule, State, Through, recover};

/// A kill falls at most this long after the killed process has begun to work: some thousand
/// updates of a mapping, some updates that wait for a device.
const fn delay_ns_max(through: Through) -> u64 {
    match through {
        Through::Mapping => 1_000_000,
        Through::Region => 4_000_000,
    }
}

/// One kill in so many does not wait for that: it falls into the opening.
const EARLY_KILLS: u64 = 8;

/// Memory that killer and killed share, and that is not the file under test: the killed process
/// says here how far it has come.
struct Witness {
    path: PathBuf,
    memory: MmapRaw,
}

impl Witness {
    fn create() -> Result<Self, Box<dyn Error>> {
        // On tmpfs, so that nothing of it goes to a disk.
        let path = PathBuf::from(format!("/dev/shm/survive-kill-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        file.set_len(16)?;
        Ok(Self { path, memory: MmapRaw::map_raw(&file)? })
    }

    fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self { path: path.to_owned(), memory: MmapRaw::map_raw(&file)? })
    }

    #[allow(clippy::cast_ptr_alignment)] // mappings begin at a page
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < 2);
        // SAFETY: the file has 16 bytes and is not shortened, so both words are mapped, aligned,
        // for as long as self is borrowed; every access to them is atomic.
        unsafe { &*self.memory.as_ptr().cast::<AtomicU64>().add(index) }
    }

    /// Number of the process that is at work.
    fn at_work(&self) -> &AtomicU64 {
        self.word(0)
    }

    /// Number of the last update that is finished.
    fn finished(&self) -> &AtomicU64 {
        self.word(1)
    }
}

/// Updates the state until it is killed.
pub fn worker(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    // Whatever ends the killer ends this process too.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let (number, witness) = arguments.worker.as_ref().ok_or("only the killer starts workers")?;
    let witness = Witness::open(witness)?;
    let mut state = State::open(&arguments.file, arguments.through, arguments.rule)?;
    let expected = witness.finished().load(Ordering::Acquire);
    if arguments.rule == Rule::TwoSlots && state.sequence() < expected {
        return Err(format!("update {expected} is gone, found {}", state.sequence()).into());
    }
    // What was found counts as finished: opening a region makes it durable.
    witness.finished().store(state.sequence(), Ordering::Release);
    witness.at_work().store(u64::from(*number), Ordering::Release);
    loop {
        state.update()?;
        witness.finished().store(state.sequence(), Ordering::Release);
    }
}

#[derive(Default)]
struct Tally {
    kills: u32,
    early: u32,
    interrupted: u32,
    ahead: u32,
    lost: u32,
    torn: u32,
    updates: u64,
    first_failure: Option<String>,
}

/// Kills until it has killed enough; true if nothing was lost.
pub fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let witness = Witness::create()?;
    let result = kill_all(arguments, &witness);
    fs::remove_file(&witness.path)?;
    let (tally, took) = result?;
    report(arguments, &tally, took);
    Ok(tally.lost == 0 && tally.torn == 0 && tally.kills > 0)
}

fn kill_all(arguments: &Arguments, witness: &Witness) -> Result<(Tally, Duration), Box<dyn Error>> {
    let _ = fs::remove_file(&arguments.file);
    if arguments.through == Through::Region {
        println!("{}", daxmap::probe::probe(parent_of(&arguments.file))?.verdict_sentence());
    }
    let mut tally = Tally::default();
    let mut random = fastrand::Rng::new();
    let began = Instant::now();
    for number in 1..=arguments.kills {
        if began.elapsed() > arguments.at_most {
            break;
        }
        let early = random.u64(..EARLY_KILLS) == 0;
        kill_one(arguments, witness, number, early, &mut random)?;
        tally.kills += 1;
        tally.early += u32::from(early);
        judge(arguments, witness.finished().load(Ordering::Acquire), &mut tally);
    }
    tally.updates = witness.finished().load(Ordering::Acquire);
    Ok((tally, began.elapsed()))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Starts a process, lets it run for a random time, and kills it.
fn kill_one(
    arguments: &Arguments,
    witness: &Witness,
    number: u32,
    early: bool,
    random: &mut fastrand::Rng,
) -> Result<(), Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("worker")
        .arg(&arguments.file)
        .args(["--through", &arguments.through.to_string()])
        .args(["--rule", &arguments.rule.to_string()])
        .arg("--worker")
        .arg(format!("{number}:{}", witness.path.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    while !early && witness.at_work().load(Ordering::Acquire) != u64::from(number) {
        if let Some(status) = child.try_wait()? {
            return Err(format!("process {number} ended by itself: {status}").into());
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    // Spinning, not sleeping: a sleep ends when the timer says so, not at a random instruction.
    let delay = Duration::from_nanos(random.u64(..delay_ns_max(arguments.through)));
    let until = Instant::now() + delay;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    child.kill()?;
    let status = child.wait()?;
    if status.code().is_some() {
        return Err(format!("process {number} ended by itself: {status}").into());
    }
    Ok(())
}

/// What the next opener finds must be the last finished update, or the one after it, whole.
fn judge(arguments: &Arguments, finished: u64, tally: &mut Tally) {
    if !arguments.file.exists() && finished == 0 {
        return; // killed before it had made the file
    }
    match recover(&arguments.file) {
        Ok(Found { sequence, interrupted }) => {
            tally.interrupted += u32::from(interrupted);
            tally.ahead += u32::from(sequence > finished);
            // A kill after the last store, and before the process could say so, is one ahead.
            if sequence < finished || sequence > finished + 1 {
                let failure = format!("found update {sequence}, {finished} was finished");
                tally.lost += 1;
                tally.first_failure.get_or_insert(failure);
            }
            // With one slot there is no other to use: an unfinished update is a lost state.
            if arguments.rule == Rule::InPlace && interrupted {
                tally.torn += 1;
            }
        }
        Err(error) => {
            tally.torn += 1;
            tally.first_failure.get_or_insert(error.to_string());
        }
    }
}

fn report(arguments: &Arguments, tally: &Tally, took: Duration) {
    let how = match arguments.through {
        Through::Mapping => "stores through an ordinary MAP_SHARED mapping, nothing synced",
        Through::Region => "every update persisted through the region",
    };
    let Tally { kills, early, interrupted, ahead, lost, torn, updates, .. } = tally;
    println!("{kills} kills of {} asked for, in {took:.1?}: {how}", arguments.kills);
    if *kills < arguments.kills {
        println!("  fewer than asked for: {:?} were over", arguments.at_most);
    }
    println!("  {updates} updates finished; {early} kills did not wait for the first of them");
    println!("  {interrupted} kills fell inside an update and left one slot unfinished");
    println!("  {ahead} kills fell between the end of an update and the word about it");
    println!("  {lost} finished updates lost, {torn} states torn");
    if let Some(failure) = &tally.first_failure {
        println!("  the first failure: {failure}");
    }
}
