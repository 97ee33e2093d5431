//! Conway's Game of Life on a torus, in a working set: one byte a cell.

use daxmap::checkpoint::WorkingSet;
use daxmap::{Region, Result};

/// Bytes before the first cell: the generation, and the side of the grid. A page, so that a
/// generation changes few others where little happens.
const HEADER: u64 = 4096;

/// Bytes of the working set of a grid.
pub const fn bytes(side: u64) -> u64 {
    HEADER + side * side
}

/// A grid, and the generation that it is.
pub struct Grid<R: Region> {
    set: WorkingSet<R>,
    side: usize,
}

impl<R: Region> Grid<R> {
    /// Takes up what the set holds; a set of zeros is filled from the seed.
    pub fn new(mut set: WorkingSet<R>, side: u64, seed: u64) -> Result<Self> {
        if set.recovery().checkpoint == 0 {
            let mut random = fastrand::Rng::with_seed(seed);
            for cell in set.slice_mut(HEADER, side * side)? {
                *cell = u8::from(random.u8(..4) == 0);
            }
            set.checkpoint_labelled("the beginning")?;
        }
        Ok(Self { set, side: side as usize })
    }

    pub fn generation(&self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.set.bytes()[..8]);
        u64::from_le_bytes(word)
    }

    fn cells(&self) -> &[u8] {
        &self.set.bytes()[HEADER as usize..]
    }

    pub fn alive(&self) -> usize {
        self.cells().iter().map(|cell| usize::from(*cell)).sum()
    }

    /// CRC-32 of the cells.
    pub fn sum(&self) -> u32 {
        crc32fast::hash(self.cells())
    }

    /// One generation on. Only the cells that change are written, so that the next checkpoint
    /// saves their pages and no others.
    pub fn step(&mut self) -> Result<()> {
        let (cells, side) = (self.cells(), self.side);
        let mut changed = Vec::new();
        for row in 0..side {
            let rows = [(row + side - 1) % side, row, (row + 1) % side].map(|r| r * side);
            for column in 0..side {
                let columns = [(column + side - 1) % side, column, (column + 1) % side];
                let around = rows.iter().flat_map(|row| columns.map(|column| cells[row + column]));
                let sum: u8 = around.sum();
                let cell = cells[row * side + column];
                // With itself: born of three, goes on with three or four.
                let next = u8::from(sum == 3 || (sum == 4 && cell == 1));
                if next != cell {
                    changed.push((row * side + column, next));
                }
            }
        }
        for (at, cell) in changed {
            self.set.write(HEADER + at as u64, &[cell])?;
        }
        let generation = self.generation() + 1;
        self.set.write(0, &generation.to_le_bytes())
    }

    /// Saves the grid as it is.
    pub fn save(&mut self) -> Result<()> {
        let label = format!("generation {}", self.generation());
        self.set.checkpoint_labelled(&label).map(drop)
    }

    pub fn close(self) -> Result<()> {
        self.set.close()
    }

    pub fn set(&self) -> &WorkingSet<R> {
        &self.set
    }
}
