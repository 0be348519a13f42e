//! Members that are taken back to a point of the past (design §6.2, §8.5).

use super::{Mutant, mutant};

const BACK: &str = "protocol/src/node/back.rs";
const FOLLOW: &str = "protocol/src/node/follow.rs";
const PROMISE: &str = "protocol/src/node/promise.rs";
const LEAD: &str = "protocol/src/node/lead.rs";
const REWIND: &str = "blockdev/src/resync/rewind.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "who goes back is still the life that has acknowledged what it gives up",
        "§5.4",
        BACK,
        "        state.incarnation = state.incarnation.next_at(self.clock.wall);\n",
        "",
    )
    .tested("a_tail_that_was_answered_for_is_never_taken_for_one_that_was_not"),
    mutant(
        "who goes back fetches again what it is to be without",
        "§6.2",
        PROMISE,
        "        if self.went_back().is_some() {",
        "        if false {",
    )
    .tested("it_leads_from_the_point_and_fetches_nothing_of_what_it_is_to_be_without"),
    mutant(
        "one that was interrupted on its way back follows again in silence",
        "§6.2",
        FOLLOW,
        "        if self.went_back().is_some() {",
        "        if false {",
    )
    .tested("one_that_was_interrupted_follows_nobody_and_says_what_can_be_done"),
    mutant(
        "a takeover leads from the end of a log that was to be cut",
        "§6.2",
        LEAD,
        "        if let (Part::Standby(None), Some(went)) = (&self.standing, self.went_back()) {",
        "        if let (Part::Stopped, Some(went)) = (&self.standing, self.went_back()) {",
    )
    .tested("a_cut_that_was_interrupted_is_done_by_the_next_command"),
    mutant(
        "the new life speaks before it is durable",
        "§5.4",
        BACK,
        "        self.back.as_ref().is_some_and(|back| back.step == Step::Recording)",
        "        false",
    )
    .told("back_stories", "a_standby_goes_back_and_leads_and_the_old_primary_comes_back_to_it"),
    mutant(
        "what an earlier resync staged is put over the point",
        "§8.2",
        REWIND,
        "    let dropped = drop_staging(io, replica_dir).await;",
        "    let dropped = io::Result::Ok(());",
    )
    .on_disk("what_an_earlier_resync_staged_is_not_brought_in"),
];
