//! Short random histories of regions: a seed is a history.

use std::fmt;

use pmem_tests::random::Random;

/// Files that a history works on.
pub const FILES: usize = 2;

/// How a version is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Replace,
    CreateOnly,
    Exchange,
}

/// One call of the library. `file` is a number below [`FILES`]; ranges lie in the file as it is
/// when every call before succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Create {
        file: usize,
        len: u64,
    },
    /// Not of the library: somebody makes and writes the file, and syncs nothing.
    Foreign {
        file: usize,
        len: u64,
    },
    Open {
        file: usize,
    },
    Write {
        file: usize,
        offset: u64,
        len: u64,
    },
    WriteFlush {
        file: usize,
        offset: u64,
        len: u64,
    },
    WritePersist {
        file: usize,
        offset: u64,
        len: u64,
    },
    StoreWord {
        file: usize,
        offset: u64,
    },
    Flush {
        file: usize,
        offset: u64,
        len: u64,
    },
    Drain {
        file: usize,
    },
    Grow {
        file: usize,
        len: u64,
    },
    Close {
        file: usize,
    },
    /// One more region of a file that is open; from now on the steps of the file alternate
    /// between the two.
    OpenTwice {
        file: usize,
    },
    /// A draft, written and committed.
    Publish {
        how: How,
        len: u64,
    },
}

/// The steps of a seed.
pub struct History {
    pub seed: u64,
    pub steps: Vec<Step>,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "history of seed {}:", self.seed)?;
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {number}: {step:?}")?;
        }
        Ok(())
    }
}

/// What is known of a file while its history is made up.
#[derive(Clone, Copy, Default)]
struct Sketch {
    len: u64,
    open: bool,
    twice: bool,
}

/// Histories that chance makes too seldom. The first: written and in the kernel's hands, but not
/// drained, when a growth syncs the file and is told of the error that was the writes'. The
/// second: the same, with a reopening in between. The third: a file that nobody had synced when
/// the library opened it. The fourth: every way to publish, one after the other. The fifth: two
/// regions of a file.
fn directed(seed: u64) -> Option<Vec<Step>> {
    let file = 0;
    if seed == 3 {
        return Some(vec![Step::Foreign { file, len: 9_000 }, Step::Open { file }]);
    }
    if seed == 4 {
        let ways = [How::CreateOnly, How::Exchange, How::Replace, How::Exchange];
        return Some(ways.map(|how| Step::Publish { how, len: 9_000 }).to_vec());
    }
    let create = Step::Create { file, len: 20_480 };
    let far_apart =
        [0, 12_288].map(|offset| Step::WriteFlush { file, offset, len: 6_000 }).into_iter();
    let tail = match seed {
        1 => vec![Step::Grow { file, len: 30_000 }, Step::Drain { file }, Step::Close { file }],
        2 => vec![
            Step::Close { file },
            Step::Open { file },
            Step::Grow { file, len: 30_000 },
            Step::WritePersist { file, offset: 100, len: 300 },
        ],
        5 => vec![
            Step::OpenTwice { file },
            Step::WriteFlush { file, offset: 100, len: 5_000 },
            Step::WritePersist { file, offset: 4_000, len: 5_000 },
            Step::Drain { file },
            Step::Close { file },
            Step::Open { file },
        ],
        _ => return None,
    };
    Some(std::iter::once(create).chain(far_apart).chain(tail).collect())
}

impl History {
    pub fn new(seed: u64) -> Self {
        if let Some(steps) = directed(seed) {
            return Self { seed, steps };
        }
        let mut random = Random::new(seed);
        let mut files = [Sketch::default(); FILES];
        let mut published = false;
        let count = 4 + random.below(5);
        let mut steps = Vec::new();
        while steps.len() < count as usize {
            // In one history of two.
            if seed.is_multiple_of(2) && random.below(4) == 0 {
                steps.push(publish(&mut random, published));
                published = true;
                continue;
            }
            // The second file in one history of three.
            let file = usize::from(seed.is_multiple_of(3) && random.below(3) == 0);
            steps.push(step(&mut random, file, &mut files[file]));
        }
        Self { seed, steps }
    }
}

fn publish(random: &mut Random, published: bool) -> Step {
    let how = match (random.below(3), published) {
        (0, false) => How::CreateOnly,
        (0 | 1, true) => How::Exchange,
        _ => How::Replace,
    };
    Step::Publish { how, len: 16 + random.below(20_000) }
}

fn step(random: &mut Random, file: usize, sketch: &mut Sketch) -> Step {
    if sketch.len == 0 {
        // Whole pages and not.
        let len = 1 + random.below(5) * 4096 + random.below(2) * 4095;
        *sketch = Sketch { len, open: true, twice: false };
        return Step::Create { file, len };
    }
    if !sketch.open {
        sketch.open = true;
        return Step::Open { file };
    }
    let offset = random.below(sketch.len);
    let len = 1 + random.below((sketch.len - offset).min(6000));
    match random.below(17) {
        0..=1 => Step::Write { file, offset, len },
        2..=4 => Step::WriteFlush { file, offset, len },
        5..=8 => Step::WritePersist { file, offset, len },
        9 if sketch.len >= 8 => Step::StoreWord { file, offset: random.below(sketch.len / 8) * 8 },
        9..=10 => Step::Flush { file, offset, len },
        11..=12 => Step::Drain { file },
        13..=14 => {
            sketch.len += 1 + random.below(8192);
            Step::Grow { file, len: sketch.len }
        }
        15 if !sketch.twice => {
            sketch.twice = true;
            Step::OpenTwice { file }
        }
        _ => {
            (sketch.open, sketch.twice) = (false, false);
            Step::Close { file }
        }
    }
}
