//! Medians, the table, and the file of results.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// One row of one subject: medians of its passes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// Which load.
    pub(crate) row: &'static str,
    /// Who served it.
    pub(crate) subject: &'static str,
    /// Requests per second.
    pub(crate) iops: f64,
    /// Millions of bytes per second.
    pub(crate) mb_s: f64,
    /// Median time of a request, in microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile, in microseconds.
    pub(crate) p99_us: f64,
    /// Processor seconds of all its processes for each GiB moved.
    pub(crate) cpu_s_per_gib: f64,
    /// Peak memory of its largest process so far, in MiB.
    pub(crate) rss_mib: f64,
    /// Bytes that its processes sent to storage for each byte moved.
    pub(crate) stored: f64,
}

impl Line {
    /// The median of each column.
    pub(crate) fn median(passes: &[Self]) -> Option<Self> {
        let first = passes.first()?;
        let of = |column: fn(&Self) -> f64| median(passes.iter().map(column).collect());
        Some(Self {
            row: first.row,
            subject: first.subject,
            iops: of(|line| line.iops),
            mb_s: of(|line| line.mb_s),
            p50_us: of(|line| line.p50_us),
            p99_us: of(|line| line.p99_us),
            cpu_s_per_gib: of(|line| line.cpu_s_per_gib),
            rss_mib: of(|line| line.rss_mib),
            stored: of(|line| line.stored),
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// IOPS of a line against those of `base` in the same row.
pub(crate) fn ratio(lines: &[Line], line: &Line, base: &str) -> Option<f64> {
    let base = lines.iter().find(|other| other.row == line.row && other.subject == base)?;
    (base.iops > 0.0).then(|| line.iops / base.iops)
}

/// How much of the disk's speed, which is that of `raw` in the same row, a line's processes used
/// up: on one machine both copies and both logs go to one disk.
fn disk_share(lines: &[Line], line: &Line, raw: &str) -> Option<f64> {
    let raw = lines.iter().find(|other| other.row == line.row && other.subject == raw)?;
    (raw.mb_s > 0.0 && line.stored > 0.0).then(|| line.mb_s * line.stored / raw.mb_s)
}

/// The table for people; ratios are against `base`, shares of the disk against `raw`.
pub(crate) fn table(lines: &[Line], base: &str, raw: &str) -> String {
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
        "of disk",
        &against,
    ]);
    for line in lines {
        table.add_row([
            line.row.to_string(),
            line.subject.to_string(),
            format!("{:.0}", line.iops),
            format!("{:.1}", line.mb_s),
            format!("{:.0}", line.p50_us),
            format!("{:.0}", line.p99_us),
            format!("{:.2}", line.cpu_s_per_gib),
            format!("{:.0}", line.rss_mib),
            format!("{:.2}", line.stored),
            disk_share(lines, line, raw)
                .map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share)),
            ratio(lines, line, base).map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        ]);
    }
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

    fn line(subject: &'static str, iops: f64) -> Line {
        let (p50_us, p99_us) = (1.0, 2.0);
        Line {
            row: "r",
            subject,
            iops,
            mb_s: 1.0,
            p50_us,
            p99_us,
            cpu_s_per_gib: 0.5,
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
    fn a_ratio_is_taken_within_its_row() {
        let lines = [line("qemu-nbd", 200.0), line("ours", 100.0)];
        assert!((ratio(&lines, &lines[1], "qemu-nbd").unwrap() - 0.5).abs() < 1e-9);
        assert!(table(&lines, "qemu-nbd", "raw file").contains("0.50"));
        assert!(ratio(&lines, &lines[1], "nobody").is_none());
    }
}
