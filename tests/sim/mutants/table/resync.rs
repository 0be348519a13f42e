//! Resyncs: what is sent beside the log, what is saved first, and the switch (design §6.4, §8).

use super::{Mutant, mutant};

const SINK: &str = "protocol/src/node/resync/sink.rs";
const SOURCE: &str = "blockdev/src/resync/source.rs";
const LEADER: &str = "protocol/src/node/resync/source.rs";
const RETENTION: &str = "protocol/src/node/resync/retention.rs";
const VERIFY: &str = "protocol/src/node/resync/verify.rs";
const MEND: &str = "blockdev/src/resync/mend.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "what a diverged replica holds of its own is not saved",
        "I6",
        SINK,
        "            let apart = Some(fork.unwrap_or_default());",
        "            let apart = None;",
    ),
    mutant(
        "the switch is begun before the superblock says so",
        "§8.2: one record",
        SINK,
        "        self.persist_then(After::Switch(landed.at));",
        "        self.out.push_back(Action::SwitchImage(landed.at));\n        \
         self.persist.touch();",
    )
    .tested("the_superblock_says_that_the_switch_is_begun_before_it_begins"),
    mutant(
        "what a primary said before a landing counts behind it",
        "§6.4",
        SINK,
        "            lead.end = at;",
        "            let _ = (&lead, at);",
    ),
    mutant(
        "positions of another history say what is needed of this log",
        "§2.6",
        SINK,
        "        self.retention = Retention::default();",
        "        let _ = Retention::default();",
    )
    .told("late_stories", "who_has_promised_to_another_has_no_proof_any_more"),
    mutant(
        "a standby that asks twice in one session gets a second source",
        "§8.2: what it says of itself it says once",
        LEADER,
        "            return self.refuse(session, Refusal::Protocol);\n",
        "",
    )
    .tested("a_standby_that_asks_twice_in_one_session_is_cut_off_and_asks_in_the_next"),
    mutant(
        "a dirty map begins at the end of its member's log, and not where the image is",
        "§2.6: the shortest way",
        RETENTION,
        "            applied if applied >= least => applied.min(kept),",
        "            applied if applied >= least => kept,",
    )
    .told(
        "seed_stories",
        "a_standby_that_dies_with_a_log_that_it_has_not_applied_comes_back_by_its_map",
    ),
    mutant(
        "what is applied while a resync goes on is not sent again",
        "§8.2, I5",
        SOURCE,
        "        if start < seen {",
        "        if start > seen {",
    ),
    mutant(
        "images are compared before both are at one position",
        "§8.4: no false report",
        VERIFY,
        "                if here && applied == hold.at {",
        "                if here {",
    ),
    mutant(
        "an image is held for a comparison for as long as that takes",
        "§8.4: clients fill the log meanwhile",
        VERIFY,
        "        if self.compares { COMPARE_MAX } else { SETTLE_MAX }",
        "        if self.compares { Duration::MAX } else { SETTLE_MAX }",
    )
    .tested("both_images_are_held_for_a_piece_and_for_half_a_minute_at_most"),
    mutant(
        "what a repair replaces is not saved",
        "§8.4: nothing is lost in silence",
        MEND,
        "                blocks.add(content.volume, offset, &leaf).await?;",
        "                let _ = (blocks, offset);",
    )
    .told(
        "repair_stories",
        "a_block_that_has_rotted_is_found_and_repaired_from_the_other_side_while_clients_write",
    ),
    mutant(
        "what a repair replaces is not durable in quarantine before",
        "§8.4: nothing is lost in silence",
        MEND,
        "            blocks.sync().await?;",
        "            let _ = blocks;",
    )
    .on_disk("a_power_loss_at_any_moment_leaves_each_old_byte_in_the_store_or_in_quarantine"),
    mutant(
        "an image goes on while a repair writes into it",
        "§8.4: no older leaf over a newer one",
        "blockdev/src/replica.rs",
        "        if limit > allowed && self.copies.keeps_still(limit) {",
        "        if limit < allowed && self.copies.keeps_still(limit) {",
    )
    .on_disk("an_image_that_goes_on_waits_for_what_a_repair_has_under_way"),
    mutant(
        "a repair writes at whatever position the image is",
        "§8.4: both images are at one position",
        MEND,
        "        if self.mender.rests.get() != Some(self.at) {",
        "        if false {",
    )
    .on_disk("nothing_is_repaired_at_another_position_than_that_of_the_image"),
];
