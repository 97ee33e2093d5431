//! The process that works, the one that kills it, and the one that looks at the file meanwhile.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel;
use rustix::process::Signal;

use super::Arguments;
use super::working_set::{Mode, WorkingSet, inspect};

/// Of a new process, so many checkpoints are waited for at most before the kill.
const CHECKPOINTS_MAX: u64 = 4;
/// One kill in so many waits for none: it falls into the start.
const EARLY_KILLS: u64 = 8;
/// A process that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Transfers between two checkpoints, at most.
const TRANSFERS_MAX: usize = 2000;
/// In one of so many transfers the kernel writes everything back, in the middle of it.
const WRITE_BACKS: usize = 500;

/// Moves money and takes checkpoints until it is killed. Says "asked N" before a checkpoint and
/// "done N MICROSECONDS" after it.
pub fn worker(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    // Whatever ends the killer ends this process too.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let bytes = (arguments.kib << 10) as usize;
    let mut set = WorkingSet::open(&arguments.file, arguments.mode, bytes)?;
    let mut random = fastrand::Rng::new();
    let mut says = std::io::stdout();
    writeln!(says, "done {} 0", set.number())?;
    loop {
        for _ in 0..random.usize(..TRANSFERS_MAX) {
            let (from, to) = (random.usize(..set.accounts()), random.usize(..set.accounts()));
            let amount = random.u64(1..100);
            set.add(from, amount.wrapping_neg());
            if random.usize(..WRITE_BACKS) == 0 {
                set.write_back()?; // now, when the sum is wrong
            }
            set.add(to, amount);
        }
        let number = set.number() + 1;
        writeln!(says, "asked {number}")?;
        let began = Instant::now();
        set.checkpoint()?;
        writeln!(says, "done {number} {}", began.elapsed().as_micros())?;
    }
}

#[derive(Default)]
struct Tally {
    kills: u32,
    /// Checkpoints the process said were done.
    checkpoints: u64,
    /// Kills after which the file held the checkpoint that had been asked for and not confirmed.
    ahead: u32,
    times_us: Vec<u64>,
    failures: Vec<String>,
}

/// Kills often enough; true if the file was always a complete checkpoint.
pub fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let _ = fs::remove_file(&arguments.file);
    let over = AtomicBool::new(false);
    let (tally, looks) = thread::scope(|scope| {
        let looking = scope.spawn(|| look(&arguments.file, &over));
        let tally = kill_all(arguments);
        over.store(true, Ordering::Relaxed);
        (tally, looking.join())
    });
    let looks = looks.map_err(|_| "the observer panicked")?;
    let mut tally = tally?;
    report(arguments, &mut tally, &looks);
    Ok(tally.failures.is_empty() && looks.failures.is_empty() && looks.times > 0)
}

#[derive(Default)]
struct Looks {
    times: u64,
    changes: u64,
    bad: u64,
    failures: Vec<String>,
}

/// Opens and reads the file again and again: each time it must be a complete checkpoint, and
/// never an older one than before.
fn look(path: &Path, over: &AtomicBool) -> Looks {
    let mut seen = Looks::default();
    let mut newest = 0;
    while !over.load(Ordering::Relaxed) {
        let Ok(bytes) = fs::read(path) else {
            thread::yield_now(); // the first checkpoint is not there yet
            continue;
        };
        seen.times += 1;
        let found = inspect(&bytes).and_then(|number| {
            if number < newest { Err(format!("{number} after {newest}")) } else { Ok(number) }
        });
        match found {
            Ok(number) => {
                seen.changes += u64::from(number != newest);
                newest = number;
            }
            Err(failure) => {
                seen.bad += 1;
                if seen.failures.is_empty() {
                    seen.failures.push(failure);
                }
            }
        }
    }
    seen
}

fn kill_all(arguments: &Arguments) -> Result<Tally, Box<dyn Error>> {
    let mut tally = Tally::default();
    let mut random = fastrand::Rng::new();
    // Number of the newest checkpoint that any process confirmed.
    let mut done = 0;
    for _ in 0..arguments.kills {
        let heard = kill_one(arguments, &tally, &mut random)?;
        tally.kills += 1;
        done = done.max(heard.done);
        tally.checkpoints += heard.times_us.len() as u64;
        tally.times_us.extend(heard.times_us);
        match fs::read(&arguments.file).ok().map(|bytes| inspect(&bytes)) {
            None if done == 0 => {} // killed before the first checkpoint
            None => tally.failures.push("the file is gone".to_owned()),
            Some(Err(failure)) => tally.failures.push(format!("after a kill: {failure}")),
            Some(Ok(number)) => {
                // Asked for and not confirmed: may be there or not. The first is not asked for.
                let next = done + 1;
                let ahead = number == next && (heard.asked == next || done == 0);
                tally.ahead += u32::from(ahead);
                if number != done && !ahead {
                    tally.failures.push(format!("after a kill: {number}, confirmed was {done}"));
                }
                done = number; // the next process goes on from there
            }
        }
    }
    Ok(tally)
}

/// Starts a process, kills it at a random moment, and returns what it had said until then.
fn kill_one(
    arguments: &Arguments,
    tally: &Tally,
    random: &mut fastrand::Rng,
) -> Result<Heard, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(&arguments.file).arg("--worker").args(["--kib", &arguments.kib.to_string()]);
    if arguments.mode == Mode::Shared {
        command.arg("--shared");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or("no pipe")?;
    let (sender, lines) = channel::unbounded();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let mut heard = Heard::default();
    let early = random.u64(..EARLY_KILLS) == 0;
    let wanted = if early { 0 } else { random.u64(1..=CHECKPOINTS_MAX) };
    while heard.confirmed < wanted {
        let line = lines.recv_timeout(PATIENCE);
        heard.hear(&line.map_err(|_| format!("the process hangs or has ended: {child:?}"))?);
    }
    // Some way into the next checkpoint, or past it.
    let usual_us = tally.times_us.last().copied().unwrap_or(5000);
    thread::sleep(Duration::from_micros(random.u64(..usual_us * 3 / 2)));
    child.kill()?;
    let status = child.wait()?;
    if status.code().is_some() {
        return Err(format!("the process ended by itself: {status}").into());
    }
    // What it said before it died is still in the pipe; the end of that ends the channel.
    lines.iter().for_each(|line| heard.hear(&line));
    Ok(heard)
}

/// What one process said.
#[derive(Default)]
struct Heard {
    asked: u64,
    done: u64,
    confirmed: u64,
    times_us: Vec<u64>,
}

impl Heard {
    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let what = words.next();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        match (what, number()) {
            (Some("asked"), Some(asked)) => self.asked = asked,
            (Some("done"), Some(done)) => {
                self.done = done;
                self.confirmed += 1;
                // 0: found at the start, not taken.
                self.times_us.extend(number().filter(|us| *us > 0));
            }
            _ => {}
        }
    }
}

fn report(arguments: &Arguments, tally: &mut Tally, looks: &Looks) {
    let how = match arguments.mode {
        Mode::Private => "MAP_PRIVATE, a checkpoint replaces the file",
        Mode::Shared => "MAP_SHARED, a checkpoint is an msync",
    };
    println!("{} kills of {} asked for; {how}", tally.kills, arguments.kills);
    println!("  {} checkpoints of {} KiB confirmed", tally.checkpoints, arguments.kib);
    println!("  {} kills left a checkpoint that was asked for and not confirmed", tally.ahead);
    tally.times_us.sort_unstable();
    // QEMU without hardware virtualisation names itself so; its times are not those of any hardware.
    let emulated = fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains("QEMU TCG"));
    if let Some(longest) = tally.times_us.last().filter(|_| !emulated) {
        let median = tally.times_us[tally.times_us.len() / 2];
        println!("  a checkpoint took {median} us in the median, {longest} us at most");
    }
    println!(
        "  the file was looked at {} times and had changed {} times",
        looks.times, looks.changes
    );
    println!("  {} looks found something else than a complete checkpoint", looks.bad);
    println!("  {} kills left something else than the newest checkpoint", tally.failures.len());
    for failure in looks.failures.first().into_iter().chain(tally.failures.first()) {
        println!("  for example: {failure}");
    }
}
