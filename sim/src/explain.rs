//! A failing image in words: which lines it lost, and which flush or drain would have kept them.

use super::Mode;
use super::image::Fate;
use super::region::SimRegion;
use super::report::Crash;
use super::thread::thread_index;
use super::trace::{Kind, Step};

/// Operations printed of a long workload.
const OPERATIONS_SHOWN: usize = 40;

/// The crashes that led to the last of `images`, which are the images of a crash of the workload,
/// of a crash of recovery on that image, and so on.
pub(super) fn crashes(images: &[SimRegion]) -> Vec<Crash> {
    let mut crashes: Vec<Crash> = Vec::new();
    let mut fates: Vec<Vec<Fate>> = Vec::new();
    for image in images {
        // A line that the crashed recovery had not touched was left open by the crash before.
        let level = fates.len();
        fates.push(Vec::new());
        for fate in image.fates() {
            let of = level.saturating_sub(usize::from(fate.hops));
            fates[of].push(fate);
        }
    }
    for (image, fates) in images.iter().zip(fates) {
        let Some(before) = image.parent() else { continue };
        crashes.push(crash(before, image.image_len(), &fates));
    }
    crashes
}

fn crash(crashed: &SimRegion, len: u64, fates: &[Fate]) -> Crash {
    let state = crashed.lock();
    let (trace, mode) = (&state.trace, state.model.mode);
    let mut crash = Crash {
        after_op: state.model.op,
        operations: Vec::new(),
        lost: Vec::new(),
        kept: Vec::new(),
    };
    let skipped = trace.len().saturating_sub(OPERATIONS_SHOWN);
    if skipped > 0 {
        crash.operations.push(format!("({skipped} operations before)"));
    }
    let several = trace.iter().any(|step| step.thread != trace[0].thread);
    for (index, step) in trace.iter().enumerate().skip(skipped) {
        let thread =
            if several { format!("thread {}: ", thread_index(step.thread)) } else { String::new() };
        crash.operations.push(format!("{:>3}. {thread}{step}", index + 1));
    }
    if len < state.len {
        let (old, new) = (len, state.len);
        crash
            .lost
            .push(format!("lost: the growth to {new} bytes, not durable yet: {old} are left"));
    }
    let mut lines: Vec<u32> = fates.iter().map(|fate| fate.line).collect();
    lines.sort_unstable();
    lines.dedup();
    for line in lines {
        let of_line = || fates.iter().filter(move |fate| fate.line == line);
        let address = u64::from(line) << mode.line_shift();
        let unit = if mode == Mode::PageCache { "sector" } else { "line" };
        let mut ops: Vec<u32> = of_line().filter(|fate| !fate.kept).map(|fate| fate.op).collect();
        ops.dedup();
        for op in &ops {
            let pieces = of_line().filter(|fate| fate.op == *op).count();
            let lost = of_line().filter(|fate| fate.op == *op && !fate.kept).count();
            let part =
                if lost == pieces { String::new() } else { format!(" {lost} of {pieces} pieces,") };
            let why = reason(trace, mode, line, *op);
            crash.lost.push(format!("lost: {unit} at {address:#x},{part} {why}"));
        }
        if ops.is_empty() {
            let ops: Vec<u32> = of_line().map(|fate| fate.op).collect();
            let (first, last) = (ops.first().unwrap_or(&0), ops.last().unwrap_or(&0));
            let when = if first == last {
                format!("at op {first}")
            } else {
                format!("at ops {first} to {last}")
            };
            crash.kept.push(format!("kept: {unit} at {address:#x}, written {when}, whole"));
        }
    }
    crash
}

/// Why what operation `op` stored to the line was not durable when the crash came.
fn reason(trace: &[Step], mode: Mode, line: u32, op: u32) -> String {
    let shift = mode.line_shift();
    let Some(store) = trace.get(op as usize - 1) else { return format!("written at op {op}") };
    let written = format!("written at op {op} ({store})");
    let steps = || trace.iter().enumerate().map(|(index, step)| (index + 1, step));
    let captures_line = |step: &Step| {
        let captures =
            step.kind == Kind::Flush || mode == Mode::PageCache && step.kind == Kind::WriteFlush;
        captures && step.touches(line, shift)
    };
    let (flush_at, thread) = if store.kind == Kind::WriteFlush {
        (op as usize, store.thread)
    } else {
        let after = steps().find(|(at, step)| *at > op as usize && captures_line(step));
        let Some((at, flush)) = after else {
            let before = steps().rfind(|(at, step)| *at < op as usize && captures_line(step));
            return match before {
                Some((at, _)) => {
                    format!("{written} after the flush at op {at}, never flushed again")
                }
                None => format!("{written}, never flushed"),
            };
        };
        (at, flush.thread)
    };
    let history = if flush_at == op as usize {
        written
    } else {
        format!("{written}, flushed at op {flush_at}")
    };
    let drains = || steps().filter(|(at, step)| *at > flush_at && step.kind == Kind::Drain);
    if let Some((at, _)) = drains().find(|(_, step)| step.thread == thread && step.failed) {
        return format!("{history}; the drain at op {at} failed, and no later one covers it");
    }
    match drains().find(|(_, step)| step.thread != thread) {
        Some((at, step)) => format!(
            "{history} by thread {}; the drain at op {at} was thread {}'s and covers only its own flushes",
            thread_index(thread),
            thread_index(step.thread)
        ),
        None => format!("{history}, not drained before the crash"),
    }
}
