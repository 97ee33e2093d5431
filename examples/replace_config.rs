//! Replaces a whole file: readers, and a crash at any moment, find the old contents or the new.
//!
//! ```text
//! cargo run --release --example replace_config -- FILE CONTENTS
//! ```

use std::error::Error;
use std::fs;

use daxmap::{Durability, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(contents)) = (arguments.next(), arguments.next()) else {
        return Err("replace_config FILE CONTENTS".into());
    };
    let level = Options::new().require(Durability::Fsync).replace(&path, &contents)?;
    println!("{path}: {:?}, {}", fs::read_to_string(&path)?, level.after_power_cut());
    Ok(())
}
