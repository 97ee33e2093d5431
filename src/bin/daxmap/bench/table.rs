//! The table, and what its columns mean.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::plan::{Method, SIZES};
use super::results::{Results, Row};
use super::units;

const HEADER: [&str; 13] = [
    "update",
    "",
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

/// First column that is a figure, and the last.
const FIGURES: std::ops::Range<usize> = 2..12;

/// Writes the table and its legend.
pub fn write(out: &mut impl Write, results: &Results) -> io::Result<()> {
    let mut table = Table::new();
    // Not fitted to the terminal: a figure broken over two lines is no figure.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(HEADER);
    for size in (0..SIZES.len()).map(Some).chain([None]) {
        let rows: Vec<&Row> = results.rows.iter().filter(|row| row.case.size == size).collect();
        if rows.is_empty() {
            continue;
        }
        table.add_row([heading(size)]);
        for row in rows {
            table.add_row(cells(row, results));
        }
    }
    for column in FIGURES {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{}", table.trim_fmt())?;
    writeln!(out)?;
    legend(out, results)
}

fn heading(size: Option<usize>) -> String {
    match size {
        Some(index) if SIZES[index] < 1024 => format!("{} B", SIZES[index]),
        Some(index) => format!("{} KiB", SIZES[index] / 1024),
        None => "any size".to_owned(),
    }
}

fn cells(row: &Row, results: &Results) -> Vec<String> {
    let dash = || "-".to_owned();
    let withheld = results.machine.times_withheld.is_some();
    let time = |ns: Option<u64>| match ns {
        _ if withheld => "withheld".to_owned(),
        Some(ns) => units::time(ns),
        None => dash(),
    };
    let times = row.times;
    vec![
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
        "{}, {} CPUs, Linux {}{}{}; one thread; files of {}; {:.0} s.",
        machine.cpu,
        machine.cpus,
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
        "first touch: the first update in its page since the file was made; steady: the same pages \
         again, line after line.",
        "Every time includes one reading of the clock; nothing is subtracted. p99 and p99.9 need \
         100 and 1000 updates.",
        "device B/op: bytes the block device wrote, whoever wrote them, in the middle batch; stores \
         to DAX do not pass there.",
        "fences, write-backs: cache lines and fences of this process, \"nt\" stored past the cache; \
         the kernel's own are not counted.",
        "power cut: what the update is promised to do there. A drive that lies about its cache is \
         not noticed.",
    ];
    for line in lines {
        writeln!(out, "{line}")?;
    }
    for note in &results.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}
