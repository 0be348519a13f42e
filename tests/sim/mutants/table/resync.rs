//! Resyncs: what is sent beside the log, what is saved first, and the switch (design §6.4, §8).

use super::{Mutant, mutant};

const SINK: &str = "protocol/src/node/resync/sink.rs";
const SOURCE: &str = "blockdev/src/resync/source.rs";
const VERIFY: &str = "protocol/src/node/resync/verify.rs";

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
];
