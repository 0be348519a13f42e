//! Rules of the in-sync set: who is in it and who decides so, the peer window, proofs, and the
//! control record.

use super::{Mutant, mutant};

const CONFIG: &str = "protocol/src/node/config.rs";
const IDS: &str = "protocol/src/ids.rs";
const INSYNC: &str = "protocol/src/node/insync.rs";
const PROOF: &str = "protocol/src/node/proof.rs";
const REGISTER: &str = "protocol/src/node/register.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "a lost standby is waited for without an end",
        "§3: writes wait at most the window",
        INSYNC,
        "} else if deadline <= self.clock.now && !holds_on {",
        "} else if deadline <= self.clock.now && !holds_on && member.index() > 7 {",
    ),
    mutant(
        "a proof makes no allowance for clocks that run apart",
        "§5.3",
        CONFIG,
        "self.peer_window - self.peer_window / 100",
        "self.peer_window",
    )
    .told("clock_stories", "a_proof_ends_before_the_window_by_clocks_as_far_apart_as_they_may_be"),
    mutant(
        "a replica put back from an older copy takes the number of a life that it had",
        "§5.4",
        IDS,
        "Self(self.0.saturating_add(1).max(wall.as_micros()))",
        "Self(self.0.saturating_add(1).max(wall.as_micros().min(1)))",
    )
    .told(
        "identity_stories",
        "a_replica_put_back_from_an_older_copy_is_nobody_that_the_record_names",
    ),
    mutant(
        "a standby is left out before the record says so",
        "§5.1",
        INSYNC,
        "        self.state.in_sync.retain(|life| life.member != member);\n",
        "        self.state.in_sync.retain(|life| life.member != member);\n        \
         self.insync.recorded.clone_from(&self.state.in_sync);\n",
    ),
    mutant(
        "in sync, caught up means received",
        "§4; holes, story 7",
        INSYNC,
        "Mode::Sync => self.promised_commits,",
        "Mode::Sync => crate::ids::Lsn::START,",
    ),
    mutant(
        "a standby enters the set before it has every answered write",
        "§4",
        INSYNC,
        "feed.entry = Entry::Proposed { received: answers.writes, durable };",
        "feed.entry = Entry::Proposed { received: crate::ids::Lsn::START, durable };",
    ),
    mutant(
        "the window is measured from when the word came, not from what it confirms",
        "§5.3; the window from the wrong end",
        PROOF,
        "Some(stamp) if stamp <= now => Some(Proof { of: member, stamp }),",
        "Some(stamp) if stamp <= now => Some(Proof { of: member, stamp: now }),",
    )
    .told("record_stories", "a_word_that_was_long_on_its_way_proves_no_more_than_what_it_confirms"),
    mutant(
        "a proof outlives the handshake",
        "§5.3; holes, story 9",
        PROOF,
        "            self.follow.proof = None;\n        }\n    }",
        "            self.follow.must_ack = false;\n        }\n    }",
    )
    .told("late_stories", "a_proof_ends_with_the_next_handshake_though_nothing_else_came_of_it"),
    mutant(
        "a connected standby is left out while it can prove that it is in",
        "§5.1, §5.3",
        PROOF,
        "over && (self.has_register() || self.took_back(member) || !self.holds_on())",
        "over || true",
    ),
    mutant(
        "the window's end lets a primary go on that was told to hold",
        "§5.3; holes, story 10",
        INSYNC,
        "deadline <= self.clock.now && !holds_on {",
        "deadline <= self.clock.now && (!holds_on || deadline > Now::default()) {",
    )
    .told("record_stories", "a_primary_that_holds_goes_on_when_the_link_is_back"),
    mutant(
        "a standby is left out without the record's consent",
        "§5.1",
        REGISTER,
        "            self.register.wish = Some(Wish::Set(set));\n",
        "            self.register.wish = Some(Wish::Set(set.clone()));\n            \
         self.set_recorded(set);\n",
    ),
    mutant(
        "a standby that the record may have taken in does not count yet",
        "§4; holes, story 6",
        INSYNC,
        "let proposed = self.peers.values().filter_map(|peer| {\n            let feed = \
         peer.feed()?;",
        "let proposed = self.peers.values().filter_map(|peer| {\n            let feed = \
         peer.feed().filter(|_| !self.has_register())?;",
    )
    .and(
        "recorded.chain(wished).copied().chain(proposed)",
        "let _ = wished;\n        \
         self.insync.recorded.iter().copied().chain(proposed)",
    ),
    mutant(
        "whoever wins a change of the record may be anybody",
        "§5.2",
        REGISTER,
        "            _ if record.counts(me) => Began::InSync,",
        "            _ if record.number > 0 => Began::InSync,",
    ),
    mutant(
        "a deposed primary goes on",
        "§5.2; holes, story 15, as far as it goes without a lease",
        REGISTER,
        "            Part::Leading | Part::Releasing(_) if owner != me => {",
        "            Part::Leading | Part::Releasing(_) if owner != me && epoch < \
         self.state.owned => {",
    ),
    mutant(
        "a record that names a dead life is nobody's business",
        "§6.0; holes, story 13",
        REGISTER,
        "if fresh && mine && !released && !self.follow.cutting && self.is_complete() =>",
        "if fresh && mine && released && !self.follow.cutting && self.is_complete() =>",
    )
    .told(
        "record_stories",
        "whoever_finds_a_dead_life_of_its_own_in_the_record_asks_its_set_and_leads",
    ),
    mutant(
        "a restarted owner by the record asks nobody",
        "§6.3; holes, story 5",
        REGISTER,
        "members.filter(|member| *member != me).collect()",
        "members.filter(|member| *member != me && record.number == 0).collect()",
    )
    .and(
        "let all = others.into_iter().all(|life| heard(life.member));",
        "let all = others.into_iter().all(|life| heard(life.member) || record.number > 0);",
    )
    .told(
        "record_stories",
        "the_record_alone_does_not_open_the_gate_of_a_primary_that_lost_its_memory",
    ),
    mutant(
        "a re-stamp leaves out whoever was in the set",
        "§5.1",
        INSYNC,
        "own && **life != me && !self.word_is_void(life.member)",
        "own && **life != me && self.config.timeout.is_zero()",
    )
    .told(
        "late_stories",
        "a_primary_that_begins_again_is_not_rid_of_a_standby_that_can_prove_that_it_is_in_the_set",
    ),
    mutant(
        "an epoch that was won by force is begun as a mere restart",
        "§6.4: the tail of the other side was answered",
        REGISTER,
        "None if record.owner == me && begun => Began::Restart,",
        "None if record.owner == me => Began::Restart,",
    )
    .explored(),
    mutant(
        "an epoch is proposed that is below the record's",
        "I4",
        REGISTER,
        "            (Ok(_), None) if lower => Verdict::Higher,\n",
        "            (Ok(_), None) if lower && false => Verdict::Higher,\n",
    )
    .told("record_stories", "an_epoch_won_over_a_record_that_moved_on_is_above_it_all_the_same"),
    mutant(
        "an operator lets a primary go on alone while its standby has a proof",
        "§5.3",
        INSYNC,
        "        if let Some(left) = left {\n",
        "        if let Some(left) = left.filter(|_| false) {\n",
    )
    .told("late_stories", "a_primary_does_not_go_on_alone_while_its_standby_has_a_proof"),
];
