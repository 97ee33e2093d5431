//! What the workload had promised when the crash came.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use super::random::mix;
use super::region::SimRegion;

/// What a workload said up to a crash: which of its steps it had begun, and which it had called
/// durable. The check compares with it what recovery found.
#[derive(Debug, Default)]
pub struct History {
    begun: Vec<u64>,
    acked: Vec<u64>,
    /// 0 if the check reported no state.
    state: AtomicU64,
}

impl Clone for History {
    fn clone(&self) -> Self {
        Self { begun: self.begun.clone(), acked: self.acked.clone(), state: AtomicU64::new(0) }
    }
}

impl History {
    /// What had been begun, in order.
    #[must_use]
    pub fn begun(&self) -> &[u64] {
        &self.begun
    }

    /// What had been acknowledged as durable, in order.
    #[must_use]
    pub fn acked(&self) -> &[u64] {
        &self.acked
    }

    /// The last acknowledged mark.
    #[must_use]
    pub fn last_acked(&self) -> Option<u64> {
        self.acked.last().copied()
    }

    /// The last begun mark.
    #[must_use]
    pub fn last_begun(&self) -> Option<u64> {
        self.begun.last().copied()
    }

    /// Called by the check: what recovery found, to count how many different states there are.
    /// Costs a hash; a check need not call it.
    pub fn recovered(&self, state: &impl Hash) {
        let mut hasher = Fold(0x243F_6A88_85A3_08D3);
        state.hash(&mut hasher);
        self.state.store(hasher.finish().max(1), Ordering::Relaxed);
    }

    pub(super) fn take_state(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Relaxed);
        if state == 0 {
            return None;
        }
        self.state.store(0, Ordering::Relaxed);
        Some(state)
    }

    pub(super) fn begin(&mut self, mark: u64) {
        self.begun.push(mark);
    }

    pub(super) fn ack(&mut self, mark: u64) {
        self.acked.push(mark);
    }

    /// Counts every mark.
    pub(super) fn version(&self) -> usize {
        self.begun.len() + self.acked.len()
    }
}

/// A quick hash, the same in every run.
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0 ^ value).wrapping_add(0x9E37_79B9_7F4A_7C15);
    }
}

/// With which a workload says what it begins and what it calls durable.
///
/// Marks are numbers of the workload's own choosing: record numbers, versions, keys.
#[derive(Clone, Debug)]
pub struct Notes {
    pub(super) region: SimRegion,
}

impl Notes {
    /// "I am about to do this": from now on recovery may find it.
    pub fn begin(&self, mark: u64) {
        self.note(|history| history.begin(mark));
    }

    /// "This is durable": from now on recovery must find it.
    pub fn ack(&self, mark: u64) {
        self.note(|history| history.ack(mark));
    }

    fn note(&self, note: impl FnOnce(&mut History)) {
        // What could be seen before is checked against what was promised before.
        self.region.crash_point();
        self.region.note(note);
    }
}
