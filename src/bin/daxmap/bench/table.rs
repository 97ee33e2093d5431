//! The table, and what its columns mean.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::plan::{Method, SIZES};
use super::results::{Results, Row};
use super::units;

const HEADER: [&str; 13] = [
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
];

/// Columns that are figures.
const FIGURES: std::ops::Range<usize> = 2..12;

/// The columns of the table, and of the two tables where that one is too wide.
const ALL: [usize; 13] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const TIMES: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 12];
const COUNTS: [usize; 7] = [0, 1, 7, 8, 9, 10, 11];

/// Writes the table and its legend, for a terminal of this width.
pub fn write(out: &mut impl Write, results: &Results, width: Option<u16>) -> io::Result<()> {
    let all = table(results, &ALL);
    let needed = all.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    if width.is_none_or(|width| usize::from(width) >= needed) {
        writeln!(out, "{all}")?;
    } else {
        writeln!(out, "{}\n\n{}", table(results, &TIMES), table(results, &COUNTS))?;
    }
    writeln!(out)?;
    legend(out, results)
}

/// Not fitted to the terminal: a figure broken over two lines is no figure.
fn table(results: &Results, columns: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|&column| HEADER[column]));
    for size in (0..SIZES.len()).map(Some).chain([None]) {
        let rows: Vec<&Row> = results.rows.iter().filter(|row| row.case.size == size).collect();
        if rows.is_empty() {
            continue;
        }
        table.add_row([heading(size)]);
        for row in rows {
            let cells = cells(row, results);
            table.add_row(columns.iter().map(|&column| &cells[column]));
        }
    }
    for (position, column) in columns.iter().enumerate() {
        if FIGURES.contains(column)
            && let Some(column) = table.column_mut(position)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

fn heading(size: Option<usize>) -> String {
    match size {
        Some(index) if SIZES[index] < 1024 => format!("{} B", SIZES[index]),
        Some(index) => format!("{} KiB", SIZES[index] / 1024),
        None => "any size".to_owned(),
    }
}

fn cells(row: &Row, results: &Results) -> [String; HEADER.len()] {
    let dash = || "-".to_owned();
    let withheld = results.machine.times_withheld.is_some();
    let time = |ns: Option<u64>| match ns {
        _ if withheld => "withheld".to_owned(),
        Some(ns) => units::time(ns),
        None => dash(),
    };
    let times = row.times;
    [
        format!("  {}", label(row, results)),
        if row.case.size.is_some() { row.phase.label().to_owned() } else { String::new() },
        time(times.map(|times| times.p50_ns)),
        time(times.and_then(|times| times.p99_ns)),
        time(times.and_then(|times| times.p999_ns)),
        time(times.map(|times| times.max_ns)),
        if withheld {
            "withheld".to_owned()
        } else {
            times.map_or_else(dash, |times| units::rate(times.per_second))
        },
        row.device_bytes.map_or_else(dash, units::bytes),
        units::count(row.fences),
        write_backs(row),
        row.system_calls.map_or_else(dash, units::count),
        units::count(row.page_faults),
        survives(row).to_owned(),
    ]
}

fn label(row: &Row, results: &Results) -> String {
    let label = row.case.method.label();
    if row.case.method == Method::RegionPersist {
        format!("{label} ({})", results.report.backend)
    } else {
        label.to_owned()
    }
}

fn write_backs(row: &Row) -> String {
    match (row.write_backs > 0.0, row.non_temporal_lines > 0.0) {
        (_, false) => units::count(row.write_backs),
        (false, true) => format!("{} nt", units::count(row.non_temporal_lines)),
        (true, true) => format!(
            "{} + {} nt",
            units::count(row.write_backs),
            units::count(row.non_temporal_lines)
        ),
    }
}

/// Whether the update outlives a power cut, in a word.
pub fn survives(row: &Row) -> &'static str {
    use daxmap::Durability;
    match row.durability {
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
        "{}, {} CPU{}, Linux {}{}{}; one thread; files of {}; {:.0} s.",
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
