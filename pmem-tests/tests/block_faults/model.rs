//! What a file may hold after recovery, byte by byte.

/// The number of a write; 0 is the zeros that a file is made of. Every write has bytes of its
/// own, so that a byte says which write it is of.
pub type Id = u8;

/// Writes that a history can have: their numbers are bits of a mask.
pub const IDS_MAX: Id = 63;

/// The byte that write `id` puts at `offset`.
pub fn pattern(id: Id, offset: u64) -> u8 {
    if id == 0 {
        return 0;
    }
    // The low bits say the write, the high ones the place.
    id | ((offset / 512 % 4) as u8) << 6
}

/// Whether the name of a file is there after recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    No,
    /// An attempt to create it failed: there, and complete, or not there.
    Maybe,
    Yes,
}

/// A file, as the promises that were given about it say.
#[derive(Clone, Debug)]
pub struct FileModel {
    pub existence: Existence,
    /// The length that was acknowledged, or, of a file that may exist, the one asked for.
    pub len: u64,
    /// The longest it can be: a growth that failed may have left it longer.
    pub len_max: u64,
    /// Of each byte: the write that is acknowledged as durable.
    acked: Vec<Id>,
    /// Of each byte: the write that a reader sees now.
    now: Vec<Id>,
    /// Of each byte: whether what a reader sees was flushed.
    flushed: Vec<bool>,
    /// Of each byte: which region of the file wrote what a reader sees. Another region's drain
    /// promises nothing about it.
    by: Vec<usize>,
    /// Of each byte: writes since the acknowledged one, any of which may have survived.
    maybe: Vec<u64>,
}

impl FileModel {
    pub fn new() -> Self {
        Self {
            existence: Existence::No,
            len: 0,
            len_max: 0,
            acked: Vec::new(),
            now: Vec::new(),
            flushed: Vec::new(),
            by: Vec::new(),
            maybe: Vec::new(),
        }
    }

    fn resize(&mut self, len: u64) {
        self.len = len;
        self.len_max = self.len_max.max(len);
        self.acked.resize(len as usize, 0);
        self.now.resize(len as usize, 0);
        self.flushed.resize(len as usize, true);
        self.by.resize(len as usize, 0);
        self.maybe.resize(len as usize, 0);
    }

    pub fn created(&mut self, len: u64) {
        self.existence = Existence::Yes;
        self.resize(len);
    }

    pub fn creation_failed(&mut self, len: u64) {
        self.existence = Existence::Maybe;
        self.resize(len);
    }

    /// Made by somebody who promises nothing: of any length up to this one.
    pub fn foreign(&mut self, len: u64) {
        self.existence = Existence::Maybe;
        self.len_max = len;
    }

    pub fn grown(&mut self, len: u64) {
        self.resize(len);
    }

    pub fn growth_failed(&mut self, len: u64) {
        self.len_max = self.len_max.max(len);
    }

    /// A write through a region that succeeded, or of which some part may have.
    pub fn written(&mut self, by: usize, id: Id, offset: u64, len: u64, succeeded: bool) {
        for at in offset as usize..(offset + len) as usize {
            self.maybe[at] |= 1 << id;
            if succeeded {
                self.now[at] = id;
                self.flushed[at] = false;
                self.by[at] = by;
            }
        }
    }

    pub fn flushed(&mut self, by: usize, offset: u64, len: u64) {
        for at in offset as usize..(offset + len) as usize {
            self.flushed[at] |= self.by[at] == by;
        }
    }

    /// A drain of a region that succeeded.
    pub fn drained(&mut self, by: usize) {
        for at in 0..self.acked.len() {
            if self.flushed[at] && self.by[at] == by {
                self.acked[at] = self.now[at];
                self.maybe[at] = 0;
            }
        }
    }

    /// A region was opened, and this is what it shows: an engine recovers from it.
    pub fn recovered(&mut self, found: &[u8]) -> Result<(), String> {
        self.check(found)?;
        let known = self.acked.len();
        self.created(found.len() as u64);
        self.len_max = self.len;
        for (at, &byte) in found.iter().enumerate() {
            // What nothing was promised about says itself which write it is of.
            let id = if at < known {
                self.candidates(at).find(|&id| pattern(id, at as u64) == byte)
            } else {
                Some(byte & IDS_MAX)
            };
            let id = id.expect("checked just now");
            self.acked[at] = id;
            self.now[at] = id;
            self.flushed[at] = true;
            self.by[at] = 0;
            self.maybe[at] = 0;
        }
        Ok(())
    }

    fn candidates(&self, at: usize) -> impl Iterator<Item = Id> + '_ {
        let maybe = self.maybe[at];
        std::iter::once(self.acked[at])
            .chain((0..=IDS_MAX).filter(move |id| maybe & (1 << id) != 0))
    }

    /// What was found must be what the promises allow.
    pub fn check(&self, found: &[u8]) -> Result<(), String> {
        let len = found.len() as u64;
        if !(self.len..=self.len_max).contains(&len) {
            let (least, most) = (self.len, self.len_max);
            return Err(format!("{len} bytes long, where {least} to {most} are possible"));
        }
        for (at, &byte) in found.iter().enumerate().take(self.acked.len()) {
            if byte == pattern(self.acked[at], at as u64) && self.maybe[at] == 0 {
                continue;
            }
            if !self.candidates(at).any(|id| pattern(id, at as u64) == byte) {
                let candidates: Vec<Id> = self.candidates(at).collect();
                return Err(format!(
                    "byte {at} is of write {}, where write {} is acknowledged and {:?} are \
                     possible",
                    byte & IDS_MAX,
                    self.acked[at],
                    &candidates[1..]
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(ids: &[Id]) -> Vec<u8> {
        ids.iter().enumerate().map(|(at, &id)| pattern(id, at as u64)).collect()
    }

    #[test]
    fn only_the_acknowledged_and_what_came_after_may_be_there() {
        let mut file = FileModel::new();
        file.created(4);
        assert!(file.check(&bytes(&[0, 0, 0, 0])).is_ok());
        assert!(file.check(&bytes(&[0, 0, 0])).is_err());
        file.written(0, 1, 0, 2, true);
        file.flushed(0, 0, 2);
        assert!(file.check(&bytes(&[1, 0, 0, 0])).is_ok());
        file.drained(0);
        assert!(file.check(&bytes(&[1, 0, 0, 0])).is_err());
        assert!(file.check(&bytes(&[1, 1, 0, 0])).is_ok());
        // Written, not flushed: a drain acknowledges nothing of it.
        file.written(0, 2, 1, 2, true);
        file.drained(0);
        assert!(file.check(&bytes(&[1, 1, 2, 0])).is_ok());
        assert!(file.check(&bytes(&[1, 3, 2, 0])).is_err());
        file.written(0, 3, 0, 4, false);
        assert!(file.check(&bytes(&[3, 2, 0, 3])).is_ok());
        file.growth_failed(5);
        assert!(file.check(&bytes(&[3, 2, 0, 3, 0])).is_ok());
        assert!(file.check(&bytes(&[3, 2, 0, 3, 0, 0])).is_err());
    }

    #[test]
    fn a_drain_is_of_the_region_that_wrote() {
        let mut file = FileModel::new();
        file.created(2);
        file.written(1, 1, 0, 2, true);
        file.written(0, 2, 1, 1, true);
        file.flushed(1, 0, 2);
        file.drained(0);
        assert!(file.check(&bytes(&[0, 0])).is_ok());
        file.drained(1);
        assert!(file.check(&bytes(&[0, 0])).is_err());
        assert!(file.check(&bytes(&[1, 0])).is_ok());
        file.flushed(0, 0, 2);
        file.drained(0);
        assert!(file.check(&bytes(&[1, 1])).is_err());
        assert!(file.check(&bytes(&[1, 2])).is_ok());
    }

    #[test]
    fn what_was_recovered_is_acknowledged() {
        let mut file = FileModel::new();
        file.created(2);
        file.written(0, 1, 0, 2, true);
        file.recovered(&bytes(&[0, 1])).unwrap();
        assert!(file.check(&bytes(&[1, 1])).is_err());
        assert!(file.check(&bytes(&[0, 1])).is_ok());
        assert!(file.recovered(&bytes(&[1, 0])).is_err());
    }
}
