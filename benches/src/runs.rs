//! Which rows are measured, how often and for how long.

use crate::report::Line;
use crate::rows::{ROWS, Row};

/// What is asked for on the command line.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Runs {
    /// Seconds of each run
    #[arg(long, default_value_t = 4)]
    pub(crate) seconds: u32,
    /// Runs of each row and subject; the median counts
    #[arg(long, default_value_t = 3)]
    pub(crate) passes: u32,
    /// Only rows of these names, or whose name holds one of these
    #[arg(long, value_delimiter = ',', default_value = "")]
    pub(crate) rows: Vec<String>,
}

impl Runs {
    /// The rows that are asked for, in the order of the table.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &'static Row> {
        let wanted = |row: &&Row| self.rows.iter().any(|part| is_meant(row, part));
        ROWS.iter().filter(wanted)
    }

    /// The medians of a row. The subjects take turns, so that a slow moment of the machine hits
    /// all of them.
    pub(crate) fn measure<S>(
        &self,
        subjects: &[S],
        mut run: impl FnMut(&S) -> anyhow::Result<Line>,
        mut tell: impl FnMut(String),
    ) -> anyhow::Result<Vec<Line>> {
        let mut passes: Vec<Vec<Line>> = vec![Vec::new(); subjects.len()];
        for pass in 1..=self.passes {
            for (subject, lines) in subjects.iter().zip(&mut passes) {
                let line = run(subject)?;
                tell(format!("{} {} {pass}: {:.0} IOPS", line.row, line.subject, line.iops));
                lines.push(line);
            }
        }
        Ok(passes.iter().filter_map(|lines| Line::median(lines)).collect())
    }
}

/// Whether `part` is the row's name, or a part of it and nobody's name.
fn is_meant(row: &Row, part: &str) -> bool {
    let is_name = ROWS.iter().any(|row| row.name == part);
    if is_name { row.name == part } else { row.name.contains(part) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(rows: &[&str]) -> Runs {
        let rows = rows.iter().map(ToString::to_string).collect();
        Runs { seconds: 1, passes: 3, rows }
    }

    #[test]
    fn rows_are_picked_by_a_part_of_their_names() {
        let names = |parts: &[&str]| runs(parts).rows().map(|row| row.name).collect::<Vec<_>>();
        assert_eq!(names(&[""]).len(), ROWS.len());
        assert_eq!(names(&["1m", "mix"]), ["1m-write-4", "4k-mix-16"]);
        assert_eq!(names(&["4k-randwrite-1"]), ["4k-randwrite-1"], "a whole name is that row");
        assert!(names(&["nothing"]).is_empty());
    }

    #[test]
    fn subjects_take_turns_and_each_has_one_line() {
        let mut order = Vec::new();
        let run = |subject: &&str| {
            let line = serde_json::json!({
                "row": "r", "subject": subject, "iops": 1.0, "mb_s": 1.0, "p50_us": 1.0,
                "p99_us": 1.0, "cpu_s_per_gib": 1.0, "rss_mib": 1.0, "stored": 1.0,
            });
            Ok(serde_json::from_value(line)?)
        };
        let lines = runs(&[""]).measure(&["a", "b"], run, |told| order.push(told)).unwrap();
        assert_eq!(lines.iter().map(|line| &*line.subject).collect::<Vec<_>>(), ["a", "b"]);
        let subjects: Vec<_> = order.iter().filter_map(|told| told.split(' ').nth(1)).collect();
        assert_eq!(subjects, ["a", "b", "a", "b", "a", "b"]);
    }
}
