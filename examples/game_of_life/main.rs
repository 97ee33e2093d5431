//! A Game of Life that can be killed at any moment and goes on from its last checkpoint.
//!
//! ```text
//! cargo run --release --example game_of_life -- FILE [OPTIONS]
//!
//!     --side N          cells in a row and in a column (256)
//!     --seed N          of the first generation (1)
//!     --generations N   ends at this generation (1000)
//!     --every N         a checkpoint every so many generations; 0: only when asked (50)
//!     --keep N          earlier checkpoints to keep (2)
//!     --back N          begins with checkpoint N, which must be kept
//! ```
//!
//! `kill -USR1` asks for a checkpoint at the end of the generation. The grid is in private memory:
//! between two checkpoints nothing of it reaches the file, and the checkpoint writes the pages
//! in which a cell changed.

mod grid;
mod signal;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use daxmap::checkpoint;
use grid::Grid;

struct Arguments {
    file: PathBuf,
    side: u64,
    seed: u64,
    generations: u64,
    every: u64,
    keep: u32,
    back: Option<u64>,
}

fn main() -> ExitCode {
    match parse().and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("game_of_life: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Arguments, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let file = words.next().ok_or("usage: game_of_life FILE [OPTIONS]")?.into();
    let (side, seed, generations, every, keep, back) = (256, 1, 1000, 50, 2, None);
    let mut arguments = Arguments { file, side, seed, generations, every, keep, back };
    while let Some(option) = words.next() {
        let mut number = || -> Result<u64, Box<dyn Error>> {
            Ok(words.next().ok_or_else(|| format!("{option} needs a number"))?.parse()?)
        };
        match option.as_str() {
            "--side" => arguments.side = number()?.clamp(3, 1 << 16),
            "--seed" => arguments.seed = number()?,
            "--generations" => arguments.generations = number()?,
            "--every" => arguments.every = number()?,
            "--keep" => arguments.keep = u32::try_from(number()?)?,
            "--back" => arguments.back = Some(number()?),
            other => return Err(format!("no option {other}").into()),
        }
    }
    Ok(arguments)
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let asked = signal::on_usr1()?;
    let options = checkpoint::Options::new(grid::bytes(arguments.side)).keep(arguments.keep);
    let mut set = options.open_or_create(&arguments.file)?;
    if let Some(sequence) = arguments.back {
        set.restore(sequence)?;
    }
    let mut grid = Grid::new(set, arguments.side, arguments.seed)?;
    let (set, from) = (grid.set(), grid.generation());
    println!("from generation {from}; {}, {}", set.strategy(), set.durability());
    for kept in set.list() {
        println!("kept: {} {}", kept.sequence, kept.label);
    }
    while grid.generation() < arguments.generations {
        grid.step()?;
        let generation = grid.generation();
        let due = arguments.every > 0 && generation % arguments.every == 0;
        if signal::take(asked) || due {
            grid.save()?;
            println!("saved generation {generation}");
        }
    }
    println!("generation {}: {} alive, sum {:08x}", grid.generation(), grid.alive(), grid.sum());
    grid.save()?;
    Ok(grid.close()?)
}
