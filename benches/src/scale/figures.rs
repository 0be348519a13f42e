//! What was measured, against which bar; the table, and the file of results.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use hadrian_benches::median;
use serde::Serialize;

/// What a figure must be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::AtLeast(bar) => format!("≥ {}", in_digits(bar)),
            Self::AtMost(bar) => format!("≤ {}", in_digits(bar)),
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    row: &'static str,
    figure: String,
    value: f64,
    unit: &'static str,
    bar: Option<Bar>,
    is_met: Option<bool>,
}

/// Everything that was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    row: &'static str,
    all: Vec<Figure>,
}

impl Figures {
    /// What follows belongs to this row.
    pub(crate) fn begin(&mut self, row: &'static str) {
        self.row = row;
    }

    /// The median of `passes`, without a bar.
    pub(crate) fn note(&mut self, figure: impl Into<String>, passes: &[f64], unit: &'static str) {
        self.put(figure.into(), passes, unit, None);
    }

    /// The median of `passes`, against a bar.
    pub(crate) fn judge(
        &mut self,
        figure: impl Into<String>,
        passes: &[f64],
        unit: &'static str,
        bar: Bar,
    ) {
        self.put(figure.into(), passes, unit, Some(bar));
    }

    fn put(&mut self, figure: String, passes: &[f64], unit: &'static str, bar: Option<Bar>) {
        let (row, value) = (self.row, median(passes.to_vec()));
        eprintln!("  {figure}: {} {unit}", in_digits(value));
        let is_met = bar.map(|bar| bar.is_met(value));
        self.all.push(Figure { row, figure, value, unit, bar, is_met });
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["row", "figure", "value", "unit", "bar", "met"]);
        for figure in &self.all {
            let met = figure.is_met.map_or("", |is_met| if is_met { "yes" } else { "NO" });
            table.add_row([
                figure.row,
                &figure.figure,
                &in_digits(figure.value),
                figure.unit,
                &figure.bar.map_or_else(String::new, Bar::in_words),
                met,
            ]);
        }
        if let Some(column) = table.column_mut(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }

    /// Writes one object per line of the table.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(&self.all)?)?;
        Ok(())
    }
}

fn in_digits(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_held_against_the_bar() {
        let mut figures = Figures::default();
        figures.begin("row");
        figures.judge("rate", &[0.2, 1.5, 9.0], "GB/s", Bar::AtLeast(1.0));
        figures.judge("time", &[400.0, 200.0], "ms", Bar::AtMost(299.0));
        figures.note("beside it", &[3.0], "GB/s");
        let met: Vec<_> = figures.all.iter().map(|figure| figure.is_met).collect();
        assert_eq!(met, [Some(true), Some(false), None]);
        assert!(figures.table().contains("NO"));
    }
}
