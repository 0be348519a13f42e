//! Rules of members: what they answer, say, promise, follow and begin.

use super::{Mutant, mutant};

const ANSWER: &str = "protocol/src/node/answer.rs";
const FOLLOW: &str = "protocol/src/node/follow.rs";
const LEAD: &str = "protocol/src/node/lead.rs";
const PROMISE: &str = "protocol/src/node/promise.rs";
const NODE: &str = "protocol/src/node/mod.rs";
const SESSION: &str = "protocol/src/node/session.rs";
const LOG: &str = "protocol/src/node/log.rs";
const NUMBERS: &str = "protocol/src/node/numbers.rs";
const FEED: &str = "protocol/src/node/feed.rs";
const HANDOVER: &str = "protocol/src/node/handover.rs";
const PACE: &str = "protocol/src/node/pace.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    mutant(
        "recent frames stay in memory for ever",
        "I10",
        LOG,
        "while self.tail_bytes > config.tail_bytes && self.tail.len() > 1 {",
        "while self.tail_bytes > config.tail_bytes && self.tail.is_empty() {",
    ),
    mutant(
        "a standby that was put back counts with what it had before",
        "§3: at most the gap, which is shown",
        SESSION,
        "peer.kept = peer.kept.map(|kept| kept.min(end));",
        "let _ = (peer, end);",
    )
    .told(
        "identity_stories",
        "what_a_standby_that_was_put_back_does_not_have_any_more_is_shown_as_a_loss",
    ),
    mutant(
        "a primary shows that less may be lost than it is",
        "§3: at most the gap, which is shown",
        NUMBERS,
        "Loss::AtMost { bytes, us }",
        "Loss::AtMost { bytes: bytes / 2, us }",
    ),
    mutant(
        "a write is answered before the standby has it",
        "§3",
        ANSWER,
        "            writes = writes.min(received);\n",
        "            let _ = &mut writes;\n",
    ),
    mutant(
        "a commit in sync waits for receipt only",
        "§3",
        ANSWER,
        "let committed = if self.state.mode == Mode::Sync { durable } else { received };",
        "let committed = received.max(durable);",
    ),
    mutant(
        "a flush is answered before the primary's own log is durable",
        "§3",
        ANSWER,
        "(self.log.written(), self.log.durable())",
        "(self.log.written(), self.log.written())",
    ),
    mutant(
        "a standby accepts an older epoch",
        "I7",
        FOLLOW,
        "if lead.epoch < self.state.promised {",
        "if lead.epoch < self.state.owned {",
    ),
    mutant(
        "durability is acknowledged before the sync",
        "I8",
        FOLLOW,
        "durable: self.log.durable(), applied, heard, stamp }",
        "durable: self.log.end().lsn, applied, heard, stamp }",
    ),
    mutant(
        "a promise is forgotten over a restart",
        "I7",
        NODE,
        "let log = Log::new(&mut state, recovered, clock);",
        "let log = Log::new(&mut state, recovered, clock);\n        state.promised = state.owned;",
    ),
    mutant(
        "a promise is spoken before it is durable",
        "I7",
        PROMISE,
        "self.persist_then(After::SayPromised(session, ask.epoch));",
        "self.persist.touch();\n        self.say_promised(session, ask.epoch);",
    ),
    mutant(
        "a hello speaks of what is not durable yet",
        "I7, I8",
        SESSION,
        "promised: words.promised,",
        "promised: state.promised,",
    ),
    mutant(
        "a member speaks before its new life is durable",
        "§5.4",
        SESSION,
        "        matches!(self.standing, Part::Waking(_)) || self.is_between_lives()",
        "        self.is_between_lives()",
    ),
    mutant(
        "frames are applied before the log is durable",
        "§2.2",
        ANSWER,
        "        let durable = self.log.durable();\n        let leads",
        "        let durable = self.log.end().lsn;\n        let leads",
    ),
    mutant(
        "a primary applies what its standby lacks",
        "§2.5",
        ANSWER,
        "kept.min(feed.map_or(Lsn::START, |feed| feed.received))",
        "feed.map_or(kept, |_| kept)",
    ),
    mutant(
        "a standby applies what its primary may lose",
        "§2.5",
        ANSWER,
        "durable.min(self.follow.may_apply).min(self.delayed())",
        "durable.min(self.delayed())",
    ),
    mutant(
        "a standby outside the set applies what the set may take back",
        "§2.5",
        FEED,
        "may_apply: self.word_for(member).max(feed.told)",
        "may_apply: self.log.durable()",
    )
    .told(
        "record_stories",
        "an_auxiliary_standby_applies_nothing_that_a_takeover_by_the_set_takes_back",
    ),
    mutant(
        "the apply limit is used before it is recorded",
        "§2.5",
        ANSWER,
        "self.persist_then(After::Apply(target));",
        "self.persist.touch();\n                self.out.push_back(Action::Apply(target));",
    ),
    mutant(
        "a frame of an older epoch is refused in catch-up",
        "I7; holes, story 2",
        FOLLOW,
        "if self.state.history.check_next(self.log.end(), &frame).is_err() {",
        "if frame.epoch() < self.state.promised && frame.epoch_start().is_none() {\n            \
         return self.refuse(session, Refusal::Protocol);\n        }\n        \
         if self.state.history.check_next(self.log.end(), &frame).is_err() {",
    ),
    mutant(
        "a restarted standby counts as in sync",
        "§5.4; holes, story 3",
        FOLLOW,
        "false => set.contains(&entry.leader) ||",
        "false => set.iter().any(|life| life.member == entry.leader.member) ||",
    )
    .told(
        "late_stories",
        "an_answered_tail_that_nobody_applied_is_not_cut_for_a_later_life_of_the_standby",
    ),
    mutant(
        "an epoch is owned while its log is unsynced",
        "§6.0; holes, story 4",
        LEAD,
        "if beginning.recording || self.log.durable() < self.log.end().lsn {",
        "if beginning.recording {",
    )
    .and(
        "            && self.log.durable() == self.log.end().lsn;\n        if !ready",
        ";\n        if !ready",
    ),
    mutant(
        "a restarted primary asks nobody",
        "§6.3; holes, story 5",
        LEAD,
        "        if need.is_subset(&connected) {",
        "        let need: BTreeSet<_> = if need.is_empty() { need } else { BTreeSet::new() \
         };\n        \
         if need.is_subset(&connected) {",
    )
    .and(
        "            let need = need.into_iter().chain(connected).collect();",
        "            let _ = connected;",
    ),
    mutant(
        "a restarted primary does not fetch the later log",
        "§6.3",
        LEAD,
        "of(promised) > mine && !(self.force",
        "of(promised) > (Epoch::new(u64::MAX), mine.1) && !(self.force",
    ),
    mutant(
        "a proposed standby does not count yet",
        "§4; holes, story 6",
        ANSWER,
        "for life in self.blockers() {\n            let feed",
        "let recorded = self.insync.recorded.clone();\n        \
         let me = self.state.member;\n        \
         let short = recorded.into_iter().filter(|life| {\n            \
         life.member != me && self.state.in_sync.contains(life) && self.peers.get(&life.member)\n\
         .and_then(|peer| peer.feed()).is_none_or(|feed| feed.entry == Entry::Peer)\n        \
         });\n        for life in short {\n            let feed",
    ),
    mutant(
        "two members can make the same epoch",
        "§1; holes, story 8",
        LEAD,
        "highest.next_for(self.state.member)",
        "Epoch::new(highest.get() + 1)",
    ),
    mutant(
        "an incarnation goes on in the epoch of the one before",
        "§1",
        LEAD,
        "command) = (false, false, None, None);\n            self.stand(self.next_epoch(),",
        "command) = (false, false, None, None);\n            let next = \
         self.state.owned.max(Epoch::new(1));\n            self.stand(next,",
    ),
    mutant(
        "nobody follows up a lost confirmation of a handover",
        "§6.1; holes, story 11",
        LEAD,
        "if let Some(release) = release.filter(|r| r.to == self.state.member) {",
        "if let Some(release) = release.filter(|r| r.to != self.state.member) {",
    ),
    mutant(
        "a member outside the set does not promise to a restart",
        "§6.3; holes, story 12",
        PROMISE,
        "Part::Standby(_) => follows_other && !ask.force,",
        "Part::Standby(_) => !ask.force && (follows_other || self.state.in_set_of.is_none()),",
    ),
    mutant(
        "an owned epoch is overtaken by a re-stamp",
        "§6.0; holes, story 14",
        PROMISE,
        "true if owned => self.step_down(),",
        "true if owned && promised == self.state.owned => self.step_down(),",
    ),
    mutant(
        "a handover is confirmed before it is durable",
        "§6.1",
        HANDOVER,
        "self.persist_then(After::Released(release));",
        "self.persist.touch();\n                self.released(release);",
    ),
    mutant(
        "whoever goes over to another primary goes on acknowledging to the first",
        "I2; the first takes it for its own history",
        FOLLOW,
        "matches!(session.phase, Phase::Following | Phase::Joining(_) | Phase::Sinking(_))",
        "matches!(session.phase, Phase::Joining(_) | Phase::Sinking(_))",
    ),
    mutant(
        "any tail is cut without a question",
        "§6.4",
        FOLLOW,
        "if !(untouched && worthless && at.lsn == point) {",
        "let _ = worthless;\n        if !(untouched && at.lsn == point) {",
    ),
    mutant(
        "a stop does not wait for the standby's receipt",
        "§2.4",
        NODE,
        "            && self.set_has_all();",
        "            ;",
    ),
    mutant(
        "a proof is looked at only when the command comes",
        "§5.3",
        LEAD,
        "self.stand_by_force(by_proof, over, Some(id));",
        "self.stand_by_force(by_proof && over.is_some(), over, Some(id));",
    )
    .told("record_stories", "a_takeover_by_proof_that_takes_longer_than_its_proof_is_given_up"),
    mutant(
        "a takeover by proof serves after its proof is over",
        "§5.3",
        LEAD,
        "if let (true, Err(why)) = (beginning.by_proof, self.prove()) {",
        "let late = beginning.by_proof && epoch > self.state.owned;\n        \
         if let (true, Err(why)) = (late, self.prove()) {",
    ),
    mutant(
        "whoever takes over by force begins below an epoch that it knows of",
        "§6.0",
        LEAD,
        "heard.chain(recorded).chain(self.owner_heard())",
        "heard.chain(recorded)",
    )
    .and("Part::Leading if (leading || owns) && theirs", "Part::Leading if leading && theirs")
    .told("late_stories", "whoever_takes_over_by_force_leads_above_every_epoch_that_it_knows_of"),
    mutant(
        "a standby that cannot follow a new primary tells the old one nothing",
        "§6.0",
        FOLLOW,
        "        self.follow.diverged = Some(fork);\n        self.tell_former_leaders(session);",
        "        self.follow.diverged = Some(fork);",
    )
    .told("late_stories", "a_standby_that_cannot_follow_a_new_primary_still_tells_the_old_one"),
    mutant(
        "a handover by a primary that was overtaken by force is taken up",
        "§6.0, §6.1",
        HANDOVER,
        "is_some_and(|owned| owned > newest)",
        "is_some_and(|owned| owned > newest && owned < newest)",
    )
    .told("late_stories", "a_handover_of_a_primary_that_was_overtaken_by_force_is_void"),
    mutant(
        "what nearsync had reached answers commits of sync",
        "§3, §4",
        PACE,
        "self.count_commits_anew();",
        "",
    )
    .told("late_stories", "a_commit_that_comes_after_the_change_to_sync_counts_by_sync"),
    mutant(
        "a member that could not promise just then is never asked again",
        "§6.3",
        PROMISE,
        "**at <= now).map",
        "**at <= now && false).map",
    )
    .told("late_stories", "a_restarted_primary_asks_again_who_could_not_promise_just_then"),
    mutant(
        "a member keeps to a primary that was deposed",
        "§6.3",
        PROMISE,
        "peer.member != member && led_in >= owned",
        "peer.member != member && led_in >= owned.and(None)",
    )
    .told(
        "late_stories",
        "whoever_follows_a_primary_that_was_deposed_promises_to_one_that_owned_a_later_epoch",
    ),
    mutant(
        "a proof outlives a promise to another",
        "§5.3",
        PROMISE,
        "        self.follow.proof = None;\n",
        "",
    )
    .told("late_stories", "who_has_promised_to_another_has_no_proof_any_more"),
];
