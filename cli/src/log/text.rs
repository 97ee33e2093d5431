//! For people.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use daxmap::log::Log;
use daxmap::{AnyRegion, Region};

use super::{clean, lsns, verdict};

fn head(out: &mut impl Write, file: &Path, log: &Log<AnyRegion>) -> io::Result<()> {
    let seen = log.recovery();
    writeln!(out, "{}: {}", clean(&file.display().to_string()), verdict(seen))?;
    write!(out, "  records      {}", seen.records)?;
    if let Some((first, last)) = lsns(seen) {
        write!(out, ", Lsns {first} to {last}")?;
    }
    writeln!(out, "; up to {} released", log.released())?;
    writeln!(out, "  shutdowns    unsafe ones: {}", seen.unsafe_shutdown)?;
    if seen.missing > 0 {
        writeln!(out, "  without one  {} Lsns below the last", seen.missing)?;
    }
    Ok(())
}

/// What was found, part by part.
pub fn verify(out: &mut impl Write, file: &Path, log: &Log<AnyRegion>) -> io::Result<()> {
    let seen = log.recovery();
    head(out, file, log)?;
    for damage in &seen.damaged {
        let (first, last) = (damage.lsns.start(), damage.lsns.end());
        write!(out, "  damaged      ")?;
        writeln!(out, "{}: Lsns between {first} and {last}", bytes(&damage.bytes))?;
    }
    for range in &seen.lost_segments {
        writeln!(out, "  damaged      {}: a segment, both copies of its header", bytes(range))?;
    }
    let word = if seen.was_closed { "damaged" } else { "torn or damaged" };
    for range in &seen.healed {
        writeln!(out, "  copy         {}: one of two copies is {word}", bytes(range))?;
    }
    for range in &seen.dropped {
        write!(out, "  dropped      {}: no commit, ", bytes(range))?;
        writeln!(out, "cut by a crash or of an earlier life of the space")?;
    }
    if seen.finished_truncation {
        writeln!(out, "  truncation   was interrupted; the records are taken as truncated")?;
    }
    writeln!(out, "  read         {} bytes of segments", seen.bytes_read)
}

fn bytes(range: &Range<u64>) -> String {
    format!("bytes {} to {}", range.start, range.end)
}

/// Sizes and counts.
pub fn stat(out: &mut impl Write, file: &Path, log: &Log<AnyRegion>) -> io::Result<()> {
    let space = log.space();
    head(out, file, log)?;
    writeln!(out, "  closed       {}", if log.recovery().was_closed { "yes" } else { "no" })?;
    writeln!(out, "  file         {} bytes", log.region().len())?;
    writeln!(
        out,
        "  segments     {} of {} bytes: {} free, {} lost",
        space.segments, space.segment_bytes, space.free_segments, space.lost_segments
    )?;
    writeln!(out, "  used         {} bytes", space.used_bytes)?;
    writeln!(out, "  free         {} bytes", space.free_bytes)?;
    writeln!(out, "  a commit     {} bytes at most", log.commit_bytes_max())
}
