//! Medians, the table, and the file of results.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use hadrian_benches::median;
use serde::{Deserialize, Serialize};

use crate::subject::{MIRRORS, PLAIN, RAW};

/// One row of one subject: medians of its passes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Which load.
    pub(crate) row: String,
    /// Who served it.
    pub(crate) subject: String,
    /// Requests per second.
    pub(crate) iops: f64,
    /// Millions of bytes per second.
    pub(crate) mb_s: f64,
    /// Median time of a request, in microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile, in microseconds.
    pub(crate) p99_us: f64,
    /// Processor seconds of all that serves it for each GiB moved.
    pub(crate) cpu_s_per_gib: f64,
    /// Those of the side that clients speak to alone, where the two can be told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_s_per_gib_primary: Option<f64>,
    /// Peak memory of its largest process so far, in MiB.
    pub(crate) rss_mib: f64,
    /// Bytes that were sent to storage for each byte moved.
    pub(crate) stored: f64,
}

impl Line {
    /// The median of each column.
    pub(crate) fn median(passes: &[Self]) -> Option<Self> {
        let first = passes.first()?;
        let of = |column: fn(&Self) -> f64| median(passes.iter().map(column).collect());
        Some(Self {
            row: first.row.clone(),
            subject: first.subject.clone(),
            iops: of(|line| line.iops),
            mb_s: of(|line| line.mb_s),
            p50_us: of(|line| line.p50_us),
            p99_us: of(|line| line.p99_us),
            cpu_s_per_gib: of(|line| line.cpu_s_per_gib),
            cpu_s_per_gib_primary: first
                .cpu_s_per_gib_primary
                .map(|_| of(|line| line.cpu_s_per_gib_primary.unwrap_or_default())),
            rss_mib: of(|line| line.rss_mib),
            stored: of(|line| line.stored),
        })
    }
}

/// IOPS of a line against those of the best of `bases` in the same row.
pub(crate) fn ratio(lines: &[Line], line: &Line, bases: &[&str]) -> Option<f64> {
    let peers =
        lines.iter().filter(|other| other.row == line.row && bases.contains(&&*other.subject));
    let best = peers.map(|peer| peer.iops).fold(0.0, f64::max);
    (best > 0.0).then(|| line.iops / best)
}

/// How much of the disk's speed, which is that of `raw` in the same row, a line's processes used
/// up: on one machine both copies and both logs go to one disk.
fn disk_share(lines: &[Line], line: &Line, raw: &str) -> Option<f64> {
    let raw = lines.iter().find(|other| other.row == line.row && other.subject == raw)?;
    (raw.mb_s > 0.0 && line.stored > 0.0).then(|| line.mb_s * line.stored / raw.mb_s)
}

/// The table for people; ratios are against [`PLAIN`] and the better of [`MIRRORS`], shares of the
/// disk against [`RAW`].
pub(crate) fn table(lines: &[Line]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "row",
        "subject",
        "IOPS",
        "MB/s",
        "p50 µs",
        "p99 µs",
        "CPU s/GiB",
        "2nd copy",
        "peak MiB",
        "stored ×",
        "of disk",
        "× qemu-nbd",
        "× best mirror",
    ]);
    for line in lines {
        let primary = line.cpu_s_per_gib_primary;
        let mut cells = speed(line);
        cells.extend([
            cell(primary),
            cell(primary.map(|primary| line.cpu_s_per_gib - primary)),
            format!("{:.0}", line.rss_mib),
            format!("{:.2}", line.stored),
            disk_share(lines, line, RAW)
                .map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share)),
            cell(ratio(lines, line, &[PLAIN])),
            cell(ratio(lines, line, &MIRRORS)),
        ]);
        table.add_row(cells);
    }
    aligned(table)
}

/// The table for people with ratios against one subject, where the two sides of each cannot be
/// told apart.
pub(crate) fn table_beside(lines: &[Line], base: &str) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let against = format!("× {base}");
    table.set_header([
        "row",
        "subject",
        "IOPS",
        "MB/s",
        "p50 µs",
        "p99 µs",
        "CPU s/GiB",
        "peak MiB",
        "stored ×",
        &against,
    ]);
    for line in lines {
        let mut cells = speed(line);
        cells.extend([
            format!("{:.2}", line.cpu_s_per_gib),
            format!("{:.0}", line.rss_mib),
            format!("{:.2}", line.stored),
            cell(ratio(lines, line, &[base])),
        ]);
        table.add_row(cells);
    }
    aligned(table)
}

/// The first columns of every table.
fn speed(line: &Line) -> Vec<String> {
    vec![
        line.row.clone(),
        line.subject.clone(),
        format!("{:.0}", line.iops),
        format!("{:.1}", line.mb_s),
        format!("{:.0}", line.p50_us),
        format!("{:.0}", line.p99_us),
    ]
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.2}"))
}

fn aligned(mut table: Table) -> String {
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Writes one object per line of the table.
pub(crate) fn save(lines: &[Line], path: &Path) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, serde_json::to_string_pretty(lines)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(subject: &str, iops: f64) -> Line {
        let (p50_us, p99_us) = (1.0, 2.0);
        Line {
            row: "r".into(),
            subject: subject.into(),
            iops,
            mb_s: 1.0,
            p50_us,
            p99_us,
            cpu_s_per_gib: 0.5,
            cpu_s_per_gib_primary: Some(0.25),
            rss_mib: 9.0,
            stored: 1.0,
        }
    }

    #[test]
    fn the_middle_pass_counts() {
        let passes = [line("ours", 900.0), line("ours", 10.0), line("ours", 100.0)];
        assert!((Line::median(&passes).unwrap().iops - 100.0).abs() < 1e-9);
        assert!((median(vec![1.0, 3.0]) - 2.0).abs() < 1e-9);
        assert!(Line::median(&[]).is_none());
    }

    #[test]
    fn a_ratio_is_taken_within_its_row_against_the_best() {
        let lines = [line(PLAIN, 200.0), line(MIRRORS[0], 40.0), line(MIRRORS[1], 50.0)];
        assert!((ratio(&lines, &lines[2], &[PLAIN]).unwrap() - 0.25).abs() < 1e-9);
        assert!((ratio(&lines, &lines[0], &MIRRORS).unwrap() - 4.0).abs() < 1e-9);
        assert!(table(&lines).contains("0.25"));
        assert!(table_beside(&lines, MIRRORS[1]).contains("0.80"));
        assert!(ratio(&lines, &lines[1], &["nobody"]).is_none());
    }
}
