//! Writes of whole pages, those next to each other in one.

use crate::durability::Granularity;
use crate::error::Result;
use crate::region::Region;

/// How much is collected for one write, in bytes: enough that the system call does not count.
const COLLECT_MAX: usize = 256 << 10;

/// Collects what is written to adjacent places, where a write is a system call. Where it is a copy,
/// it is made at once.
pub(crate) struct Writer<'a, R> {
    region: &'a R,
    collects: bool,
    at: u64,
    bytes: Vec<u8>,
    wrote: bool,
}

impl<'a, R: Region> Writer<'a, R> {
    pub(crate) fn new(region: &'a R) -> Self {
        let collects = region.granularity() == Granularity::Page;
        Self { region, collects, at: 0, bytes: Vec::new(), wrote: false }
    }

    /// Writes and flushes, now or with the next: seen by others, and durable, after the next drain.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.wrote = true;
        if !self.collects {
            return self.region.write_stream(at, bytes);
        }
        let follows = at == self.at + self.bytes.len() as u64;
        if !follows || self.bytes.len() + bytes.len() > COLLECT_MAX {
            self.send()?;
        }
        if self.bytes.is_empty() {
            self.at = at;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        if !self.bytes.is_empty() {
            self.region.write_flush(self.at, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }

    /// Writes the rest. Whether anything was written.
    pub(crate) fn finish(mut self) -> Result<bool> {
        self.send()?;
        Ok(self.wrote)
    }
}

#[cfg(all(test, feature = "model"))]
mod tests {
    use super::*;
    use crate::Options;
    use crate::sim::SplitMix64;

    /// Places that follow one another and places that do not, short and long pieces.
    #[test]
    fn what_is_collected_is_written_where_it_belongs() {
        const LEN: u64 = 1 << 20;
        for seed in 0..20 {
            let region = Options::new().len(LEN).in_memory().unwrap();
            let mut random = SplitMix64::new(seed);
            let (mut model, mut at) = (vec![0; LEN as usize], 4096);
            let mut writer = Writer { collects: true, ..Writer::new(&region) };
            for number in 1..200_u8 {
                let len = [64, 128, 4096, 100 << 10, COLLECT_MAX as u64][random.below(5) as usize];
                at = match random.below(4) {
                    0 => random.below((LEN - len) / 64) * 64,
                    // What a product would take for what follows.
                    1 => at * random.below(5),
                    _ => at,
                };
                at = if at + len > LEN { 0 } else { at };
                let bytes = vec![number; len as usize];
                writer.write(at, &bytes).unwrap();
                model[at as usize..(at + len) as usize].copy_from_slice(&bytes);
                at += len;
            }
            assert!(writer.finish().unwrap());
            region.drain().unwrap();
            let mut found = vec![0; LEN as usize];
            region.read(0, &mut found).unwrap();
            assert!(found == model, "seed {seed}");
        }
        let region = Options::new().len(LEN).in_memory().unwrap();
        let mut writer = Writer { collects: true, ..Writer::new(&region) };
        for (at, byte) in [(64, 1), (64 * 64, 2)] {
            writer.write(at, &[byte; 64]).unwrap();
        }
        writer.finish().unwrap();
        let mut found = [0; 64];
        region.read(64 * 64, &mut found).unwrap();
        assert_eq!(found, [2; 64]);
        region.read(128, &mut found).unwrap();
        assert_eq!(found, [0; 64]);
        assert!(!Writer::new(&region).finish().unwrap());
    }
}
