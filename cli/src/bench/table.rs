//! The two tables, and what their columns mean.

use std::io::{self, Write};

use daxmap::Durability;

use super::engine::{FILE_SIZES, RECORD};
use super::plan::{Method, SIZES};
use super::results::{Figures, JobRow, Results, Row};
use super::sheet::{self, Form, Line};
use super::units;

const UPDATES: Form = Form {
    header: &[
        "update",
        "touch",
        "p50",
        "p99",
        "p99.9",
        "max",
        "ops/s",
        "device B/op",
        "fences",
        "write-backs",
        "syscalls",
        "faults",
        "power cut",
    ],
    figures: 2..12,
    parts: [&[0, 1, 2, 3, 4, 5, 6, 12], &[0, 1, 7, 8, 9, 10, 11]],
};

const JOBS: Form = Form {
    header: &[
        "log or file",
        "p50",
        "p99",
        "p99.9",
        "max",
        "ops/s",
        "ratio",
        "device B/op",
        "flushes",
        "syscalls",
        "power cut",
    ],
    figures: 1..10,
    parts: [&[0, 1, 2, 3, 4, 5, 6, 10], &[0, 7, 8, 9]],
};

/// Writes the tables and their legend, for a terminal of this width.
pub fn write(out: &mut impl Write, results: &Results, width: Option<u16>) -> io::Result<()> {
    sheet::write(out, &UPDATES, &updates(results), width)?;
    writeln!(out)?;
    sheet::write(out, &JOBS, &jobs(results), width)?;
    writeln!(out)?;
    legend(out, results)
}

fn updates(results: &Results) -> Vec<Line> {
    let mut lines = Vec::new();
    for size in (0..SIZES.len()).map(Some).chain([None]) {
        let rows: Vec<&Row> = results.rows.iter().filter(|row| row.case.size == size).collect();
        if rows.is_empty() {
            continue;
        }
        lines
            .push(Line::Heading(size.map_or("any size".to_owned(), |index| heading(SIZES[index]))));
        lines.extend(rows.into_iter().map(|row| Line::Cells(update_cells(row, results))));
    }
    lines
}

fn jobs(results: &Results) -> Vec<Line> {
    let mut lines = Vec::new();
    let log = (format!("{} records, one behind the other", heading(RECORD)), RECORD);
    let files =
        FILE_SIZES.map(|bytes| (format!("{} file in another's place", heading(bytes)), bytes));
    for (heading, bytes) in [log].into_iter().chain(files) {
        let rows = results.jobs.iter().filter(|row| row.job.bytes() == bytes);
        let rows = rows.map(|row| Line::Cells(job_cells(row, results)));
        lines.push(Line::Heading(heading));
        lines.extend(rows);
    }
    lines
}

fn heading(bytes: usize) -> String {
    match bytes {
        _ if bytes < 1 << 10 => format!("{bytes} B"),
        _ if bytes < 1 << 20 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn update_cells(row: &Row, results: &Results) -> Vec<String> {
    let figures = &row.figures;
    let label = row.case.method.label();
    let own = row.case.method == Method::RegionPersist;
    let touch = if row.case.size.is_some() { row.phase.label() } else { "" };
    let mut cells = vec![name(label, own, results), touch.to_owned()];
    cells.extend(times(figures, results));
    cells.extend([
        figures.device_bytes.map_or_else(dash, units::bytes),
        units::count(figures.fences),
        write_backs(figures),
        figures.system_calls.map_or_else(dash, units::count),
        units::count(figures.page_faults),
        survives(row.durability).to_owned(),
    ]);
    cells
}

fn job_cells(row: &JobRow, results: &Results) -> Vec<String> {
    let figures = &row.figures;
    let mut cells = vec![name(&row.job.label(), row.job.is_own(), results)];
    cells.extend(times(figures, results));
    cells.extend([
        or_withheld(row.ratio.map(units::ratio), results),
        figures.device_bytes.map_or_else(dash, units::bytes),
        figures.device_flushes.map_or_else(dash, units::count),
        figures.system_calls.map_or_else(dash, units::count),
        survives(Some(row.durability)).to_owned(),
    ]);
    cells
}

fn name(label: &str, own: bool, results: &Results) -> String {
    if own { format!("  {label} ({})", results.report.backend) } else { format!("  {label}") }
}

fn dash() -> String {
    "-".to_owned()
}

fn or_withheld(text: Option<String>, results: &Results) -> String {
    match results.machine.times_withheld {
        Some(_) => "withheld".to_owned(),
        None => text.unwrap_or_else(dash),
    }
}

/// p50, p99, p99.9, max and ops/s.
fn times(figures: &Figures, results: &Results) -> [String; 5] {
    let times = figures.times;
    [
        times.map(|times| times.p50_ns).map(units::time),
        times.and_then(|times| times.p99_ns).map(units::time),
        times.and_then(|times| times.p999_ns).map(units::time),
        times.map(|times| times.max_ns).map(units::time),
        times.map(|times| units::rate(times.per_second)),
    ]
    .map(|text| or_withheld(text, results))
}

fn write_backs(figures: &Figures) -> String {
    match (figures.write_backs > 0.0, figures.non_temporal_lines > 0.0) {
        (_, false) => units::count(figures.write_backs),
        (false, true) => format!("{} nt", units::count(figures.non_temporal_lines)),
        (true, true) => format!(
            "{} + {} nt",
            units::count(figures.write_backs),
            units::count(figures.non_temporal_lines)
        ),
    }
}

/// Whether the update outlives a power cut, in a word.
pub fn survives(durability: Option<Durability>) -> &'static str {
    match durability {
        Some(Durability::Fsync | Durability::PowerFail) => "survives",
        Some(Durability::ProcessOnly) => "lost",
        Some(_) => "unverified",
        None => "-",
    }
}

/// The name of a hypervisor that has this signature.
fn known(signature: &str) -> &str {
    match signature {
        "KVMKVMKVM" => "KVM",
        "TCGTCGTCGTCG" => "QEMU TCG",
        "Microsoft Hv" => "Hyper-V",
        "XenVMMXenVMM" => "Xen",
        "VMwareVMware" => "VMware",
        other => other,
    }
}

fn legend(out: &mut impl Write, results: &Results) -> io::Result<()> {
    let machine = &results.machine;
    writeln!(
        out,
        "{}, {} CPU{}, Linux {}{}{}; one thread where no other number is given; files of {}; {:.0} s.",
        machine.cpu,
        machine.cpus,
        if machine.cpus == 1 { "" } else { "s" },
        machine.kernel,
        machine
            .hypervisor
            .as_deref()
            .map_or(String::new(), |name| format!(", under {}", known(name))),
        machine.clock_source.as_ref().map_or(String::new(), |name| format!(", clock {name}")),
        units::bytes(results.file_len as f64),
        results.seconds,
    )?;
    let lines = [
        "first: the first update in its page since the file was made; steady: the same pages \
         again, line after line.",
        "(emulated): on DRAM, as if it were persistent memory behind MAP_SYNC; not a result for \
         persistent memory.",
        "Every time includes one reading of the clock; nothing is subtracted. p99 and p99.9 need \
         100 and 1000 updates.",
        "device B/op: bytes the block device wrote, whoever wrote them, in the middle batch.",
        "fences, write-backs: of this process, in cache lines; nt: stored past the cache. The \
         kernel's own are not counted.",
        "log: persist: the threads share one region; append: the threads share one daxmap::log, its \
         space recycled meanwhile; ops/s is of all together. By hand, one thread writes and syncs \
         for as many.",
        "file: p50 is from nothing to a durable file in place of the one of that name. By hand: \
         temporary name, write, fsync, rename, fsync of the directory.",
        "ratio: ops/s against persist by one thread, or against the file by hand; the median over the rounds. \
         flushes: of the device, per update.",
        "power cut: what the update is promised to do there. A drive that lies about its cache is \
         not noticed.",
    ];
    let emulates = results.rows.iter().any(|row| row.case.method.is_emulated());
    let lines = lines.into_iter().filter(|line| emulates || !line.starts_with("(emulated)"));
    for line in lines {
        writeln!(out, "{line}")?;
    }
    for note in &results.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::engine::Job;
    use super::super::sample::{job, results, row};
    use super::*;

    #[test]
    fn sizes_have_their_unit() {
        for (bytes, expected) in [
            (8, "8 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (65536, "64 KiB"),
            ((1 << 20) - 1024, "1023 KiB"),
            (1 << 20, "1 MiB"),
            (8 << 20, "8 MiB"),
        ] {
            assert_eq!(heading(bytes), expected);
        }
    }

    /// The headings, each with the first cells of what is below it.
    fn outline(lines: &[Line]) -> Vec<(String, Vec<String>)> {
        let mut outline: Vec<(String, Vec<String>)> = Vec::new();
        for line in lines {
            match line {
                Line::Heading(text) => outline.push((text.clone(), Vec::new())),
                Line::Cells(cells) => {
                    outline.last_mut().unwrap().1.push(cells[0].trim().to_owned());
                }
            }
        }
        outline
    }

    #[test]
    fn each_row_is_below_its_size() {
        let mut results = results(vec![row(Method::PwriteFsync, 10), row(Method::EmptyCall, 10)]);
        results.jobs = vec![
            job(Job::Persist { threads: 4 }, 10, 1.0),
            job(Job::Publish { bytes: FILE_SIZES[0] }, 10, 1.0),
            job(Job::PublishByHand { bytes: FILE_SIZES[2] }, 10, 1.0),
        ];
        let expected = [("64 B", "pwrite + fsync"), ("any size", "floor: empty system call")];
        let expected = expected.map(|(size, label)| (size.to_owned(), vec![label.to_owned()]));
        assert_eq!(outline(&updates(&results)), expected);
        let own = |label: &str| vec![format!("{label} ({})", results.report.backend)];
        let by_hand = vec!["by hand: write, sync, rename, sync".to_owned()];
        let expected = [
            ("64 B records, one behind the other", own("persist, 4 threads")),
            ("64 KiB file in another's place", own("publish")),
            ("1 MiB file in another's place", Vec::new()),
            ("8 MiB file in another's place", by_hand),
        ];
        let expected = expected.map(|(heading, rows)| (heading.to_owned(), rows));
        assert_eq!(outline(&jobs(&results)), expected);
    }

    #[test]
    fn the_touch_is_told_where_there_are_two() {
        let mut first = row(Method::PwriteFsync, 10);
        first.phase = super::super::plan::Phase::FirstTouch;
        let results = results(vec![first, row(Method::PwriteFsync, 10), row(Method::Clock, 10)]);
        let touch = |row: &Row| update_cells(row, &results)[1].clone();
        let touches: Vec<String> = results.rows.iter().map(touch).collect();
        assert_eq!(touches, ["first", "steady", ""]);
    }

    #[test]
    fn cells_say_what_was_counted_and_what_was_not() {
        let results = results(Vec::new());
        let mut figures = row(Method::RegionPersist, 2_000).figures;
        for (lines, streamed, expected) in
            [(0.0, 0.0, "0"), (2.0, 0.0, "2"), (0.0, 3.0, "3 nt"), (2.0, 3.0, "2 + 3 nt")]
        {
            (figures.write_backs, figures.non_temporal_lines) = (lines, streamed);
            assert_eq!(write_backs(&figures), expected);
        }
        assert_eq!(times(&figures, &results), ["2.00 us", "-", "-", "4.00 us", "500k"]);
        let mut withheld = self::results(Vec::new());
        withheld.machine.times_withheld = Some("made up");
        assert_eq!(times(&figures, &withheld), ["withheld"; 5]);
        let cells = update_cells(&row(Method::EmptyCall, 10), &results);
        assert_eq!(cells[7..], ["-", "0", "0", "-", "0", "-"]);
        for (level, word) in [
            (Some(Durability::PowerFail), "survives"),
            (Some(Durability::Fsync), "survives"),
            (Some(Durability::Unverified), "unverified"),
            (Some(Durability::ProcessOnly), "lost"),
            (None, "-"),
        ] {
            assert_eq!(survives(level), word);
        }
    }

    #[test]
    fn the_legend_names_the_machine_and_what_is_emulated() {
        let mut results = results(vec![row(Method::Clock, 10)]);
        let said = |results: &Results| {
            let mut out = Vec::new();
            legend(&mut out, results).unwrap();
            String::from_utf8(out).unwrap()
        };
        (results.machine.cpu, results.machine.cpus) = ("A Processor".to_owned(), 2);
        results.machine.kernel = "6.1".to_owned();
        results.machine.clock_source = None;
        results.notes = vec!["something else".to_owned()];
        for (signature, name) in [
            (Some("KVMKVMKVM"), ", under KVM"),
            (Some("TCGTCGTCGTCG"), ", under QEMU TCG"),
            (Some("Microsoft Hv"), ", under Hyper-V"),
            (Some("XenVMMXenVMM"), ", under Xen"),
            (Some("VMwareVMware"), ", under VMware"),
            (Some("SomeThing"), ", under SomeThing"),
            (None, ""),
        ] {
            results.machine.hypervisor = signature.map(str::to_owned);
            let expected = format!("A Processor, 2 CPUs, Linux 6.1{name}; one thread where ");
            assert!(said(&results).starts_with(&expected), "{}", said(&results));
        }
        results.machine.cpus = 1;
        results.machine.clock_source = Some("tsc".to_owned());
        let text = said(&results);
        assert!(text.starts_with("A Processor, 1 CPU, Linux 6.1, clock tsc; one thread"), "{text}");
        assert!(
            text.ends_with("\nnote: something else\n") && !text.contains("(emulated)"),
            "{text}"
        );
        results.rows.push(row(Method::CacheLineFlush, 10));
        assert!(said(&results).contains("\n(emulated): on DRAM"));
    }
}
