//! A table of figures for a terminal: whole where it fits, else in two parts.

use std::io::{self, Write};
use std::ops::Range;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// What all rows of a table have in common.
pub struct Form {
    /// Above the columns.
    pub header: &'static [&'static str],
    /// Columns that are figures.
    pub figures: Range<usize>,
    /// The columns of the two parts where the whole is too wide.
    pub parts: [&'static [usize]; 2],
}

/// A line: what the lines after it are about, or the cells of each column.
pub enum Line {
    /// Across the columns.
    Heading(String),
    /// As many as there are columns.
    Cells(Vec<String>),
}

/// Writes the lines, for a terminal of this width.
pub fn write(
    out: &mut impl Write,
    form: &Form,
    lines: &[Line],
    width: Option<u16>,
) -> io::Result<()> {
    let all: Vec<usize> = (0..form.header.len()).collect();
    let whole = text(form, lines, &all);
    let needed = whole.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    if width.is_none_or(|width| usize::from(width) >= needed) {
        writeln!(out, "{whole}")
    } else {
        let [first, second] = form.parts.map(|part| text(form, lines, part));
        writeln!(out, "{first}\n\n{second}")
    }
}

/// Not fitted to the terminal: a figure broken over two lines is no figure.
fn text(form: &Form, lines: &[Line], columns: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|&column| form.header[column]));
    for line in lines {
        match line {
            Line::Heading(heading) => table.add_row([heading]),
            Line::Cells(cells) => table.add_row(columns.iter().map(|&column| &cells[column])),
        };
    }
    for (position, column) in columns.iter().enumerate() {
        if form.figures.contains(column)
            && let Some(column) = table.column_mut(position)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_two_parts() {
        let form =
            Form { header: &["what", "time", "count"], figures: 1..3, parts: [&[0, 1], &[0, 2]] };
        let cells = ["  it", "1.00 ms", "12"].map(str::to_owned).to_vec();
        let lines = [Line::Heading("8 B".to_owned()), Line::Cells(cells)];
        let written = |width| {
            let mut out = Vec::new();
            write(&mut out, &form, &lines, width).expect("a vector takes it");
            String::from_utf8(out).expect("text")
        };
        let whole = written(None);
        assert_eq!(whole.lines().count(), 3, "{whole}");
        assert!(whole.lines().last().expect("a row").ends_with("1.00 ms     12"), "{whole}");
        assert_eq!(written(Some(200)), whole);
        let parts = written(Some(20));
        assert_eq!(parts.matches("what").count(), 2, "{parts}");
        assert!(parts.lines().all(|line| line.chars().count() <= 20), "{parts}");
    }
}
