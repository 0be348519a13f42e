//! Rules of the disk: the log, its recovery and its cuts, and what goes from it into the image.

use super::{Mutant, mutant};

const SPOOL: &str = "blockdev/src/replica/spool.rs";
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
        "    if durable > end.lsn {",
        "    if durable > end.lsn || leftover_end > end.lsn {",
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
        "Some((_, end, of)) if of > lsn && of <= limit => at = end,",
    ),
    mutant(
        "the log is released while a client reads from it",
        "§2.8",
        REPLICA,
        "let read = self.volumes.oldest_log_read()",
        "let read = None::<Lsn>",
    ),
    mutant(
        "a part of what waits in the log is read from its beginning",
        "§2.8",
        OVERLAY,
        "Piece::Log(spot.behind(from - start), self.lsn)",
        "Piece::Log(spot.behind((from - start).min(0)), self.lsn)",
    ),
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
        "            Step::Frame(frame) => {\n                frame_count += 1;",
        "            Step::Frame(frame) if frame.end() > start.known_durable => {\n                \
         break BadFrame::Frame(FrameError::Magic);\n            }\n            \
         Step::Frame(frame) => {\n                frame_count += 1;",
    )
    .and(
        "                raise(claim, stamp, Witness::FrameBehind(here));\n",
        "                let _ = (stamp, Witness::FrameBehind(here));\n",
    ),
];
