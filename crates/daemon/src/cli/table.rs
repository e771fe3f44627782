//! Tables for people: aligned columns under a bold header line.

use std::fmt::Write;

use anstyle::Style;

const HEAD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();

/// A cell of a table: its text and its style.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

pub(super) fn cell(text: impl ToString) -> Cell {
    Cell {
        text: text.to_string(),
        style: Style::new(),
    }
}

/// The layout of a table's lines.
pub(super) struct Layout<'a> {
    names: &'a [&'static str],
    /// Columns of words are aligned to the left, columns of numbers to the right.
    is_words: fn(usize) -> bool,
    widths: Vec<usize>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(
        names: &'a [&'static str],
        is_words: fn(usize) -> bool,
        rows: &[Vec<Cell>],
    ) -> Self {
        let widest = |(column, name): (usize, &&str)| {
            let cells = rows.iter().map(|row| row[column].text.chars().count());
            cells.fold(name.len(), usize::max)
        };
        Self {
            widths: names.iter().enumerate().map(widest).collect(),
            names,
            is_words,
        }
    }

    pub(super) fn head(&self, text: &mut String) {
        let head = self.names.iter().map(|name| Cell {
            text: (*name).to_owned(),
            style: HEAD,
        });
        self.line(text, &head.collect::<Vec<_>>());
    }

    pub(super) fn line(&self, text: &mut String, cells: &[Cell]) {
        // Empty cells at the end are left out.
        let last = cells.iter().rposition(|cell| !cell.text.is_empty());
        let cells = &cells[..last.map_or(0, |last| last + 1)];
        for (column, (Cell { text: cell, style }, width)) in
            cells.iter().zip(&self.widths).enumerate()
        {
            let gap = if column == 0 { "" } else { "  " };
            let pad = match column + 1 == cells.len() && (self.is_words)(column) {
                // The last cell needs no padding.
                true => String::new(),
                false => " ".repeat(width.saturating_sub(cell.chars().count())),
            };
            let _ = match (self.is_words)(column) {
                true => write!(text, "{gap}{style}{cell}{style:#}{pad}"),
                false => write!(text, "{gap}{pad}{style}{cell}{style:#}"),
            };
        }
        text.push('\n');
    }
}
