//! One crash image after another, decided line by line as recovery asks.
//!
//! A line that recovery touches, and that had pending stores when the crash came, is a
//! [`Decision`]: how far did each of its chains get? Decisions are a stack in the order of the
//! first touch. The next image changes the last decision that has something left and forgets
//! those after it, so that recovery, run again, meets them anew: a depth-first search that never
//! enumerates a line that nobody reads.

use super::Mode;
use super::model::{Model, Store, put};
use super::random::mix;

/// One pending store, as part of a decision.
#[derive(Clone, Copy, Debug)]
struct Piece {
    value: u64,
    op: u32,
    /// Index among the decision's chains.
    chain: u32,
    /// The piece is there if its chain got further than this.
    step: u32,
    word: u8,
    mask: u8,
}

/// Stores that reach the medium in their order: any prefix of them may be there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    pub(super) steps: u32,
    pub(super) position: u32,
}

/// A line whose content the crash left open.
#[derive(Clone, Copy, Debug)]
struct Decision {
    line: u32,
    /// How many crashes before the last one left it open.
    hops: u8,
    /// Where its part of each arena starts.
    pieces: u32,
    chains: u32,
    base: u32,
}

/// Which content a line gets when it is touched first.
#[derive(Clone, Debug)]
pub(super) enum Policy {
    /// Nothing of it at first; then, one by one, everything it may hold.
    Search,
    /// Nothing that is not surely durable.
    Nothing,
    /// Everything.
    Everything,
    /// Nothing of any line but this one.
    Alone(u32),
    /// Everything but this line.
    Missing(u32),
    /// What was stored up to this operation.
    UpTo(u32),
    /// What the seed says.
    Sample(u64),
    /// These lines as far as given, everything of the others.
    Fixed(Vec<(u32, Vec<u32>)>),
}

/// What became of one pending store in an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    pub(super) line: u32,
    /// How many crashes before the last one left it open.
    pub(super) hops: u8,
    pub(super) op: u32,
    pub(super) kept: bool,
}

/// The content of a region after a crash, as far as it is decided.
pub(super) struct Image {
    pub(super) policy: Policy,
    /// Length of the region in this image, in bytes.
    pub(super) len: u64,
    /// `epoch`: the line's memory is valid. `epoch - 1`: it is, and this run has not touched it.
    mark: Vec<u32>,
    epoch: u32,
    decisions: Vec<Decision>,
    pieces: Vec<Piece>,
    chains: Vec<Chain>,
    bases: Vec<u8>,
    /// How many of the decisions this run has touched.
    reached: usize,
    /// The decision that differs from the run before; none in the first run.
    changed: Option<usize>,
    /// Of each word of the line being decided: the bytes stored to, and those stored to twice.
    covered: [(u8, u8); 64],
}

impl Image {
    pub(super) fn new(lines: usize) -> Self {
        Self {
            policy: Policy::Search,
            len: 0,
            mark: vec![0; lines],
            epoch: 2,
            decisions: Vec::new(),
            pieces: Vec::new(),
            chains: Vec::new(),
            bases: Vec::new(),
            reached: 0,
            changed: None,
            covered: [(0, 0); 64],
        }
    }

    /// Starts on the images of another crash.
    pub(super) fn begin(&mut self, len: u64, policy: Policy) {
        if self.epoch >= u32::MAX - 2 {
            self.mark.fill(0);
            self.epoch = 0;
        }
        self.epoch += 2;
        self.len = len;
        self.policy = policy;
        self.decisions.clear();
        self.pieces.clear();
        self.chains.clear();
        self.bases.clear();
        self.reached = 0;
        self.changed = None;
    }

    /// True if the line's memory is valid and this run has touched it.
    #[inline]
    pub(super) fn is_touched(&self, line: usize) -> bool {
        self.mark[line] == self.epoch
    }

    /// True if the run so far is that of the image before, so that nothing new can be seen yet.
    pub(super) fn is_repeating(&self) -> bool {
        self.changed.is_some_and(|changed| self.reached <= changed)
    }

    /// True if the line is decided already and has only not been touched in this run.
    pub(super) fn take_prepared(&mut self, line: usize) -> bool {
        let prepared = self.mark[line] == self.epoch - 1;
        if prepared {
            self.mark[line] = self.epoch;
            self.reached += 1;
        }
        prepared
    }

    /// The line's content is what `memory` now holds, durable beyond doubt or decided.
    pub(super) fn set_touched(&mut self, line: usize) {
        self.mark[line] = self.epoch;
    }

    /// Decides a line: `memory` holds its durable bytes, `pending` its stores, oldest first. What
    /// they put past `room`, where the region ends, does not count.
    pub(super) fn decide<'a>(
        &mut self,
        mode: Mode,
        (line, hops): (usize, u8),
        room: u64,
        memory: &mut [u8],
        pending: impl Iterator<Item = &'a Store> + Clone,
    ) {
        self.set_touched(line);
        let pending = pending.map(move |store| inside(store, room));
        for store in pending.clone() {
            let (once, twice) = &mut self.covered[usize::from(store.word)];
            *twice |= *once & store.mask;
            *once |= store.mask;
        }
        let decision = Decision {
            line: line as u32,
            hops,
            pieces: self.pieces.len() as u32,
            chains: self.chains.len() as u32,
            base: self.bases.len() as u32,
        };
        for store in pending.clone() {
            // A store that changes nothing, whatever becomes of the others, is no choice.
            let (_, twice) = self.covered[usize::from(store.word)];
            if twice & store.mask != 0 || changes(memory, &store) {
                self.add(mode, &decision, &store);
            }
        }
        for store in pending {
            self.covered[usize::from(store.word)] = (0, 0);
        }
        if self.pieces.len() == decision.pieces as usize {
            return;
        }
        self.bases.extend_from_slice(memory);
        self.decisions.push(decision);
        self.reached += 1;
        let index = self.decisions.len() - 1;
        self.apply_policy(index);
        self.rebuild(index, memory);
    }

    /// Adds a store to the chain it follows in.
    fn add(&mut self, mode: Mode, decision: &Decision, store: &Store) {
        let earlier = &self.pieces[decision.pieces as usize..];
        let ordered = !store.streamed && mode != Mode::TornWords;
        // In the list of a line, order is kept between all its cached stores. Any subset of the
        // others may be there; but of two to the same word, the later one whole, "both" and "the
        // later one" look the same, so that a prefix says it all.
        let before = earlier.iter().rev().find(|piece| {
            if ordered {
                self.is_ordered(decision, piece.chain)
            } else {
                store.mask == 0xFF
                    && piece.word == store.word
                    && !self.is_ordered(decision, piece.chain)
            }
        });
        let (chain, step) = match before {
            // One write to a sector is one version of it.
            Some(piece) if mode == Mode::PageCache && piece.op == store.op => {
                (piece.chain, piece.step)
            }
            Some(piece) => (piece.chain, piece.step + 1),
            None => {
                // The top bit of `position` marks the ordered chain until it is decided.
                let position = if ordered { ORDERED } else { 0 };
                self.chains.push(Chain { steps: 0, position });
                (self.chains.len() as u32 - decision.chains - 1, 0)
            }
        };
        self.chains[(decision.chains + chain) as usize].steps = step + 1;
        let Store { value, op, word, mask, .. } = *store;
        self.pieces.push(Piece { value, op, chain, step, word, mask });
    }

    fn is_ordered(&self, decision: &Decision, chain: u32) -> bool {
        self.chains[(decision.chains + chain) as usize].position == ORDERED
    }

    fn parts(&self, index: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let this = &self.decisions[index];
        let (pieces_end, chains_end) = match self.decisions.get(index + 1) {
            Some(next) => (next.pieces as usize, next.chains as usize),
            None => (self.pieces.len(), self.chains.len()),
        };
        (this.pieces as usize..pieces_end, this.chains as usize..chains_end)
    }

    fn apply_policy(&mut self, index: usize) {
        let (pieces, chains) = self.parts(index);
        let line = self.decisions[index].line;
        let all = match &self.policy {
            Policy::Search | Policy::Nothing => false,
            Policy::Everything => true,
            Policy::Alone(alone) => *alone == line,
            Policy::Missing(missing) => *missing != line,
            Policy::UpTo(op) => {
                for chain in &mut self.chains[chains.clone()] {
                    chain.position = 0;
                }
                for piece in &self.pieces[pieces] {
                    if piece.op <= *op {
                        self.chains[chains.start + piece.chain as usize].position = piece.step + 1;
                    }
                }
                return;
            }
            Policy::Sample(seed) => {
                sample(mix(*seed ^ mix(u64::from(line))), &mut self.chains[chains]);
                return;
            }
            Policy::Fixed(fixed) => {
                if let Some((_, positions)) = fixed.iter().find(|(of, _)| *of == line) {
                    let chains = self.chains[chains].iter_mut();
                    chains
                        .zip(positions)
                        .for_each(|(chain, &to)| chain.position = to.min(chain.steps));
                    return;
                }
                true
            }
        };
        for chain in &mut self.chains[chains] {
            chain.position = if all { chain.steps } else { 0 };
        }
    }

    /// Puts the decided content of a line into its memory.
    pub(super) fn rebuild(&self, index: usize, memory: &mut [u8]) {
        let (pieces, chains) = self.parts(index);
        let base = self.decisions[index].base as usize;
        memory.copy_from_slice(&self.bases[base..base + memory.len()]);
        let chains = &self.chains[chains];
        for piece in &self.pieces[pieces] {
            if piece.step < chains[piece.chain as usize].position {
                put(memory, piece.word, piece.mask, piece.value);
            }
        }
    }

    /// Goes on to the next image of this crash; false if there is none. The memory of the lines
    /// that `model` was made to store to is made what it was.
    pub(super) fn advance(&mut self, model: &mut Model) -> bool {
        self.undo(model);
        while let Some(index) = self.decisions.len().checked_sub(1) {
            let (_, chains) = self.parts(index);
            let moved = self.chains[chains].iter_mut().any(|chain| {
                let more = chain.position < chain.steps;
                chain.position = if more { chain.position + 1 } else { 0 };
                more
            });
            if moved {
                let line = self.decisions[index].line as usize;
                let range = model.line_range(line);
                self.rebuild(index, &mut model.memory[range]);
                self.changed = Some(index);
                self.prepare(model);
                return true;
            }
            let done = self.decisions[index];
            self.mark[done.line as usize] = 0;
            self.pieces.truncate(done.pieces as usize);
            self.chains.truncate(done.chains as usize);
            self.bases.truncate(done.base as usize);
            self.decisions.pop();
        }
        false
    }

    /// Starts over with another policy.
    pub(super) fn restart(&mut self, model: &mut Model, policy: Policy) {
        self.undo(model);
        for decision in &self.decisions {
            self.mark[decision.line as usize] = 0;
        }
        let (len, epoch) = (self.len, self.epoch);
        // Lines without a choice stay as they are.
        self.begin(len, policy);
        self.epoch = epoch;
    }

    /// Unmarks what recovery stored to.
    fn undo(&mut self, model: &mut Model) {
        for &line in &model.stored {
            self.mark[line as usize] = 0;
        }
        model.forget();
    }

    /// Marks every decision as not yet touched in the run to come.
    fn prepare(&mut self, model: &mut Model) {
        self.reached = 0;
        for index in 0..self.decisions.len() {
            let line = self.decisions[index].line as usize;
            if self.mark[line] == 0 {
                let range = model.line_range(line);
                self.rebuild(index, &mut model.memory[range]);
            }
            self.mark[line] = self.epoch - 1;
        }
    }

    /// The lines that this run touched and of which the image lost something, with how far each
    /// chain got.
    pub(super) fn lost(&self) -> Vec<(u32, Vec<u32>)> {
        (0..self.reached.min(self.decisions.len()))
            .map(|index| (self.decisions[index].line, &self.chains[self.parts(index).1]))
            .filter(|(_, chains)| chains.iter().any(|chain| chain.position < chain.steps))
            .map(|(line, chains)| (line, chains.iter().map(|chain| chain.position).collect()))
            .collect()
    }

    /// What became of each store that this run could see.
    pub(super) fn fates(&self) -> Vec<Fate> {
        let mut fates = Vec::new();
        for index in 0..self.reached.min(self.decisions.len()) {
            let (pieces, chains) = self.parts(index);
            let Decision { line, hops, .. } = self.decisions[index];
            fates.extend(self.pieces[pieces].iter().map(|piece| {
                let position = self.chains[chains.start + piece.chain as usize].position;
                Fate { line, hops, op: piece.op, kept: piece.step < position }
            }));
        }
        fates
    }
}

/// No chain is this long.
const ORDERED: u32 = u32::MAX;

/// The store, without its bytes past the end of a region that ends `room` bytes into the line.
fn inside(store: &Store, room: u64) -> Store {
    let room = room.saturating_sub(u64::from(store.word) * 8).min(8);
    Store { mask: store.mask & ((1_u16 << room) - 1) as u8, ..*store }
}

/// True if the store's bytes differ from what is there.
fn changes(memory: &[u8], store: &Store) -> bool {
    let at = usize::from(store.word) * 8;
    let mut word = [0; 8];
    word.copy_from_slice(&memory[at..at + 8]);
    (u64::from_le_bytes(word) ^ store.value) & super::model::bits(store.mask) != 0
}

/// A quarter of the lines whole, a quarter not at all, the others anyhow.
fn sample(seed: u64, chains: &mut [Chain]) {
    for (index, chain) in chains.iter_mut().enumerate() {
        chain.position = match seed & 3 {
            0 => 0,
            1 => chain.steps,
            _ => (mix(seed ^ (index as u64) << 32) % (u64::from(chain.steps) + 1)) as u32,
        };
    }
}
