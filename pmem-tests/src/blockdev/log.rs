//! What a filesystem sent to its device, in order, and the media that a crash could have left.

use std::sync::Arc;

use rustix::io::Errno;

use super::image::Image;

/// The unit that a device writes whole: a write that is torn is torn between sectors.
pub const SECTOR: usize = 512;

/// One request of the filesystem.
#[derive(Clone, PartialEq, Eq)]
pub enum Request {
    /// Bytes to be written.
    Write {
        /// First byte on the device.
        offset: u64,
        /// What was to be written.
        data: Arc<[u8]>,
    },
    /// A range to be zero from now on: a discard, or zeros without data.
    Zero {
        /// First byte on the device.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Everything that was answered before is to be on the medium when this is answered.
    Flush,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write { offset, data } => write!(f, "write {offset:#x} +{:#x}", data.len()),
            Self::Zero { offset, len } => write!(f, "zero {offset:#x} +{len:#x}"),
            Self::Flush => f.write_str("flush"),
        }
    }
}

/// What the device did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered with success.
    Done,
    /// It was answered with this error, and nothing of it was done.
    Failed(Errno),
    /// Only this many sectors from its start were written; it was never answered with success.
    Torn(usize),
    /// A flush that was answered with an error, and lost what it should have made durable.
    Lost(Errno),
}

/// A request and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the filesystem asked for.
    pub request: Request,
    /// What became of it.
    pub outcome: Outcome,
}

impl Entry {
    /// True for a flush that was answered with success.
    #[must_use]
    pub fn is_flush(&self) -> bool {
        self.request == Request::Flush && self.outcome == Outcome::Done
    }

    /// True for a write or a discard that changed something.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.request != Request::Flush && !matches!(self.outcome, Outcome::Failed(_))
    }

    pub(super) fn apply(&self, image: &mut Image) {
        match (&self.request, self.outcome) {
            (Request::Write { offset, data }, Outcome::Done) => image.write(*offset, data),
            (Request::Write { offset, data }, Outcome::Torn(sectors)) => {
                image.write(*offset, &data[..data.len().min(sectors * SECTOR)]);
            }
            (Request::Zero { offset, len }, Outcome::Done) => image.zero(*offset, *len),
            _ => {}
        }
    }

    /// As [`apply`](Self::apply), of what a crash keeps.
    pub(super) fn apply_part(&self, image: &mut Image, keep: Keep) {
        match (keep, &self.request) {
            (Keep::Nothing | Keep::Sectors(0), _) => {}
            (Keep::Sectors(sectors), Request::Write { .. }) if self.outcome == Outcome::Done => {
                Self { request: self.request.clone(), outcome: Outcome::Torn(sectors) }
                    .apply(image);
            }
            _ => self.apply(image),
        }
    }
}

/// What a crash keeps of one write that no flush has made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All of it.
    Whole,
    /// This many sectors from its start. A discard is kept whole or not at all: more than zero
    /// is whole.
    Sectors(usize),
    /// Nothing.
    Nothing,
}

/// Everything a device was asked since it was filled, in the order in which it did it.
///
/// A flush covers what was answered before the flush was asked for. The log has the order in
/// which requests were served, one at a time; a write that was under way while a flush was asked
/// for may stand before it, and then counts as covered.
#[derive(Clone, Debug)]
pub struct Log {
    /// The medium before the first entry.
    pub base: Image,
    /// The requests.
    pub entries: Vec<Entry>,
}

impl Log {
    /// The positions of the flushes that were answered with success.
    pub fn flushes(&self) -> impl Iterator<Item = usize> + '_ {
        self.entries.iter().enumerate().filter(|(_, entry)| entry.is_flush()).map(|(at, _)| at)
    }

    /// The medium after the first `count` entries, if the device never lost anything.
    ///
    /// # Panics
    ///
    /// If there are fewer entries.
    #[must_use]
    pub fn image_after(&self, count: usize) -> Image {
        self.crash_image(count, |_, _| Keep::Whole)
    }

    /// The position from which on a crash after the first `count` entries may lose writes: all
    /// before it were made durable by a flush.
    #[must_use]
    pub fn durable_before(&self, count: usize) -> usize {
        self.entries[..count].iter().rposition(Entry::is_flush).map_or(0, |flush| flush + 1)
    }

    /// The medium that a power cut after the first `count` entries leaves: everything before
    /// the last successful flush, and of each write after it what `keep` says, asked with the
    /// write's position, in order.
    ///
    /// A flush that lost what it should have made durable took it from this image as well.
    ///
    /// # Panics
    ///
    /// If there are fewer than `count` entries.
    pub fn crash_image(&self, count: usize, mut keep: impl FnMut(usize, &Entry) -> Keep) -> Image {
        let durable = self.durable_before(count);
        let mut image = self.base.clone();
        for (at, entry) in self.entries[..count].iter().enumerate() {
            if !entry.is_change() || self.lost(at, count) {
                continue;
            }
            let kept = if at < durable { Keep::Whole } else { keep(at, entry) };
            entry.apply_part(&mut image, kept);
        }
        image
    }

    /// Whether a flush before `count` lost the entry at `at`.
    fn lost(&self, at: usize, count: usize) -> bool {
        self.entries[at..count]
            .iter()
            .find(|entry| entry.is_flush() || matches!(entry.outcome, Outcome::Lost(_)))
            .is_some_and(|entry| !entry.is_flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8, sectors: usize) -> Entry {
        let data = vec![byte; sectors * SECTOR].into();
        Entry { request: Request::Write { offset, data }, outcome: Outcome::Done }
    }

    fn flush(outcome: Outcome) -> Entry {
        Entry { request: Request::Flush, outcome }
    }

    /// The first byte of each of the first sectors.
    fn sectors(image: &Image) -> Vec<u8> {
        (0..6)
            .map(|sector| {
                let mut byte = [0];
                image.read(sector * SECTOR as u64, &mut byte);
                byte[0]
            })
            .collect()
    }

    fn log(entries: Vec<Entry>) -> Log {
        Log { base: Image::new(1 << 16), entries }
    }

    #[test]
    fn flushed_writes_stay_and_the_others_are_chosen() {
        let log =
            log(vec![write(0, 1, 2), flush(Outcome::Done), write(0, 2, 1), write(1024, 3, 4)]);
        assert_eq!(log.flushes().collect::<Vec<_>>(), [1]);
        assert_eq!(log.durable_before(4), 2);
        assert_eq!(sectors(&log.image_after(4)), [2, 1, 3, 3, 3, 3]);
        assert_eq!(sectors(&log.image_after(1)), [1, 1, 0, 0, 0, 0]);
        let none = log.crash_image(4, |_, _| Keep::Nothing);
        assert_eq!(sectors(&none), [1, 1, 0, 0, 0, 0]);
        let mut asked = Vec::new();
        let some = log.crash_image(4, |at, _| {
            asked.push(at);
            if at == 2 { Keep::Nothing } else { Keep::Sectors(2) }
        });
        assert_eq!(asked, [2, 3]);
        assert_eq!(sectors(&some), [1, 1, 3, 3, 0, 0]);
    }

    #[test]
    fn failed_requests_change_nothing_and_lost_ones_are_lost() {
        let mut failed = write(0, 9, 1);
        failed.outcome = Outcome::Failed(Errno::IO);
        let mut torn = write(1024, 5, 3);
        torn.outcome = Outcome::Torn(1);
        let log = log(vec![
            write(512, 1, 1),
            flush(Outcome::Done),
            failed,
            write(0, 2, 2),
            flush(Outcome::Lost(Errno::IO)),
            torn,
            flush(Outcome::Done),
        ]);
        assert_eq!(sectors(&log.image_after(4)), [2, 2, 0, 0, 0, 0]);
        assert_eq!(sectors(&log.image_after(7)), [0, 1, 5, 0, 0, 0]);
    }

    #[test]
    fn a_failed_flush_makes_nothing_durable() {
        let log = log(vec![write(0, 1, 1), flush(Outcome::Failed(Errno::IO))]);
        assert_eq!(log.durable_before(2), 0);
        assert_eq!(sectors(&log.crash_image(2, |_, _| Keep::Nothing)), [0; 6]);
        assert_eq!(sectors(&log.image_after(2))[0], 1);
    }
}
