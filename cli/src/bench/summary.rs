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
    let remedy = results.report.reasons.iter().find_map(|reason| reason.remedy.as_ref())?;
    Some(format!("Remedy: {remedy}"))
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

#[cfg(test)]
mod tests {
    use super::super::sample::{job, results, row};
    use super::*;

    /// 2 us through the region, 100 us with fdatasync.
    fn usual() -> Results {
        results(vec![row(Method::RegionPersist, 2_000), row(Method::PwriteFdatasync, 100_000)])
    }

    fn only(results: &Results) -> String {
        let lines = lines(results);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    }

    #[test]
    fn with_map_sync_it_is_the_level_that_decides() {
        let mut results = usual();
        results.map_sync = true;
        for (level, expected) in [
            (
                Durability::PowerFail,
                "fsync or MAP_SYNC? MAP_SYNC: a durable 64-byte update takes 2.00 us through the \
                 region and 100 us with pwrite + fdatasync, 50.0 times as long.",
            ),
            (
                Durability::ProcessOnly,
                "fsync or MAP_SYNC? Neither is durable here: MAP_SYNC is accepted, but the memory \
                 is volatile. A 64-byte update takes 2.00 us through the region, 100 us with \
                 pwrite + fdatasync.",
            ),
            (
                Durability::Unverified,
                "fsync or MAP_SYNC? MAP_SYNC is accepted and 50.0 times as fast (2.00 us against \
                 100 us for 64 bytes), but nothing here says that what it keeps survives a power \
                 cut.",
            ),
        ] {
            results.report.durability = level;
            assert_eq!(only(&results), expected);
        }
        results.report.durability = Durability::Fsync;
        assert!(only(&results).contains("MAP_SYNC: a durable"));
    }

    #[test]
    fn without_it_fsync_is_the_answer() {
        let mut results = usual();
        let fsync = "fsync or MAP_SYNC? fsync: there is no MAP_SYNC here. A durable 64-byte update \
                     takes 2.00 us through the region and 100 us with pwrite + fdatasync";
        assert_eq!(only(&results), format!("{fsync}."));
        results.rows.push(row(Method::DeviceFlush, 80_000));
        let flush = format!("{fsync}; the device's flush alone takes 80.0 us.");
        assert_eq!(only(&results), flush);
        results.report.durability = Durability::Unverified;
        let unverified =
            format!("{flush} Whether it survives a power cut is up to the layer below.");
        assert_eq!(only(&results), unverified);
        results.report.durability = Durability::ProcessOnly;
        assert_eq!(
            only(&results),
            "fsync or MAP_SYNC? Neither: files here are memory, and nothing survives a power cut. \
             A 64-byte update takes 2.00 us; measure a directory on a disk."
        );
    }

    #[test]
    fn what_was_not_measured_is_not_answered() {
        let results = results(vec![row(Method::RegionPersist, 2_000)]);
        assert_eq!(only(&results), "fsync or MAP_SYNC? Not measured.");
    }

    #[test]
    fn msync_is_named_where_it_writes_more_and_takes_longer() {
        let said = |ns, written, base| {
            let mut results = usual();
            results.rows[1].figures.device_bytes = base;
            let mut msync = row(Method::StoreMsync, ns);
            msync.figures.device_bytes = written;
            results.rows.push(msync);
            lines(&results).get(1).cloned()
        };
        let expected = "Stores through a mapping and msync take 250 us, 2.50 times as long as \
                        pwrite + fdatasync: they write 64.0 KiB where 4.00 KiB would do.";
        assert_eq!(said(250_000, Some(65536.0), Some(4096.0)).as_deref(), Some(expected));
        // As much again, and a fifth longer: from there on.
        assert!(said(120_000, Some(8192.0), Some(4096.0)).is_some());
        assert_eq!(said(119_000, Some(8192.0), Some(4096.0)), None);
        assert_eq!(said(120_000, Some(8191.0), Some(4096.0)), None);
        for (written, base) in [(None, Some(1.0)), (Some(1.0), None), (Some(1.0), Some(0.0))] {
            assert_eq!(said(250_000, written, base), None);
        }
    }

    #[test]
    fn what_is_emulated_is_called_so() {
        let mut results = usual();
        results.rows.push(row(Method::CacheLineFlush, 200));
        let emulated =
            "Emulated on DRAM, the same update takes 200 ns by cache-line flush and fence";
        let what = "That is the processor's share of MAP_SYNC, not a result for persistent memory.";
        let times = "500 times less than pwrite + fdatasync";
        assert_eq!(lines(&results)[1], format!("{emulated}, {times}. {what}"));
        // In memory there is nothing that it would save.
        results.report.durability = Durability::ProcessOnly;
        assert_eq!(lines(&results)[1], format!("{emulated}. {what}"));
    }

    #[test]
    fn an_engine_is_told_of_threads_and_files() {
        let mut results = usual();
        results.jobs = vec![job(Job::Persist { threads: 16 }, 1_000, 7.5)];
        let log = "16 threads at one log make 1.00M durable 64-byte updates per second, 7.50 times \
                   as many as one thread";
        assert_eq!(lines(&results)[1], format!("{log}."));
        results.jobs.push(job(Job::Publish { bytes: 1 << 20 }, 1, 1.0));
        results.jobs.push(job(Job::PublishByHand { bytes: 1 << 20 }, 2, 1.0));
        let files =
            "a whole file of 1.00 MiB takes another's place in 16.4 us, by hand in 32.8 us.";
        assert_eq!(lines(&results)[1], format!("{log}; {files}"));
        results.report.durability = Durability::ProcessOnly;
        assert!(
            lines(&results)[1].contains("make 1.00M 64-byte updates"),
            "in memory none is durable"
        );
    }

    #[test]
    fn a_remedy_is_named_where_there_is_no_map_sync() {
        let mut results = usual();
        let mut report = daxmap::probe::probe("/dev/shm").unwrap();
        results.report.reasons.append(&mut report.reasons);
        let remedy = results.report.reasons.iter().find_map(|reason| reason.remedy.clone());
        assert_eq!(lines(&results)[1], format!("Remedy: {}", remedy.unwrap()));
        results.map_sync = true;
        assert_eq!(lines(&results).len(), 1);
    }

    #[test]
    fn counts_hold_where_times_do_not() {
        let mut results = usual();
        results.machine.times_withheld = Some("the clock is made up");
        results.map_sync = true;
        let persist = &mut results.rows[0].figures;
        (persist.write_backs, persist.non_temporal_lines) = (2.0, 1.0);
        (persist.fences, persist.page_faults) = (1.0, 0.25);
        results.rows[1].figures.system_calls = Some(2.0);
        let expected = [
            "fsync or MAP_SYNC? Times are withheld: the clock is made up. The counts hold:",
            "64 bytes by region persist (MAP_SYNC): system calls unknown, cache lines written back \
             3, fences 1, page faults 0.25.",
            "64 bytes by pwrite + fdatasync: system calls 2, cache lines written back 0, fences 0, \
             page faults 0.",
        ];
        assert_eq!(lines(&results), expected);
        results.map_sync = false;
        assert!(lines(&results)[1].starts_with("64 bytes by region persist: "));
    }
}
