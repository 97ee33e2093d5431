//! The answer in plain words: fsync or `MAP_SYNC`?

use daxmap::Durability;

use super::engine::{Job, RECORD};
use super::plan::{Method, Phase, SIZES, SUMMARY_SIZE};
use super::results::{Results, Row};
use super::units;

/// A few lines, with figures of this run only.
pub fn lines(results: &Results) -> Vec<String> {
    if let Some(why) = results.machine.times_withheld {
        return without_times(results, why);
    }
    let steady = |method| results.row(method, SUMMARY_SIZE, Phase::Steady);
    let p50 = |method| steady(method).and_then(|row| row.figures.times).map(|times| times.p50_ns);
    let Some((persist, fdatasync)) = p50(Method::RegionPersist).zip(p50(Method::PwriteFdatasync))
    else {
        return vec!["fsync or MAP_SYNC? Not measured.".to_owned()];
    };
    let mut lines = match (results.map_sync, results.report.durability) {
        (true, level) => vec![with_map_sync(level, persist, fdatasync)],
        (false, Durability::ProcessOnly) => vec![in_memory(persist)],
        (false, level) => vec![with_fsync(results, level, persist, fdatasync)],
    };
    lines.extend(msync(results, fdatasync));
    if let Some(flush) = p50(Method::CacheLineFlush) {
        lines.push(emulated(results, flush, fdatasync));
    }
    lines.extend(engine(results));
    lines.extend(remedy(results));
    lines
}

fn times(slow: u64, fast: u64) -> String {
    units::ratio(slow as f64 / fast.max(1) as f64)
}

fn size() -> usize {
    SIZES[SUMMARY_SIZE]
}

fn with_map_sync(level: Durability, persist: u64, fdatasync: u64) -> String {
    let (own, other) = (units::time(persist), units::time(fdatasync));
    let ratio = times(fdatasync, persist);
    let size = size();
    match level {
        Durability::PowerFail | Durability::Fsync => format!(
            "fsync or MAP_SYNC? MAP_SYNC: a durable {size}-byte update takes {own} through the \
             region and {other} with pwrite + fdatasync, {ratio} times as long."
        ),
        Durability::ProcessOnly => format!(
            "fsync or MAP_SYNC? Neither is durable here: MAP_SYNC is accepted, but the memory is \
             volatile. A {size}-byte update takes {own} through the region, {other} with pwrite + \
             fdatasync."
        ),
        _ => format!(
            "fsync or MAP_SYNC? MAP_SYNC is accepted and {ratio} times as fast ({own} against \
             {other} for {size} bytes), but nothing here says that what it keeps survives a power \
             cut."
        ),
    }
}

fn in_memory(persist: u64) -> String {
    format!(
        "fsync or MAP_SYNC? Neither: files here are memory, and nothing survives a power cut. A \
         {}-byte update takes {}; measure a directory on a disk.",
        size(),
        units::time(persist)
    )
}

fn with_fsync(results: &Results, level: Durability, persist: u64, fdatasync: u64) -> String {
    let mut line = format!(
        "fsync or MAP_SYNC? fsync: there is no MAP_SYNC here. A durable {}-byte update takes {} \
         through the region and {} with pwrite + fdatasync",
        size(),
        units::time(persist),
        units::time(fdatasync)
    );
    let flush = results.floor(Method::DeviceFlush).and_then(|row| row.figures.times);
    if let Some(flush) = flush.map(|times| times.p50_ns) {
        line += "; the device's flush alone takes ";
        line += &units::time(flush);
    }
    line += ".";
    if level == Durability::Unverified {
        line += " Whether it survives a power cut is up to the layer below.";
    }
    line
}

fn msync(results: &Results, fdatasync: u64) -> Option<String> {
    let row = results.row(Method::StoreMsync, SUMMARY_SIZE, Phase::Steady)?;
    let msync = row.figures.times?.p50_ns;
    let bytes = |row: &Row| row.figures.device_bytes.filter(|&bytes| bytes > 0.0);
    let base = results.row(Method::PwriteFdatasync, SUMMARY_SIZE, Phase::Steady).and_then(bytes)?;
    let written = bytes(row)?;
    let slower = msync as f64 >= 1.2 * fdatasync as f64;
    (written >= 2.0 * base && slower).then(|| {
        format!(
            "Stores through a mapping and msync take {}, {} times as long as pwrite + fdatasync: \
             they write {} where {} would do.",
            units::time(msync),
            times(msync, fdatasync),
            units::bytes(written),
            units::bytes(base)
        )
    })
}

fn emulated(results: &Results, flush: u64, fdatasync: u64) -> String {
    let mut line = format!(
        "Emulated on DRAM, the same update takes {} by cache-line flush and fence",
        units::time(flush)
    );
    if results.report.durability > Durability::ProcessOnly {
        line += ", ";
        line += &times(fdatasync, flush);
        line += " times less than pwrite + fdatasync";
    }
    line + ". That is the processor's share of MAP_SYNC, not a result for persistent memory."
}

/// What an engine's author asks next: threads, and whole files.
fn engine(results: &Results) -> Option<String> {
    const THREADS: u64 = 16;
    const BYTES: usize = 1 << 20;
    let times = |job| results.job(job).and_then(|row| row.figures.times);
    let log = Job::Persist { threads: THREADS };
    let ratio = results.job(log)?.ratio?;
    let durable = if results.report.durability > Durability::ProcessOnly { "durable " } else { "" };
    let mut line = format!(
        "{THREADS} threads at one log make {} {durable}{RECORD}-byte updates per second, {} times \
         as many as one thread",
        units::rate(times(log)?.per_second),
        units::ratio(ratio)
    );
    let files =
        times(Job::Publish { bytes: BYTES }).zip(times(Job::PublishByHand { bytes: BYTES }));
    if let Some((publish, by_hand)) = files {
        line += "; a whole file of ";
        line += &units::bytes(BYTES as f64);
        line += " takes another's place in ";
        line += &units::time(publish.p50_ns);
        line += ", by hand in ";
        line += &units::time(by_hand.p50_ns);
    }
    Some(line + ".")
}

fn remedy(results: &Results) -> Option<String> {
    if results.map_sync {
        return None;
    }
    let remedy = results.report.reasons.iter().find_map(|reason| reason.remedy.as_deref())?;
    Some(format!("What to change: {remedy}."))
}

fn without_times(results: &Results, why: &str) -> Vec<String> {
    let mut lines = vec![format!("fsync or MAP_SYNC? Times are withheld: {why}. The counts hold:")];
    let mut describe = |method: Method| {
        let Some(row) = results.row(method, SUMMARY_SIZE, Phase::Steady) else { return };
        let figures = &row.figures;
        lines.push(format!(
            "{} bytes by {}{}: system calls {}, cache lines written back {}, fences {}, page \
             faults {}.",
            size(),
            method.label(),
            if method == Method::RegionPersist && results.map_sync { " (MAP_SYNC)" } else { "" },
            figures.system_calls.map_or_else(|| "unknown".to_owned(), units::count),
            units::count(figures.write_backs + figures.non_temporal_lines),
            units::count(figures.fences),
            units::count(figures.page_faults),
        ));
    };
    describe(Method::RegionPersist);
    describe(Method::PwriteFdatasync);
    lines
}
