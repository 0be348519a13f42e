//! Copies that are carried by hand: of one position, and never half of one (design §8.1).

use super::{Mutant, mutant};

const SEED: &str = "protocol/src/node/resync/seed.rs";
const IMPORT: &str = "blockdev/src/replica/import.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "an image goes on while the last of it is exported",
        "§8.1: of exactly one position",
        "protocol/src/node/resync/mod.rs",
        "            || self.seed_wants_rest()\n",
        "",
    )
    .tested("an_export_of_a_seed_holds_the_image_for_the_last_of_it_and_then_lets_it_go_on"),
    mutant(
        "what a seed lacks is noted from the end of the log, and not from its position",
        "§8.1, §2.6",
        SEED,
        "            self.kept_from(member, at.lsn);",
        "            self.kept_from(member, self.log.end().lsn.max(at.lsn));",
    )
    // Nothing is lost by it: who comes with the seed is compared as a whole, for no reason.
    .told(
        "seed_stories",
        "where_the_log_does_not_reach_the_seed_any_more_the_map_or_a_comparison_does",
    ),
    mutant(
        "an image that is no point of a history is exported",
        "§8.1",
        SEED,
        "            _ if !self.is_complete() || self.is_sinking() => Err(Denied::Incomplete),\n",
        "",
    )
    .told("seed_stories", "half_an_image_is_exported_by_nobody"),
    mutant(
        "what an import has left stays where the next seed names nothing",
        "§8.1",
        IMPORT,
        "                run(&mut self.engine, Op::Zero { file, offset, len, punch: true })?;",
        "                let _ = file;",
    )
    .on_disk("a_power_loss_at_any_operation_is_mended_by_the_next_import"),
    mutant(
        "a replica says that it is made of a seed before that is durable in its stores",
        "§8.1",
        IMPORT,
        "            run(&mut self.engine, Op::Sync { file }).map_err(io)?;",
        "            let _ = (file, io);",
    )
    .on_disk("a_power_loss_at_any_operation_is_mended_by_the_next_import"),
];
