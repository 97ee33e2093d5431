//! What was called, what it changed, and which changes the medium surely has.

use std::collections::BTreeSet;
use std::fmt;

use super::image::{Effect, Image, Inode};
use super::profile::{Profile, data_of};

/// A sync, of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// fdatasync(2) of a file.
    Data(Inode),
    /// fsync(2) of a file.
    File(Inode),
    /// fsync(2) of the directory.
    Directory,
}

/// Something that the medium takes whole or not at all.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) effects: Vec<Effect>,
    /// The changes that the medium has if it has this one.
    pub(super) after: Vec<usize>,
    /// A size that waits for the data below it, and not for its turn.
    delayed: bool,
    /// The inode that comes to be with it.
    makes: Option<Inode>,
    /// The call that made it.
    call: usize,
    /// The call that made it durable.
    durable: Option<usize>,
    /// The call that failed to, and left it marked clean: the medium may have it, nothing waits
    /// for it any more, and no later sync writes it.
    lost: Option<usize>,
}

impl Change {
    pub(super) fn touches(&self, inode: Inode) -> bool {
        self.effects.iter().any(|effect| effect.touches(inode))
    }

    pub(super) fn has_entry(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Entry { .. }))
    }

    pub(super) fn is_data(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Sector { .. }))
    }

    /// Whether it is needed to read the file's data back.
    pub(super) fn finds_data_of(&self, inode: Inode) -> bool {
        self.effects.iter().any(|effect| data_of(effect) == Some(inode))
    }

    /// Whether the inode comes to be with it.
    pub(super) fn makes(&self, inode: Inode) -> bool {
        self.makes == Some(inode)
    }

    pub(super) fn is_made_before(&self, point: usize) -> bool {
        self.call < point
    }

    pub(super) fn is_durable_before(&self, point: usize) -> bool {
        self.durable.is_some_and(|call| call < point)
    }

    pub(super) fn is_lost_before(&self, point: usize) -> bool {
        self.lost.is_some_and(|call| call < point)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, effect) in self.effects.iter().enumerate() {
            write!(f, "{}{effect}", if i > 0 { " with " } else { "" })?;
        }
        Ok(())
    }
}

/// A call that changes something or syncs.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) text: String,
    /// The last mark that was set before it.
    pub(super) mark: u32,
}

/// Everything that was called since the medium was settled.
#[derive(Clone, Debug)]
pub struct History {
    pub(super) profile: Profile,
    pub(super) base: Image,
    pub(super) changes: Vec<Change>,
    pub(super) calls: Vec<Call>,
    /// Set by the program under test.
    pub(super) mark: u32,
}

impl History {
    pub(super) fn new(profile: Profile, base: Image) -> Self {
        Self { profile, base, changes: Vec::new(), calls: Vec::new(), mark: 0 }
    }

    /// The calls that changed or synced something, in order, in words.
    pub fn calls(&self) -> impl Iterator<Item = &str> {
        self.calls.iter().map(|call| call.text.as_str())
    }

    /// Begins a call; what follows belongs to it.
    pub(super) fn call(&mut self, text: String) -> usize {
        self.calls.push(Call { text, mark: self.mark });
        self.calls.len() - 1
    }

    /// What the present call changes.
    pub(super) fn push(&mut self, effects: Vec<Effect>) {
        for step in self.profile.steps(effects) {
            self.add(step, None);
        }
    }

    /// The present call has written past the end, after it has pushed the data.
    pub(super) fn lengthen(&mut self, inode: Inode, from: u64, to: u64) {
        let mut data: Vec<usize> = Vec::new();
        let call = self.calls.len() - 1;
        for (at, change) in self.changes.iter().enumerate() {
            if change.call == call && change.is_data() {
                data.push(at);
            }
        }
        let mut reached = from;
        if let Some(block) = self.profile.journals_lengths_within()
            && !from.is_multiple_of(block)
        {
            // It waits for no data, neither what is new nor what is pending in the block.
            reached = from.next_multiple_of(block).min(to);
            self.add(vec![Effect::Size { inode, len: reached }], Some(Vec::new()));
        }
        if reached < to {
            let waits = if self.profile.lengths_follow_data() { data } else { Vec::new() };
            self.add(vec![Effect::Size { inode, len: to }], Some(waits));
        }
    }

    /// One step. A length that a write made comes with what it waits for besides.
    fn add(&mut self, effects: Vec<Effect>, length_after: Option<Vec<usize>>) {
        let delayed = length_after.is_some();
        let after = self.waits_for(&effects, length_after);
        let makes = effects.iter().find_map(|effect| match effect {
            Effect::Links { inode, .. } => Some(*inode).filter(|inode| self.is_new(*inode)),
            _ => None,
        });
        let call = self.calls.len() - 1;
        let (durable, lost) = (None, None);
        self.changes.push(Change { effects, after, delayed, makes, call, durable, lost });
    }

    fn is_new(&self, inode: Inode) -> bool {
        self.base.file(inode).is_none() && self.maker(inode).is_none()
    }

    /// The pending changes that the medium must have if it has these effects.
    fn waits_for(&self, effects: &[Effect], length_after: Option<Vec<usize>>) -> Vec<usize> {
        let delayed = length_after.is_some();
        let mut after: BTreeSet<usize> = length_after.into_iter().flatten().collect();
        if self.profile == Profile::Strict {
            after.extend(self.changes.len().checked_sub(1));
            return after.into_iter().collect();
        }
        for effect in effects {
            after.extend(self.superseded(effect, delayed));
            let waits_for_inode = match effect {
                Effect::Entry { to, .. } if self.profile.entry_follows_inode() => *to,
                Effect::Mode { inode, .. } => Some(*inode),
                Effect::Entry { .. } | Effect::Links { .. } => None,
                other => data_of(other),
            };
            if let Some(inode) = waits_for_inode {
                after.extend(self.maker(inode));
                if matches!(effect, Effect::Entry { .. }) {
                    // The inode that it leads to is logged as it is then: mode and link count.
                    after.extend(self.last(|other| {
                        matches!(other, Effect::Links { inode: of, .. } | Effect::Mode { inode: of, .. }
                            if *of == inode)
                    }));
                }
            }
            if let Effect::Sector { inode, index, .. } = effect {
                after.extend(self.last(|other| {
                    matches!(other, Effect::Allocate { inode: of, sectors }
                        if of == inode && sectors.contains(index))
                }));
            }
        }
        if self.profile.has_journal() && is_journalled(effects, delayed) {
            let journalled = |change: &Change| is_journalled(&change.effects, change.delayed);
            after.extend(self.changes.iter().rposition(journalled));
        }
        after.retain(|at| self.changes[*at].lost.is_none());
        after.into_iter().collect()
    }

    fn last(&self, wanted: impl Fn(&Effect) -> bool) -> Option<usize> {
        self.changes.iter().rposition(|change| change.effects.iter().any(&wanted))
    }

    /// The last change of the same thing. An explicit size does not wait for a delayed one.
    fn superseded(&self, effect: &Effect, delayed: bool) -> Option<usize> {
        self.changes.iter().rposition(|change| {
            let counts = delayed || !change.delayed;
            counts && change.effects.iter().any(|earlier| supersedes(effect, earlier))
        })
    }

    /// The change that made the inode, if the medium did not have it before.
    fn maker(&self, inode: Inode) -> Option<usize> {
        self.changes.iter().position(|change| change.makes(inode))
    }

    /// The present call has synced.
    pub(super) fn sync(&mut self, sync: Sync) {
        let pending: Vec<(usize, &Change)> = self
            .changes
            .iter()
            .enumerate()
            .filter(|(_, change)| change.durable.is_none() && change.lost.is_none())
            .collect();
        let mut covered = self.profile.covers(sync, &pending);
        let call = self.calls.len() - 1;
        while let Some(at) = covered.pop() {
            let change = &mut self.changes[at];
            if change.durable.is_none() && change.lost.is_none() {
                change.durable = Some(call);
                covered.extend(change.after.iter().copied());
            }
        }
    }

    /// The present call is a sync that failed: the file's pending data is marked clean.
    pub(super) fn lose(&mut self, sync: Sync) {
        let (Sync::File(inode) | Sync::Data(inode)) = sync else { return };
        let call = self.calls.len() - 1;
        for change in &mut self.changes {
            let dirty = change.is_data() && change.durable.is_none();
            if dirty && change.touches(inode) {
                change.lost.get_or_insert(call);
            }
        }
    }

    /// The medium once everything that is not lost is on it.
    pub(super) fn settled(&self) -> Image {
        let mut image = self.base.clone();
        let kept = self.changes.iter().filter(|change| change.lost.is_none());
        kept.flat_map(|change| &change.effects).for_each(|effect| image.apply(effect));
        image
    }
}

/// Whether an effect is on the same thing as an earlier one: the medium cannot have it and then
/// get the earlier one.
fn supersedes(later: &Effect, earlier: &Effect) -> bool {
    match (later, earlier) {
        (Effect::Links { inode: a, .. }, Effect::Links { inode: b, .. })
        | (Effect::Mode { inode: a, .. }, Effect::Mode { inode: b, .. })
        | (Effect::Size { inode: a, .. }, Effect::Size { inode: b, .. }) => a == b,
        (
            Effect::Sector { inode: a, index: one, .. },
            Effect::Sector { inode: b, index: other, .. },
        ) => (a, one) == (b, other),
        (Effect::Entry { name: a, .. }, Effect::Entry { name: b, .. }) => a == b,
        _ => false,
    }
}

/// Metadata, but for a size that waits for its data and is journalled when that is written.
fn is_journalled(effects: &[Effect], delayed: bool) -> bool {
    !delayed && !effects.iter().any(|effect| matches!(effect, Effect::Sector { .. }))
}
