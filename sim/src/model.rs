//! What is in the caches, what is on its way, and what is surely durable.
//!
//! A line (64 bytes; a sector of 512 in [`Mode::PageCache`]) has its durable bytes and the list of
//! the stores that came after them, oldest first. A flush notes how much of a line's list it
//! captured; the drain of the same thread moves what was captured into the durable bytes. Nothing
//! else does: a store that sits in the list may have reached the medium or not.

use super::Mode;

/// Words in the longest line, a sector.
const WORDS_MAX: usize = 64;

/// No store: the end of a list.
const NONE: u32 = u32::MAX;

/// One piece of a store: at most an aligned 8-byte word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Store {
    /// The word, first byte lowest.
    pub(super) value: u64,
    /// The next younger one of the line.
    pub(super) next: u32,
    /// The operation that stored it; operations are numbered from 1.
    pub(super) op: u32,
    pub(super) thread: u16,
    /// Which word of the line.
    pub(super) word: u8,
    /// Which bytes of the word, first byte lowest.
    pub(super) mask: u8,
    /// It went past the cache, as non-temporal stores do: no order with anything, and only a
    /// drain of its own thread makes it durable.
    pub(super) streamed: bool,
}

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

const EMPTY: List = List { head: NONE, tail: NONE };

/// A line that a thread flushed, and how much of its list: everything stored before operation
/// `before`. 0 for a streamed store, which captures nothing but itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Capture {
    line: u32,
    before: u32,
}

/// The bits of the bytes in `mask`.
#[inline]
pub(super) const fn bits(mask: u8) -> u64 {
    if mask == 0xFF {
        return u64::MAX;
    }
    let mut bits = 0;
    let mut byte = 0;
    while byte < 8 {
        if mask & (1 << byte) != 0 {
            bits |= 0xFF << (8 * byte);
        }
        byte += 1;
    }
    bits
}

/// Puts the bytes of `value` that `mask` selects into the `word`th word of `line`.
#[inline]
pub(super) fn put(line: &mut [u8], word: u8, mask: u8, value: u64) {
    let at = usize::from(word) * 8;
    if mask == 0xFF {
        line[at..at + 8].copy_from_slice(&value.to_le_bytes());
        return;
    }
    for (byte, new) in value.to_le_bytes().into_iter().enumerate() {
        if mask & (1 << byte) != 0 {
            line[at + byte] = new;
        }
    }
}

/// Pushes without doubling: the memory taken stays within a quarter of the memory used.
fn push<T>(list: &mut Vec<T>, value: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 4 + 8);
    }
    list.push(value);
}

/// The bytes of a region as the caches and the medium hold them.
pub(super) struct Model {
    pub(super) mode: Mode,
    /// What a load sees. As long as the region may become, in whole lines.
    pub(super) memory: Vec<u8>,
    /// What is surely durable; of a line without pending stores it is the memory, and this is
    /// stale.
    durable: Vec<u8>,
    lists: Vec<List>,
    stores: Vec<Store>,
    /// Stores that are durable, to be used again.
    free: u32,
    /// Lines with pending stores.
    dirty: Vec<u32>,
    /// What each thread flushed since its last drain.
    captures: Vec<(u16, Vec<Capture>)>,
    /// Lines that a failed drain left marked clean, and the operation of its capture: until
    /// something is stored there again, no capture covers them.
    lost: Vec<(u32, u32)>,
    /// Every line stored to since [`forget`](Self::forget), some twice; kept if `tracks`.
    pub(super) stored: Vec<u32>,
    pub(super) tracks: bool,
    /// The operation in progress.
    pub(super) op: u32,
    /// Room to sort a line's stores in.
    order: Vec<u32>,
}

impl Model {
    /// A model of `capacity` bytes of zero, all durable.
    pub(super) fn new(mode: Mode, capacity: u64) -> Self {
        let line = mode.line() as usize;
        let lines = (capacity as usize).div_ceil(line);
        Self {
            mode,
            memory: vec![0; lines * line],
            durable: vec![0; lines * line],
            lists: vec![EMPTY; lines],
            stores: Vec::new(),
            free: NONE,
            dirty: Vec::new(),
            captures: Vec::new(),
            lost: Vec::new(),
            stored: Vec::new(),
            tracks: false,
            op: 0,
            order: Vec::new(),
        }
    }

    pub(super) fn lines(&self) -> usize {
        self.lists.len()
    }

    pub(super) fn line_of(&self, at: usize) -> usize {
        at >> self.mode.line_shift()
    }

    pub(super) fn line_range(&self, line: usize) -> std::ops::Range<usize> {
        let shift = self.mode.line_shift();
        line << shift..(line + 1) << shift
    }

    /// The lines with pending stores, in no order.
    pub(super) fn dirty(&self) -> &[u32] {
        &self.dirty
    }

    /// The durable bytes of a line.
    pub(super) fn durable(&self, line: usize) -> &[u8] {
        let range = self.line_range(line);
        if self.lists[line].head == NONE { &self.memory[range] } else { &self.durable[range] }
    }

    /// The pending stores of a line, oldest first.
    pub(super) fn pending(&self, line: usize) -> impl Iterator<Item = &Store> + Clone {
        let mut at = self.lists[line].head;
        std::iter::from_fn(move || {
            let store = self.stores.get(at as usize)?;
            at = store.next;
            Some(store)
        })
    }

    /// Stores bytes. Words that are covered whole are one piece, others a piece a byte: only an
    /// aligned 8-byte store is never torn. In the page cache all the bytes that a call puts into
    /// a sector arrive together.
    pub(super) fn store(&mut self, thread: u16, at: usize, data: &[u8], streamed: bool) {
        let mut done = 0;
        while done < data.len() {
            if let Some(len) = self.same_line(at + done, &data[done..]) {
                done += len;
                continue;
            }
            let (word_at, skip) = ((at + done) & !7, (at + done) & 7);
            let count = (8 - skip).min(data.len() - done);
            let mut word = [0; 8];
            word[skip..skip + count].copy_from_slice(&data[done..done + count]);
            let mask = (0xFF_u16 >> (8 - count)) as u8;
            let value = u64::from_le_bytes(word);
            self.store_word(thread, word_at, mask << skip, value, streamed);
            done += count;
        }
    }

    /// [`changes_nothing`](Self::changes_nothing) of a whole line, and how long it is: most of a page
    /// that is written anew is as it was.
    fn same_line(&self, at: usize, data: &[u8]) -> Option<usize> {
        let line = self.line_of(at);
        let range = self.line_range(line);
        let same = at == range.start
            && self.lists[line].head == NONE
            && data.get(..range.len()) == Some(&self.memory[range.clone()])
            && self.lost.iter().all(|(lost, _)| *lost as usize != line);
        same.then_some(range.len())
    }

    /// Stores the bytes `mask` of the word at `at`.
    fn store_word(&mut self, thread: u16, at: usize, mask: u8, value: u64, streamed: bool) {
        if mask == 0xFF || self.mode == Mode::PageCache {
            self.piece(thread, at, mask, value, streamed);
            return;
        }
        for byte in 0..8 {
            if mask & (1 << byte) != 0 {
                self.piece(thread, at, 1 << byte, value, streamed);
            }
        }
    }

    fn piece(&mut self, thread: u16, at: usize, mask: u8, value: u64, streamed: bool) {
        let line = self.line_of(at);
        let range = self.line_range(line);
        let word = ((at - range.start) / 8) as u8;
        if self.changes_nothing(line, word, mask, value) {
            return;
        }
        let list = self.lists[line];
        if list.head == NONE {
            if self.tracks {
                self.stored.push(line as u32);
            }
            // In reach of eADR, a cached store is durable as soon as it is visible.
            if self.mode == Mode::Eadr && !streamed {
                put(&mut self.memory[range], word, mask, value);
                return;
            }
            self.durable[range.clone()].copy_from_slice(&self.memory[range.clone()]);
            push(&mut self.dirty, line as u32);
        }
        put(&mut self.memory[range], word, mask, value);
        let store = Store { value, next: NONE, op: self.op, thread, word, mask, streamed };
        let index = self.keep(store);
        if list.head == NONE {
            self.lists[line].head = index;
        } else {
            self.stores[list.tail as usize].next = index;
        }
        self.lists[line].tail = index;
        if self.mode == Mode::Eadr && !streamed {
            self.settle(line, |store| !store.streamed);
            self.drop_clean();
        }
    }

    /// Whether the word holds these bytes already and surely will after a crash, since no store to
    /// it is open: then no image can tell whether this one arrived.
    fn changes_nothing(&self, line: usize, word: u8, mask: u8, value: u64) -> bool {
        let at = self.line_range(line).start + usize::from(word) * 8;
        let mut old = [0; 8];
        old.copy_from_slice(&self.memory[at..at + 8]);
        let mut new = old;
        put(&mut new, 0, mask, value);
        // A line that a failed drain lost is dirty again by any store.
        old == new
            && self.pending(line).all(|store| store.word != word)
            && self.lost.iter().all(|(lost, _)| *lost as usize != line)
    }

    fn keep(&mut self, store: Store) -> u32 {
        if self.free == NONE {
            push(&mut self.stores, store);
            return self.stores.len() as u32 - 1;
        }
        let index = self.free;
        self.free = self.stores[index as usize].next;
        self.stores[index as usize] = store;
        index
    }

    /// Notes what a flush captures: of each line in the range, all that was stored before now.
    pub(super) fn flush(&mut self, thread: u16, at: usize, len: usize) {
        self.capture(thread, at, len, self.op);
    }

    /// The same for the operation in progress itself.
    pub(super) fn flush_with(&mut self, thread: u16, at: usize, len: usize) {
        self.capture(thread, at, len, self.op + 1);
    }

    /// Notes that a streamed store waits for this thread's next drain.
    pub(super) fn await_drain(&mut self, thread: u16, at: usize, len: usize) {
        self.capture(thread, at, len, 0);
    }

    fn capture(&mut self, thread: u16, at: usize, len: usize, before: u32) {
        if len == 0 {
            return;
        }
        let (first, last) = (self.line_of(at), self.line_of(at + len - 1));
        let index = self.captures.iter().position(|(of, _)| *of == thread).unwrap_or_else(|| {
            self.captures.push((thread, Vec::new()));
            self.captures.len() - 1
        });
        let captures = &mut self.captures[index].1;
        for line in first..=last {
            let line = line as u32;
            match captures.last_mut() {
                _ if self.lists[line as usize].head == NONE => {}
                Some(last) if last.line == line => last.before = last.before.max(before),
                _ => push(captures, Capture { line, before }),
            }
        }
    }

    /// Makes durable what this thread captured.
    pub(super) fn drain(&mut self, thread: u16) {
        let Some(index) = self.captures.iter().position(|(of, _)| *of == thread) else { return };
        let mut captures = std::mem::take(&mut self.captures[index].1);
        captures.sort_unstable();
        // Of the captures of one line the last one took the most.
        for at in 0..captures.len() {
            let Capture { line, before } = captures[at];
            let last = captures.get(at + 1).is_none_or(|next| next.line != line);
            if last && self.is_dirty(line, before) {
                self.settle(line as usize, |store| {
                    if store.streamed { store.thread == thread } else { store.op < before }
                });
            }
        }
        captures.clear();
        self.captures[index].1 = captures;
        self.drop_clean();
    }

    /// Makes durable what every thread captured.
    pub(super) fn drain_all(&mut self) {
        let threads: Vec<u16> = self.captures.iter().map(|(thread, _)| *thread).collect();
        for thread in threads {
            self.drain(thread);
        }
    }

    /// Forgets what this thread captured, as a failed sync does: the kernel marks the pages clean,
    /// so no later sync covers them, whoever asks and whatever is flushed again, until something is
    /// stored there.
    pub(super) fn lose_captures(&mut self, thread: u16) {
        self.lose(|of| of == thread);
    }

    /// The same of every thread.
    pub(super) fn lose_all_captures(&mut self) {
        self.lose(|_| true);
    }

    fn lose(&mut self, whose: impl Fn(u16) -> bool) {
        let mut mine = Vec::new();
        for (_, captures) in self.captures.iter_mut().filter(|(of, _)| whose(*of)) {
            mine.append(captures);
        }
        for Capture { line, before } in mine {
            // A streamed store captures nothing but itself.
            let before = if before == 0 { self.op + 1 } else { before };
            match self.lost.iter_mut().find(|(of, _)| *of == line) {
                Some((_, lost)) => *lost = before.max(*lost),
                None => self.lost.push((line, before)),
            }
        }
    }

    /// Whether a capture of the line covers anything: it does if no failed drain had it, or if
    /// something was stored there since.
    fn is_dirty(&mut self, line: u32, before: u32) -> bool {
        let Some(at) = self.lost.iter().position(|(of, _)| *of == line) else { return true };
        let (_, lost) = self.lost[at];
        let mut store = self.lists[line as usize].head;
        while store != NONE {
            let found = &self.stores[store as usize];
            if found.op >= lost && (found.op < before || found.streamed) {
                self.lost.swap_remove(at);
                return true;
            }
            store = found.next;
        }
        false
    }

    /// Makes the stores of a line durable that `is_durable` picks. Older ones that stay lose the
    /// bytes that these cover: whatever becomes of them, the younger bytes are there.
    fn settle(&mut self, line: usize, is_durable: impl Fn(&Store) -> bool) {
        let range = self.line_range(line);
        let mut order = std::mem::take(&mut self.order);
        let mut at = self.lists[line].head;
        while at != NONE {
            order.push(at);
            at = self.stores[at as usize].next;
        }
        // From the youngest to the oldest, with the bytes that are durable from younger ones.
        let mut covered = [0_u8; WORDS_MAX];
        let mut kept = EMPTY;
        for index in order.drain(..).rev() {
            let mut store = self.stores[index as usize];
            let covered = &mut covered[usize::from(store.word)];
            store.mask &= !*covered;
            let durable = is_durable(&store);
            if durable {
                put(&mut self.durable[range.clone()], store.word, store.mask, store.value);
                *covered |= store.mask;
            }
            if durable || store.mask == 0 {
                store.next = self.free;
                self.free = index;
            } else {
                store.next = kept.head;
                kept =
                    List { head: index, tail: if kept.head == NONE { index } else { kept.tail } };
            }
            self.stores[index as usize] = store;
        }
        self.lists[line] = kept;
        self.order = order;
    }

    /// Makes a range zero for good: nothing that was stored there is left, in the caches or on the
    /// medium.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        for line in self.line_of(from)..=self.line_of(to - 1) {
            let range = self.line_range(line);
            let cut = from.max(range.start)..to.min(range.end);
            self.memory[cut.clone()].fill(0);
            self.durable[cut.clone()].fill(0);
            if self.tracks {
                self.stored.push(line as u32);
            }
            let mut at = self.lists[line].head;
            while at != NONE {
                let store = &mut self.stores[at as usize];
                let word = range.start + usize::from(store.word) * 8;
                for byte in (0..8).filter(|byte| cut.contains(&(word + byte))) {
                    store.mask &= !(1 << byte);
                }
                at = store.next;
            }
            // Takes the stores out that have no byte left.
            self.settle(line, |_| false);
        }
        self.drop_clean();
    }

    fn drop_clean(&mut self) {
        let lists = &self.lists;
        self.dirty.retain(|&line| lists[line as usize].head != NONE);
    }

    /// Makes everything durable.
    pub(super) fn settle_all(&mut self) {
        for line in std::mem::take(&mut self.dirty) {
            self.settle(line as usize, |_| true);
        }
        self.captures.clear();
        self.lost.clear();
        self.stored.clear();
    }

    /// Forgets every pending store and what was flushed. The caller restores the memory of the
    /// lines in `stored`.
    pub(super) fn forget(&mut self) {
        for line in self.dirty.drain(..) {
            self.lists[line as usize] = EMPTY;
        }
        self.stores.clear();
        self.free = NONE;
        self.stored.clear();
        self.lost.clear();
        for (_, captures) in &mut self.captures {
            captures.clear();
        }
        self.op = 0;
    }
}
