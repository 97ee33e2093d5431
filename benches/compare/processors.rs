//! The table in the repository of what each processor was seen to do: a column for each, dated.
//!
//! `docs/processors.md` has it. `--record` writes this processor's column, and every run shows the
//! columns of the others beside its own.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// What was measured, what it may be at most, and what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    pub what: String,
    pub target: String,
    pub value: String,
}

/// The table: of each thing measured its target, and by processor what was seen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Table {
    processors: Vec<String>,
    order: Vec<String>,
    rows: BTreeMap<String, (String, Vec<String>)>,
}

const HEAD: &str = "# Processors

What each processor was seen to do, by `ci/bench --record` on it: ratios to the peer or the best loop that a
row names, medians within a round. Persistent memory is emulated on DRAM: these compare instruction
sequences, and are not persistent-memory results. An empty cell was not measured there; a quick run has a
tenth of the rounds.
";

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/processors.md"))
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

impl Table {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines().filter_map(cells);
        let Some(head) = lines.next() else { return Self::default() };
        let mut table = Self { processors: head.into_iter().skip(2).collect(), ..Self::default() };
        for cells in lines.filter(|cells| cells.len() > 2 && !cells[0].starts_with("---")) {
            let mut seen = cells[2..].to_vec();
            seen.resize(table.processors.len(), String::new());
            table.order.push(cells[0].clone());
            table.rows.insert(cells[0].clone(), (cells[1].clone(), seen));
        }
        table
    }

    fn text(&self) -> String {
        let mut out = format!("{HEAD}\n| what | target | {} |\n", self.processors.join(" | "));
        out.push_str(&"|---".repeat(2 + self.processors.len()));
        out.push_str("|\n");
        for what in &self.order {
            let (target, seen) = &self.rows[what];
            let _ = writeln!(out, "| {what} | {target} | {} |", seen.join(" | "));
        }
        out
    }

    /// The column of this processor, made if there is none. Its title ends in the date.
    fn column(&mut self, processor: &str, date: &str) -> usize {
        let title = format!("{processor}, {date}");
        let is_it = |found: &String| found.rsplit_once(", ").is_some_and(|(it, _)| it == processor);
        if let Some(at) = self.processors.iter().position(is_it) {
            self.processors[at] = title;
            return at;
        }
        self.processors.push(title);
        for (_, seen) in self.rows.values_mut() {
            seen.push(String::new());
        }
        self.processors.len() - 1
    }

    fn record(&mut self, processor: &str, date: &str, figures: &[Figure]) {
        let column = self.column(processor, date);
        for figure in figures {
            if !self.rows.contains_key(&figure.what) {
                self.order.push(figure.what.clone());
            }
            let empty = vec![String::new(); self.processors.len()];
            let (target, seen) =
                self.rows.entry(figure.what.clone()).or_insert((String::new(), empty));
            target.clone_from(&figure.target);
            seen[column].clone_from(&figure.value);
        }
    }
}

/// This processor as the kernel names it: the model, and its numbers.
pub fn processor() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(": ").map_or("unknown", |(_, value)| value.trim()).to_owned()
    };
    let (model, family) = (field("model name"), field("cpu family"));
    format!("{model} (family {family} model {})", field("model\t"))
}

fn today() -> String {
    let output = Command::new("date").args(["-u", "+%F"]).output();
    output
        .map_or_else(|_| "undated".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().into())
}

/// Shows what other processors were seen to do beside these figures, and with `--record` among the
/// arguments writes them into the table.
pub fn compare(figures: &[Figure]) {
    let path = path();
    let mut table = Table::parse(&std::fs::read_to_string(&path).unwrap_or_default());
    if !table.processors.is_empty() && !figures.is_empty() {
        println!("\n| what | target | here | {} |", table.processors.join(" | "));
        println!("{}|", "|---".repeat(3 + table.processors.len()));
        for figure in figures {
            let others = table.rows.get(&figure.what).map_or(String::new(), |(_, s)| s.join(" | "));
            println!("| {} | {} | {} | {others} |", figure.what, figure.target, figure.value);
        }
    }
    if std::env::args().any(|argument| argument == "--record") {
        let quick = std::env::args().any(|argument| argument == "--quick");
        let date = if quick { format!("{} (quick)", today()) } else { today() };
        table.record(&processor(), &date, figures);
        match std::fs::write(&path, table.text()) {
            Ok(()) => println!("recorded in docs/processors.md"),
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                std::process::exit(1);
            }
        }
    }
}
