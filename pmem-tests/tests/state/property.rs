//! Any list of stores beside a model: power cuts and kills, between stores and in them, openings,
//! upgrades. `DAXMAP_PROPERTY_CASES` is the number of lists, 2000 unless given.

use std::mem::{self, forget};
use std::sync::Arc;

use daxmap::state::{State, region_bytes};
use daxmap_sim::{Mode, SimRegion};
use pmem_tests::killed::Killed;
use pmem_tests::long_run::setting;
use proptest::prelude::*;

use crate::model::{Value, generation, options, upgrading, value};

type Memory = Arc<Killed<SimRegion>>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Store,
    Update,
    UpdateMut,
    /// The state is closed and opened again.
    Close,
    /// The process is killed between stores, and another comes.
    Kill,
    /// The power goes between stores.
    Cut {
        seed: u64,
    },
    /// The process is killed in a store or, if there is one, in the opening that comes before it: before
    /// it has drained once more than `drains` times. Then the power goes, or only another process comes.
    KilledIn {
        opening: bool,
        drains: u32,
        power: Option<u64>,
    },
    /// Another process comes, whose program has the next version of the value.
    Upgrade,
}

fn step() -> impl Strategy<Value = Step> {
    let killed = (any::<bool>(), 0_u32..3, prop::option::of(any::<u64>()));
    prop_oneof![
        4 => Just(Step::Store),
        2 => Just(Step::Update),
        2 => Just(Step::UpdateMut),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(|seed| Step::Cut { seed }),
        4 => killed.prop_map(|(opening, drains, power)| Step::KilledIn { opening, drains, power }),
        1 => Just(Step::Upgrade),
    ]
}

struct Machine<const WORDS: usize> {
    memory: SimRegion,
    region: Memory,
    state: State<Value<WORDS>, Memory>,
    version: u32,
    /// Number of the value.
    now: u64,
}

fn opened<const WORDS: usize>(region: &Memory, version: u32) -> State<Value<WORDS>, Memory> {
    upgrading(version).open_region(Arc::clone(region)).expect("it opens")
}

impl<const WORDS: usize> Machine<WORDS> {
    fn new(mode: Mode) -> Self {
        let len = region_bytes(size_of::<Value<WORDS>>() as u32);
        let memory = SimRegion::new(mode, len, len);
        let region = Arc::new(Killed::before_drain(memory.clone(), u32::MAX));
        let state =
            options(1).seed(5).format(Arc::clone(&region), &value(1, 1)).expect("nothing crashes");
        Self { memory, region, state, version: 1, now: 1 }
    }

    /// The next process, after a power cut or a kill. It finds the value that was, or the one that was
    /// on its way.
    fn next(&mut self, on_its_way: u64, power: Option<u64>) {
        if let Some(seed) = power {
            self.memory = self.memory.crash(seed);
        }
        self.region = Arc::new(Killed::before_drain(self.memory.clone(), u32::MAX));
        let next = opened(&self.region, self.version);
        forget(mem::replace(&mut self.state, next));
        let found = generation::<WORDS>(&self.state.load(), self.version);
        assert!(
            found == Some(self.now) || found == Some(on_its_way),
            "{found:?}, not {}",
            self.now
        );
        self.now = found.unwrap_or(0);
    }

    fn change(&mut self, step: Step, new: u64) -> daxmap::Result<()> {
        let new = value(new, self.version);
        match step {
            Step::Update => self.state.update(|value| *value = new),
            Step::UpdateMut => self.state.update_mut(|value| *value = new),
            Step::KilledIn { drains: 1, .. } => self.state.update_mut(|value| *value = new),
            _ => self.state.store(&new),
        }
    }

    fn step(mut self, step: Step) -> Self {
        let new = self.now + 1;
        match step {
            Step::Store | Step::Update | Step::UpdateMut => {
                self.change(step, new).expect("nothing fails");
                self.now = new;
            }
            Step::Close => {
                let next = opened(&self.region, self.version);
                drop(mem::replace(&mut self.state, next));
            }
            Step::Kill => self.next(self.now, None),
            Step::Cut { seed } => self.next(self.now, Some(seed)),
            Step::KilledIn { opening, drains, power } => {
                self.region.kill_after(drains);
                // A thread of its own: the model knows whose stores a drain waits for.
                let machine = &mut self;
                let done = std::thread::scope(|scope| {
                    let process = scope.spawn(|| {
                        if opening {
                            let options = upgrading::<WORDS>(machine.version);
                            let state = options.open_region(Arc::clone(&machine.region))?;
                            forget(mem::replace(&mut machine.state, state));
                        }
                        machine.change(step, new)
                    });
                    process.join().expect("it does not panic")
                });
                if done.is_ok() && !self.region.is_killed() {
                    self.now = new;
                    self.region.kill_after(u32::MAX);
                } else {
                    self.next(new, power);
                }
            }
            Step::Upgrade => {
                self.version += 1;
                self.next(self.now, None);
            }
        }
        assert_eq!(generation::<WORDS>(&self.state.load(), self.version), Some(self.now));
        self
    }
}

fn check<const WORDS: usize>(mode: Mode, steps: &[Step]) {
    let machine =
        steps.iter().fold(Machine::<WORDS>::new(mode), |machine, &step| machine.step(step));
    forget(machine.state);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: setting("DAXMAP_PROPERTY_CASES", 2000) as u32, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn it_holds_what_the_model_holds(
        mode in prop::sample::select(Mode::ALL.to_vec()),
        long in any::<bool>(),
        steps in prop::collection::vec(step(), 0..30),
    ) {
        if long { check::<200>(mode, &steps) } else { check::<9>(mode, &steps) }
    }
}
