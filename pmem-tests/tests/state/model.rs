//! What the tests store, what they do, and what may be found afterwards.

use std::mem::{self, ManuallyDrop};
use std::sync::atomic::{AtomicU32, Ordering};

use daxmap::state::{State, StateOptions};
use daxmap::{Error, ErrorKind, Region, Result};
use daxmap_sim::{History, Notes, SimRegion};
use pmem_tests::pass_on;

/// A value says which one it is, and in which version of its layout: any mixture of two is none.
pub type Value<const WORDS: usize> = [u64; WORDS];

const MASK: u64 = 0x9e37_79b9_7f4a_7c15;

pub fn value<const WORDS: usize>(generation: u64, version: u32) -> Value<WORDS> {
    let mut words = [0; WORDS];
    for (word, place) in words.iter_mut().zip(1..) {
        *word = generation.wrapping_mul(MASK.rotate_left(place)) ^ u64::from(version);
    }
    words[0] = generation;
    words
}

/// Which value of this version it is.
pub fn generation<const WORDS: usize>(words: &[u64], version: u32) -> Option<u64> {
    (words.len() == WORDS && *words == value::<WORDS>(words[0], version)).then(|| words[0])
}

fn upgrade<const WORDS: usize>(to: u32, from: u32, bytes: &[u8]) -> Option<Value<WORDS>> {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(value(generation::<WORDS>(&words, from)?, to))
}

/// What a program does with a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Store,
    /// In place every other time, as of a state that nobody shares.
    Update,
    /// The process ends without a word and is started again.
    Reopen,
    /// The state is closed and opened again.
    Close,
    /// The program is replaced by one with the next version of the value.
    Upgrade,
    /// All is made anew, over what is there.
    Format,
    /// The process is killed in a store, just before its drain, and started again.
    KilledInStore,
    /// The same in the making of a new state, before this drain.
    KilledInFormat(u32),
}

/// A step, as a mark for the notes: what it was, and the value and the version that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub what: What,
    pub version: u32,
    pub generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Format,
    Store,
    Upgrade,
    /// Opened or closed: nothing is left to heal.
    Settle,
}

impl Mark {
    pub fn encode(self) -> u64 {
        (self.what as u64) << 56 | u64::from(self.version) << 40 | self.generation
    }

    pub fn decode(mark: u64) -> Self {
        let what = [What::Format, What::Store, What::Upgrade, What::Settle][(mark >> 56) as usize];
        Self { what, version: (mark >> 40) as u32 & 0xffff, generation: mark & 0xff_ffff_ffff }
    }
}

pub fn options<const WORDS: usize>(version: u32) -> StateOptions<Value<WORDS>> {
    StateOptions::new().version(version)
}

/// For a state that is made: no two of a test have the same salt.
fn making<const WORDS: usize>(generation: u64) -> StateOptions<Value<WORDS>> {
    options(1).seed(generation)
}

pub fn upgrading<const WORDS: usize>(version: u32) -> StateOptions<Value<WORDS>> {
    options(version).upgrade(move |from, bytes| upgrade(version, from, bytes))
}

/// Runs a program: makes a state, and does these things to it.
pub fn run<const WORDS: usize>(region: &SimRegion, notes: &Notes, ops: &[Op]) -> Result<()> {
    let mut program = Program::<WORDS>::start(region, notes)?;
    ops.iter().try_for_each(|&op| program.step(op))?;
    program.state.abandon();
    Ok(())
}

struct Program<'a, const WORDS: usize> {
    region: &'a SimRegion,
    notes: &'a Notes,
    state: State<Value<WORDS>, SimRegion>,
    version: u32,
    generation: u64,
}

impl<'a, const WORDS: usize> Program<'a, WORDS> {
    fn start(region: &'a SimRegion, notes: &'a Notes) -> Result<Self> {
        let mark = Mark { what: What::Format, version: 1, generation: 1 }.encode();
        notes.begin(mark);
        let state = making(1).open_or_format(region.clone(), &value(1, 1))?;
        notes.ack(mark);
        Ok(Self { region, notes, state, version: 1, generation: 1 })
    }

    /// A program that ends drops nothing.
    fn go_on_with(&mut self, state: State<Value<WORDS>, SimRegion>) {
        mem::replace(&mut self.state, state).abandon();
    }

    fn step(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Store => self.change(|state, value| state.store(&value)),
            Op::Update => self.change(|state, new| {
                if new[0] % 2 == 0 {
                    state.update(|value| *value = new)
                } else {
                    state.update_mut(|value| *value = new)
                }
            }),
            Op::Reopen => self.noted(What::Settle, Self::reopen),
            Op::Close => self
                .noted(What::Settle, |program| {
                    // A region that is closed is so for all of its handles: what a drop does is what
                    // the closing of the state does before that.
                    let reader = options(program.version).read_only(true);
                    let reader = reader.open_region(program.region.clone())?;
                    drop(mem::replace(&mut program.state, reader));
                    // Says what the drop could not.
                    program.region.drain()
                })
                .and_then(|()| self.noted(What::Settle, Self::reopen)),
            Op::Upgrade => {
                self.version += 1;
                self.noted(What::Upgrade, Self::reopen)
            }
            Op::Format => {
                (self.generation, self.version) = (self.generation + 1, 1);
                self.noted(What::Format, |program| {
                    let new = value(program.generation, 1);
                    let made = making(program.generation).format(program.region.clone(), &new)?;
                    program.go_on_with(made);
                    Ok(())
                })
            }
            Op::KilledInStore => self.killed_in_store(),
            Op::KilledInFormat(drain) => self.killed_in_format(drain),
        }
    }

    fn noted(&mut self, what: What, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let (version, generation) = (self.version, self.generation);
        let mark = Mark { what, version, generation }.encode();
        self.notes.begin(mark);
        step(self)?;
        self.notes.ack(mark);
        Ok(())
    }

    fn change(
        &mut self,
        change: impl FnOnce(&mut State<Value<WORDS>, SimRegion>, Value<WORDS>) -> Result<()>,
    ) -> Result<()> {
        self.generation += 1;
        self.noted(What::Store, |program| {
            change(&mut program.state, value(program.generation, program.version))
        })
    }

    fn reopen(&mut self) -> Result<()> {
        let state = upgrading(self.version).open_region(self.region.clone())?;
        let found = generation::<WORDS>(&state.load(), self.version);
        assert_eq!(found, Some(self.generation), "what was acknowledged is not what is opened");
        self.go_on_with(state);
        Ok(())
    }

    /// Somebody else's stores are in the caches when the next process opens: what it finds there,
    /// it must not lose.
    fn killed_in_store(&mut self) -> Result<()> {
        self.generation += 1;
        let (version, new) = (self.version, value::<WORDS>(self.generation, self.version));
        self.noted(What::Store, |program| {
            killed(program.region, 1, move |region| {
                let state = options(version).open_region(region);
                let state = ManuallyDrop::new(state?);
                state.region().arm();
                state.store(&new)
            });
            program.reopen()
        })
    }

    /// The same of what somebody else has erased or made.
    fn killed_in_format(&mut self, drain: u32) -> Result<()> {
        (self.generation, self.version) = (self.generation + 1, 1);
        let (salt, new) = (self.generation, value::<WORDS>(self.generation, 1));
        self.noted(What::Format, |program| {
            killed(program.region, drain, move |region| {
                region.arm();
                making(salt).format(region, &new).map(State::abandon)
            });
            // Another salt than the one that was killed.
            let made = making(salt + 1000).open_or_format(program.region.clone(), &new)?;
            let found = generation::<WORDS>(&made.load(), 1);
            assert_eq!(found, Some(program.generation), "neither made nor blank");
            program.go_on_with(made);
            Ok(())
        })
    }
}

/// Runs a process that comes as far as this drain.
fn killed(
    region: &SimRegion,
    drain: u32,
    process: impl FnOnce(Mortal) -> Result<()> + Send + 'static,
) {
    let mortal = Mortal { region: region.clone(), drains: AtomicU32::new(u32::MAX), drain };
    // A thread of its own: the model knows whose stores a drain waits for.
    let thread = std::thread::spawn(move || process(mortal));
    let ended = thread.join().expect("the process does not panic");
    assert!(ended.is_err(), "it was not killed: it has fewer drains than {drain}");
}

/// A region whose user is killed at a drain: it fails, and was never begun.
pub struct Mortal {
    region: SimRegion,
    /// Drains left; none are counted before it is armed.
    drains: AtomicU32,
    drain: u32,
}

impl Mortal {
    fn arm(&self) {
        self.drains.store(self.drain, Ordering::Relaxed);
    }

    fn death(&self) -> Error {
        // Any error ends a program that passes it on.
        self.region.load_u64(u64::MAX).expect_err("no such word")
    }
}

impl Region for Mortal {
    pass_on!(region: sync_all len durability granularity backend is_emulated read write write_flush
        fill_flush flush deep_flush load_u64 store_u64 compare_exchange_u64 grow close slices);

    fn drain(&self) -> Result<()> {
        if self.drains.load(Ordering::Relaxed) == u32::MAX {
            return self.region.drain();
        }
        if self.drains.fetch_sub(1, Ordering::Relaxed) <= 1 {
            self.drains.store(1, Ordering::Relaxed);
            return Err(self.death());
        }
        self.region.drain()
    }
}

/// Opens what a crash left, as the program would that ran then, and says what is wrong. Where
/// there is nothing yet, it is made if `MAKE`: for explorations without crashes of that, which
/// would be those of any making once more.
pub fn check<const WORDS: usize, const MAKE: bool>(
    region: &SimRegion,
    history: &History,
) -> std::result::Result<(), String> {
    let acked = history.acked().last().map(|&mark| Mark::decode(mark));
    let pending = (history.begun().len() > history.acked().len())
        .then(|| history.last_begun().map(Mark::decode))
        .flatten();
    let newest = pending.or(acked);
    let Some(newest) = newest else {
        let found = options::<WORDS>(1).open_region(region.clone());
        return if found.is_err() { Ok(()) } else { Err("a state out of nothing".to_owned()) };
    };
    let may_be_blank = acked.is_none() || newest.what == What::Format;
    // A format goes from any version to the first.
    let version = acked.map_or(1, |acked| acked.version.max(newest.version));
    let opened = upgrading::<WORDS>(version).open_region(region.clone());
    let state = match opened {
        Ok(state) => state,
        Err(error) if may_be_blank => {
            return half_formatted::<WORDS, MAKE>(region, &error, pending, newest);
        }
        Err(error) => return Err(format!("{error}; acknowledged {acked:?}, begun {pending:?}")),
    };
    let found = generation::<WORDS>(&state.load(), version);
    let Some(found) = found else { return Err(format!("torn: {:?}", state.load())) };
    history.recovered(&(found, state.recovery().sequence, state.recovery().upgraded_from));
    let expected = [acked, Some(newest)].into_iter().flatten();
    if !expected.clone().any(|mark| mark.generation == found) {
        return Err(format!("value {found}; acknowledged {acked:?}, begun {pending:?}"));
    }
    recovered_as_promised(&state, acked, pending)
}

fn recovered_as_promised<const WORDS: usize>(
    state: &State<Value<WORDS>, SimRegion>,
    acked: Option<Mark>,
    pending: Option<Mark>,
) -> std::result::Result<(), String> {
    let recovery = state.recovery();
    let wrong = |what: &str| Err(format!("{what}: {recovery:?}, after {acked:?}, {pending:?}"));
    match (acked, pending) {
        (Some(_), None) if recovery.header_invalid => wrong("a copy of the header is missing"),
        (Some(Mark { what: What::Settle | What::Upgrade | What::Format, .. }), None)
            // A crash of an opening leaves a slot of its mark torn.
            if !recovery.clean && !recovery.mark_invalid =>
        {
            wrong("not settled")
        }
        (Some(Mark { what: What::Upgrade, .. }), None) if recovery.upgraded_from.is_some() => {
            wrong("an upgrade was lost")
        }
        _ => Ok(()),
    }
}

/// A format was begun: there may be nothing, and then it can be done again.
fn half_formatted<const WORDS: usize, const MAKE: bool>(
    region: &SimRegion,
    error: &Error,
    pending: Option<Mark>,
    newest: Mark,
) -> std::result::Result<(), String> {
    if pending.is_none() {
        return Err(format!("{error}; acknowledged {newest:?}"));
    }
    if !MAKE {
        let blank = matches!(error.kind(), ErrorKind::WrongFormat(_));
        return if blank { Ok(()) } else { Err(error.to_string()) };
    }
    let new = value::<WORDS>(newest.generation, 1);
    match making::<WORDS>(newest.generation + 2000).open_or_format(region.clone(), &new) {
        Ok(state) if state.load() == new => Ok(()),
        Ok(state) => Err(format!("blank, and then {:?}", state.load())),
        Err(again) => Err(format!("{error}, and then {again}")),
    }
}
