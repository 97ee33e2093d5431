//! Competitors side by side: short batches in turn, many rounds, medians.
//!
//! Criterion measures one function for seconds, then the next one. On a machine that does other
//! things too, the seconds differ by more than the 2 % that are to be told apart. Here every
//! round gives each competitor one batch, in an order that changes from round to round, and a
//! ratio is the median over the rounds of the ratio *within* a round: what disturbs a whole round
//! disturbs both sides of it.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Runs `ops` operations, the first at `start`, the others at the group's stride after it.
type Batch<'a> = Box<dyn FnMut(usize, usize) + 'a>;

pub struct Competitor<'a> {
    name: String,
    batch: Batch<'a>,
}

impl<'a> Competitor<'a> {
    pub fn new(name: impl Into<String>, batch: impl FnMut(usize, usize) + 'a) -> Self {
        Self { name: name.into(), batch: Box::new(batch) }
    }
}

/// Where the batches of a group go.
#[derive(Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    /// Operations in a batch.
    pub ops: usize,
    /// Bytes from one operation to the next; 0 keeps a batch on the same lines.
    pub stride: usize,
    /// Bytes that one operation touches.
    pub len: usize,
    /// Bytes to move through, so that lines are long out of the caches when they come round.
    pub span: usize,
}

/// Nanoseconds per operation, one value per round and competitor.
pub struct Outcome {
    names: Vec<String>,
    samples: Vec<Vec<f64>>,
}

/// Median and quartiles.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub q1: f64,
    pub q3: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |quarter: usize| sorted[(sorted.len() - 1) * quarter / 4];
        Self { median: at(2), q1: at(1), q3: at(3) }
    }
}

/// The second measurement of a group's first competitor.
pub const CONTROL: &str = "A/A";
/// What the control may differ by: more, and the figures of the group are not to be trusted.
pub const CONTROL_MAX: f64 = 0.03;

/// Runs the group. The first rounds warm up and are not kept. In each round the first competitor runs
/// twice; what the second run differs by, everybody may.
#[allow(clippy::cast_precision_loss)] // batch sizes and nanoseconds, far below 2^52
pub fn run(plan: Plan, competitors: &mut [Competitor<'_>]) -> Outcome {
    const WARM_UP: usize = 3;
    const DEPTH_MAX: usize = 64;
    let count = competitors.len() + 1;
    let mut samples = vec![Vec::with_capacity(plan.rounds); count];
    let batch_bytes = plan.ops.saturating_sub(1) * plan.stride + plan.len;
    assert!(batch_bytes <= plan.span, "a batch must fit the span");
    let mut start = 0;
    let mut order: Vec<usize> = (0..count).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..plan.rounds + WARM_UP {
        shuffle(&mut order, &mut random);
        for &index in &order {
            if start + batch_bytes > plan.span {
                start = 0;
            }
            let depth = (random >> 40) as usize % DEPTH_MAX;
            let elapsed = at_depth(depth, &mut || {
                let begin = Instant::now();
                (competitors[index % (count - 1)].batch)(start, plan.ops);
                begin.elapsed()
            });
            if round >= WARM_UP {
                samples[index].push(elapsed.as_nanos() as f64 / plan.ops as f64);
            }
            start += batch_bytes.next_multiple_of(64);
        }
    }
    let names = competitors.iter().map(|c| c.name.clone());
    Outcome { names: names.chain([CONTROL.to_owned()]).collect(), samples }
}

/// Runs `batch` this many frames deeper on the stack. Where the stack happens to lie, which
/// differs from process to process, makes a call up to 10 ns dearer on some processors: over many
/// rounds everybody gets every place.
#[inline(never)]
fn at_depth(depth: usize, batch: &mut dyn FnMut() -> Duration) -> Duration {
    let frame = black_box([0_u8; 24]);
    let elapsed = if depth == 0 { batch() } else { at_depth(depth - 1, batch) };
    black_box(&frame);
    elapsed
}

/// Everybody follows everybody equally often: what one batch leaves behind (lines on their way to
/// memory) must not always burden the same next one. Fisher and Yates, with xorshift.
fn shuffle(order: &mut [usize], random: &mut u64) {
    for last in (1..order.len()).rev() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        order.swap(last, (*random % (last as u64 + 1)) as usize);
    }
}

impl Outcome {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Adds the rounds of another run of the same group.
    pub fn extend(&mut self, other: Self) {
        assert_eq!(self.names, other.names);
        for (samples, more) in self.samples.iter_mut().zip(other.samples) {
            samples.extend(more);
        }
    }

    fn samples(&self, name: &str) -> Option<&[f64]> {
        let index = self.names.iter().position(|n| n == name)?;
        Some(&self.samples[index])
    }

    pub fn spread(&self, name: &str) -> Option<Spread> {
        self.samples(name).map(Spread::of)
    }

    /// `name` divided by `reference`, round by round.
    pub fn ratio(&self, name: &str, reference: &str) -> Option<Spread> {
        let pairs = self.samples(name)?.iter().zip(self.samples(reference)?);
        Some(Spread::of(&pairs.map(|(a, b)| a / b).collect::<Vec<_>>()))
    }

    /// The control's ratio, if it is further from 1 than it may be.
    pub fn out_of_control(&self) -> Option<f64> {
        let ratio = self.ratio(CONTROL, self.names.first()?)?.median;
        ((ratio - 1.0).abs() > CONTROL_MAX).then_some(ratio)
    }

    /// `name` less `reference`, round by round, in nanoseconds.
    pub fn difference(&self, name: &str, reference: &str) -> Option<Spread> {
        let pairs = self.samples(name)?.iter().zip(self.samples(reference)?);
        Some(Spread::of(&pairs.map(|(a, b)| a - b).collect::<Vec<_>>()))
    }

    /// Of the competitors whose name begins with one of `prefixes`, the one with the lowest median.
    pub fn best(&self, prefixes: &[&str]) -> Option<&str> {
        self.names()
            .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .min_by(|a, b| self.median(a).total_cmp(&self.median(b)))
    }

    fn median(&self, name: &str) -> f64 {
        self.spread(name).map_or(f64::INFINITY, |s| s.median)
    }
}
