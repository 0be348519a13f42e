//! Ownership marks: decisions over markers, leases, and the right to serve (design §7).

use super::{Mutant, mutant};

const ALONE: &str = "protocol/src/node/alone.rs";
const KEEPER: &str = "protocol/src/marks/keeper/mod.rs";
const LEASE: &str = "protocol/src/node/lease.rs";
const PROPOSER: &str = "protocol/src/marks/proposer.rs";
const REGISTER: &str = "protocol/src/node/register.rs";
const TENURE: &str = "protocol/src/marks/tenure.rs";
const WATCH: &str = "protocol/src/marks/watch.rs";

/// Every order of events over small markers.
const DECIDES: &str = "no_order_of_events_on_markers_decides_twice_or_tells_of_the_past";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "a step is done when it is done on one marker of three",
        "Disk Paxos: majorities meet",
        PROPOSER,
        "        if count <= self.markers.len() / 2 {",
        "        if count == 0 {",
    )
    .told("explore", DECIDES),
    mutant(
        "what another member stood for is not stood for",
        "Disk Paxos: a value that may be decided is decided",
        PROPOSER,
        "match self.best.take().map(|best| best.value).or(wish) {",
        "match wish.or(self.best.take().map(|best| best.value)) {",
    )
    .told("explore", DECIDES),
    mutant(
        "a higher ballot is not heeded",
        "Disk Paxos: whoever sees one begins again",
        PROPOSER,
        "self.highest.is_some_and(|highest| highest > ballot);",
        "self.highest.is_some_and(|highest| highest > ballot && ballot.round == 0);",
    )
    .told("explore", DECIDES),
    mutant(
        "a decision is told before a majority of the markers holds it",
        "fencing §2.5: learned on a majority before it is left",
        PROPOSER,
        "        if self.taught < self.own.number() {",
        "        if self.taught < self.own.number() && self.read_wished && self.change.is_some() {",
    )
    .told("explore", DECIDES),
    mutant(
        "a record that was read before the wish counts as read for it",
        "fencing §2.5: nobody hears of the past",
        PROPOSER,
        "Stage::Recovering | Stage::Reading => self.looked = self.looking,",
        "Stage::Recovering | Stage::Reading => self.looked = true,",
    )
    .told("explore", DECIDES),
    mutant(
        "a marker that does not answer in time is given its next order",
        "fencing §2.2: one write at a time on each marker",
        KEEPER,
        "if began.after(io) <= now => self.set_health(index, Health::Late),",
        "if began.after(io) <= now => self.failed(index, Health::Late),",
    )
    .marked(),
    mutant(
        "a renewal counts from when it was done",
        "fencing §2.3: a lease counts from before its write",
        TENURE,
        "        marker.since = Some(began);",
        "        marker.since = Some(now);",
    )
    .told("marks_stories", "a_renewal_that_is_confirmed_late_counts_from_before_it_was_written"),
    mutant(
        "a primary serves without a lease",
        "fencing §2.4",
        LEASE,
        "holds(self.lease.until) || holds(self.grants_end())",
        "holds(self.lease.until) || holds(Some(guarded.after(config.lease)))",
    )
    .marked(),
    mutant(
        "a lease is taken for over as soon as it stands still",
        "fencing §2.3: it is waited out",
        WATCH,
        "self.read >= self.since.after(self.block.lease.timing.wait_out())",
        "self.read >= self.since.after(self.block.lease.timing.renew)",
    )
    .marked(),
    mutant(
        "a standby forgets that its primary relies on its word",
        "fencing §2.4: a grant is waited out",
        LEASE,
        "answered_for || released || fenced || over && lapsed",
        "answered_for || released || fenced || over && (lapsed || config.lease > config.guard)",
    )
    .told("marks_stories", "a_standby_waits_for_the_end_of_what_it_has_told_its_primary"),
    mutant(
        "an owner whose lease had ended serves again as if nothing had been",
        "fencing §2.4: it asks the record first",
        LEASE,
        "        if self.granted_since().is_some_and(|sent| sent > since) {",
        "        if self.granted_since().is_some_and(|sent| sent > since) || self.lease_holds() {",
    )
    .told(
        "marks_stories",
        "an_owner_whose_lease_is_back_serves_nobody_before_the_record_has_named_it_again",
    ),
    mutant(
        "a lease seen to be over before its owner won the record is over for that record",
        "fencing §2.5: a takeover is over what was seen after it was decided",
        LEASE,
        "self.register.known_since().is_some_and(|since| *as_of >= since)",
        "self.register.known_since().is_some_and(|since| *as_of >= since || since > *as_of)",
    )
    .tested("what_was_seen_before_the_record_changed_counts_for_nothing"),
    mutant(
        "a set that is proposed is not counted, over markers",
        "fencing §2.10: a pending GROW counts",
        REGISTER,
        "self.pending.as_ref().map_or(&[], |record| &record.in_sync)",
        "self.pending.as_ref().map_or(&[], |_| &[])",
    )
    .told(
        "marks_stories",
        "a_standby_whose_entry_may_have_been_decided_holds_answers_when_it_is_left_out_again",
    ),
    mutant(
        "a larger set that is decided is not counted when a smaller one is wished already",
        "§5.1: the set is what the record says, until it says something else",
        REGISTER,
        "let record = self.record().filter(|record| record.owner == owner);",
        "let record = self.record().filter(|record| record.owner == owner && self.wish.is_none());",
    )
    .told(
        "marks_stories",
        "a_standby_whose_entry_may_have_been_decided_holds_answers_when_it_is_left_out_again",
    ),
    mutant(
        "a primary answers without a standby before the markers have left it out",
        "fencing §2.10: SHRINK is decided first",
        REGISTER,
        "            self.register.wish = Some(Wish::Set(set));\n        } else {",
        "            self.register.wish = Some(Wish::Set(set.clone()));\n            \
         self.set_recorded(set);\n        } else {",
    )
    .told("marks_stories", "nobody_is_answered_before_the_markers_have_left_the_lost_standby_out"),
    mutant(
        "whoever was fenced once is fenced in every epoch",
        "fencing §2.5: a proof of fencing is of one life",
        ALONE,
        "self.alone.fenced == Some(owner) && !self.connected()",
        "self.alone.fenced.is_some_and(|(member, _)| member == owner.0) && !self.connected()",
    )
    .tested("who_was_fenced_in_an_earlier_epoch_is_not_fenced_in_this_one"),
    mutant(
        "an owner that could not be fenced counts as fenced",
        "fencing §2.5: the exit code says it",
        ALONE,
        "        if is_fenced {\n",
        "        if is_fenced || !is_fenced {\n",
    )
    .tested("an_owner_that_could_not_be_fenced_is_waited_out"),
    mutant(
        "an owner is fenced as soon as its link is lost",
        "fencing §2.5: one that renews its lease lives",
        ALONE,
        "sight.is_some_and(Sight::is_silent);",
        "sight.is_some();",
    )
    .tested("an_owner_is_fenced_when_it_has_missed_a_few_renewals_and_is_not_connected"),
    mutant(
        "a resource goes home as often as it likes",
        "§6.5: hosts that fall again and again do not hand it to and fro",
        ALONE,
        "if now < since.after(home.after) || self.has_taken(home.takeovers_max) {",
        "if now < since.after(home.after) {",
    )
    .tested("a_resource_that_returned_home_as_often_as_it_may_stays_where_it_is_put"),
    mutant(
        "a control block is written again at once after an error",
        "fencing §2.2: what failed may land late, over what came after it",
        KEEPER,
        "                marker.settled_at = now.after(settle);",
        "                marker.settled_at = now;",
    )
    .tested("after_an_error_no_control_block_is_written_before_that_one_would_have_landed"),
    mutant(
        "a handover that comes to nothing lets clients in, lease or not",
        "fencing §2.4: the gate stays shut",
        LEASE,
        "        if self.lease.gate == Gate::Open {\n",
        "        if self.lease.gate != Gate::Opening(0, self.clock.now) {\n",
    )
    .told("marks_stories", "a_handover_that_comes_to_nothing_after_the_lease_lets_nobody_in"),
];
