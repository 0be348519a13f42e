//! Rules of the disk: the log, its recovery and its cuts, and what goes from it into the image.

use super::{Mutant, mutant};

const SPOOL: &str = "blockdev/src/replica/spool.rs";
const JOURNAL: &str = "blockdev/src/journal/mod.rs";
const TAIL: &str = "blockdev/src/journal/tail.rs";
const OVERLAY: &str = "blockdev/src/volume/overlay.rs";
const REPLICA: &str = "blockdev/src/replica.rs";
const RECOVERY: &str = "blockdev/src/journal/recovery.rs";
const OPEN: &str = "blockdev/src/journal/open.rs";
const WRITER: &str = "blockdev/src/journal/writer.rs";
const TRUNCATE: &str = "blockdev/src/journal/truncate.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "a restart replays the whole log",
        "§2.5; holes, story 1",
        REPLICA,
        "let limit = state.apply_limit.min(recovered.end.lsn);",
        "let limit = recovered.end.lsn;",
    ),
    mutant(
        "a valid frame behind a lost one is damage",
        "§2.3; holes, story 16",
        RECOVERY,
        "    if durable > at {",
        "    if durable > at || leftover_end > end.lsn {",
    ),
    mutant(
        "a sync speaks for writes that came behind it",
        "I8",
        WRITER,
        "        self.durable = round.target;",
        "        self.durable = round.target.max(self.written);",
    ),
    mutant(
        "what a failed sync has lost counts as durable after a restart",
        "I8",
        OPEN,
        "    write_again(engine, segments, found.durable.max(checkpoint), end)?;\n",
        "",
    )
    .told(
        "late_stories",
        "what_a_failed_sync_has_lost_is_written_again_before_it_counts_as_durable",
    ),
    mutant(
        "a tail is cut before it is saved",
        "I6",
        TRUNCATE,
        "Step::CopyHead => self.copy_next(engine, segments)?,",
        "Step::CopyHead => self.sync(engine, Step::CopySync),",
    ),
    mutant(
        "an interrupted cut is not finished at the next start",
        "§6.4; holes, story 17",
        OPEN,
        "if let Some(sheet) = cut.sheet.filter(|_| cut.is_pending) {",
        "if let Some(sheet) = cut.sheet.filter(|_| false) {",
    )
    .told(
        "late_stories",
        "a_cut_that_lost_its_power_is_finished_and_the_next_start_finds_all_that_came_behind_it",
    ),
    mutant(
        "frames overtake those that were left in the log",
        "§2.2",
        SPOOL,
        "let left = full || self.end.is_some();",
        "let left = full;",
    ),
    mutant(
        "a change that waits is passed over for one that may be taken back",
        "§2.5",
        OVERLAY,
        "Some((start, end, of)) if start <= at && of > lsn && of <= limit => at = end,",
        "Some((start, end, of)) if start <= at && of > lsn && limit >= Lsn::START => at = end,",
    ),
    mutant(
        "a change that waits is passed over where a part of it is written again",
        "I5",
        OVERLAY,
        "Some((start, end, of)) if start <= at && of > lsn && of <= limit => at = end,",
        "Some((start, end, of)) if start <= at && of > lsn && of <= limit => \
         at = end.max(range.end()),",
    ),
    mutant(
        "what the tail has kept is not looked for",
        "§3: written means that it survives a kill",
        RECOVERY,
        "let tail = tail.filter(|_| start.stop.is_none());",
        "let tail = tail.filter(|_| start.stop.is_none() && limit == Lsn::START);",
    ),
    mutant(
        "a cut leaves the tail as it is",
        "§6.4",
        JOURNAL,
        "&& let Err(error) = tail.end(engine)",
        "&& let Err(error) = Ok::<(), io::Error>(())",
    )
    .and(
        "let begun = tail.begin(engine, self.truncations).map(|()| Some(tail));",
        "let begun = Ok(Some(tail));",
    ),
    mutant(
        "the tail keeps more than it has room for",
        "§3: written means that it survives a kill",
        TAIL,
        "end.since(written) <= self.ring_len",
        "end.since(written) <= self.ring_len * 1000",
    )
    .told("late_stories", "a_full_tail_lets_writes_wait_for_the_disk_and_a_kill_loses_nothing"),
    mutant(
        "what is left in the log answers for what was written since",
        "§2.8",
        OVERLAY,
        "let own = self.entries.range_mut(range.start()..range.end());\n        \
         for (start, entry) in own.filter(|(_, entry)| entry.lsn == lsn) {",
        "let own = self.entries.range_mut(range.start()..range.end());\n        \
         for (start, entry) in own.filter(|(_, entry)| entry.lsn >= lsn) {",
    ),
    mutant(
        "an LSN is used again",
        "§1: a restart goes on where the log was known to be durable",
        RECOVERY,
        "            Step::Frame(frame) => (Some(frame), BadFrame",
        "            Step::Frame(frame) if frame.end() > start.known_durable => \
         (None, BadFrame::Frame(FrameError::Magic)),\n            \
         Step::Frame(frame) => (Some(frame), BadFrame",
    )
    .and(
        "                raise(claim, stamp, Witness::FrameBehind(here));\n",
        "                let _ = (stamp, Witness::FrameBehind(here));\n",
    ),
];
