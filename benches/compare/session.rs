//! One run: the groups asked for, their figures, the table.

use std::process::ExitCode;

use daxmap::{Emulation, Options};

use super::groups::{
    self, BARE, CACHED, DIRECT, DIRECT_COPY, FILL, Ground, MOVE, NON_TEMPORAL, PROBE,
};
use super::interleave::Outcome;
use super::libpmem::Libpmem;
use super::targets::{self, Row, size, time};
use super::{hand, machine, processors};

/// Long out of every cache by the time a line comes round again: several times a large L3.
const REGION: u64 = 256 << 20;
const SIZES: [usize; 7] = [64, 256, 1 << 10, 4 << 10, 64 << 10, 1 << 20, 16 << 20];

struct Wishes {
    groups: Vec<String>,
    hurry: usize,
    report_only: bool,
}

impl Wishes {
    fn parse() -> Self {
        let mut wishes = Self { groups: Vec::new(), hurry: 1, report_only: false };
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--quick" => wishes.hurry = 10,
                "--report-only" => wishes.report_only = true,
                // Cargo adds --bench.
                flag if flag.starts_with('-') => {}
                group => wishes.groups.push(group.to_owned()),
            }
        }
        wishes
    }

    fn has(&self, group: &str) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|g| g == group)
    }
}

pub fn main() -> ExitCode {
    let wishes = Wishes::parse();
    machine::describe();
    if !hand::clwb() || !std::is_x86_feature_detected!("avx") {
        println!("the bare sequences need CLWB and AVX, which this processor lacks: not compared");
        return ExitCode::FAILURE;
    }
    let libpmem = Libpmem::load();
    machine::describe_libpmem(&libpmem);
    machine::pin();
    let options = Options::new().len(REGION).emulate(Emulation::Adr);
    let region = options.in_memory().expect("a region in memory");
    let source = vec![0x5a_u8; (16 << 20) + 64];
    let source = &source[source.as_ptr().align_offset(64)..];
    let ground = Ground { region: &region, source, libpmem: libpmem.ok(), hurry: wishes.hurry };

    let rows = gated(&wishes, &ground);
    informative(&wishes, &ground);
    println!();
    let missed = targets::print(&rows);
    processors::compare(&rows.iter().map(Row::figure).collect::<Vec<_>>());
    if missed > 0 {
        println!("{missed} of {} targets missed", rows.len());
    }
    if missed > 0 && !wishes.report_only { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The groups that have targets.
fn gated(wishes: &Wishes, ground: &Ground<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    if wishes.has("persist") {
        for len in [8, 64] {
            let title = format!("persist, {len} B, fresh lines");
            rows.extend(settle(
                &title,
                BARE,
                || groups::persist(ground, len),
                |outcome| targets::persist(outcome, len),
            ));
        }
    }
    if wishes.has("durable_write") {
        for len in SIZES {
            let title = format!("durable_write, {}, fresh lines", size(len));
            rows.extend(settle(
                &title,
                DIRECT_COPY,
                || groups::durable_write(ground, len),
                |outcome| targets::durable_write(outcome, len),
            ));
        }
    }
    if wishes.has("odd") {
        for (offset, len) in [(1, 100), (3, 300), (3, 1000), (1, 4000), (7, 65_000)] {
            rows.extend(settle(
                &format!("odd, {len} B at {offset}, fresh lines"),
                DIRECT_COPY,
                || groups::odd(ground, offset, len),
                |outcome| targets::odd(outcome, offset, len),
            ));
        }
    }
    if wishes.has("overlap") {
        for (by, len) in [(8, 256), (64, 1024), (8, 4096), (1000, 65_536)] {
            rows.extend(settle(
                &format!("overlap, {} up by {by}, fresh lines", size(len)),
                MOVE,
                || groups::overlap(ground, by, len),
                |outcome| targets::overlap(outcome, by, len),
            ));
        }
    }
    if wishes.has("memset") {
        for len in [64, 256, 4096, 65_536] {
            rows.extend(settle(
                &format!("memset, {}, fresh lines", size(len)),
                FILL,
                || groups::memset(ground, len),
                |outcome| targets::memset(outcome, len),
            ));
        }
    }
    if wishes.has("trait_object") {
        rows.extend(settle(
            "trait_object, 64 B, hot line",
            DIRECT,
            || groups::trait_object(ground),
            targets::trait_object,
        ));
    }
    if wishes.has("probe") {
        let directory = std::env::temp_dir();
        for path in [directory.as_path(), std::path::Path::new(".")] {
            let name = path.display().to_string();
            let title = format!("probe of {name}");
            rows.extend(settle(
                &title,
                PROBE,
                || groups::probe(ground, path),
                |outcome| targets::probe(outcome, &name),
            ));
        }
    }
    rows
}

/// Measures a group. Where a target is missed it is measured on, and the rounds are pooled: one
/// busy moment of the machine is not a result, and neither is one lucky one.
fn settle(
    title: &str,
    reference: &str,
    measure: impl Fn() -> Outcome,
    judge: impl Fn(&Outcome) -> Vec<Row>,
) -> Vec<Row> {
    const MORE: usize = 3;
    let mut outcome = measure();
    for _ in 0..MORE {
        if !judge(&outcome).iter().any(Row::missed) {
            break;
        }
        outcome.extend(measure());
    }
    show(title, &outcome, reference);
    judge(&outcome)
}

/// The groups behind the choices in `daxmap::cpu`, without targets.
fn informative(wishes: &Wishes, ground: &Ground<'_>) {
    if wishes.has("crossover") {
        for (hot, lines) in [(false, "fresh lines"), (true, "hot lines")] {
            for len in [64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192] {
                let outcome = groups::crossover(ground, len, hot);
                show(&format!("crossover, {len} B, {lines}"), &outcome, CACHED);
            }
        }
    }
    if wishes.has("ragged") {
        for (offset, len) in [(8, 48), (8, 200), (0, 100), (3, 100), (3, 500), (16, 4096)] {
            let outcome = groups::ragged(ground, offset, len);
            show(&format!("ragged, {len} B at {offset}"), &outcome, CACHED);
        }
    }
    if wishes.has("batch") {
        for len in [64, 256, 1024, 2048, 4096, 16384] {
            let title = format!("batch, 16 x {len} B to a fence");
            show(&title, &groups::batch(ground, len), CACHED);
        }
    }
    if wishes.has("read_back") {
        for len in [64, 1024] {
            let outcome = groups::read_back(ground, len);
            show(&format!("read_back, {len} B"), &outcome, CACHED);
        }
    }
    if wishes.has("eadr") {
        for (hot, lines) in [(false, "fresh lines"), (true, "hot lines")] {
            for len in [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 16 << 20] {
                let outcome = groups::eadr(ground, len, hot);
                show(&format!("eadr, {}, {lines}", size(len)), &outcome, NON_TEMPORAL);
            }
        }
    }
    if wishes.has("memmap2") {
        for len in [64, 4096] {
            let outcome = groups::memmap2(ground, len);
            show(&format!("memmap2, {len} B, no device behind msync"), &outcome, DIRECT_COPY);
        }
    }
}

fn show(title: &str, outcome: &Outcome, reference: &str) {
    println!("\n{title}: median [quartiles] of a batch's mean; ratio to {reference}, in a round");
    for name in outcome.names() {
        let (Some(own), Some(ratio)) = (outcome.spread(name), outcome.ratio(name, reference))
        else {
            continue;
        };
        println!(
            "  {name:26} {:>11} [{:>11}, {:>11}]  {:.3} [{:.3}, {:.3}]",
            time(own.median),
            time(own.q1),
            time(own.q3),
            ratio.median,
            ratio.q1,
            ratio.q3,
        );
    }
    if let Some(ratio) = outcome.out_of_control() {
        println!("  NOT TO BE TRUSTED: the same code measured twice differs by {ratio:.3}");
    }
}
