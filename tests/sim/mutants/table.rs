//! Bugs that somebody could make: a rule of the contract each, taken out of the code.

/// One bug, as a change of one place in the sources.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    /// The rule that is missing.
    pub(crate) name: &'static str,
    /// Where it stands in the contract, or the story of what happens without it.
    pub(crate) rule: &'static str,
    /// The file, from the top of the workspace.
    pub(crate) file: &'static str,
    /// A text that stands there once.
    pub(crate) find: &'static str,
    /// What stands there instead.
    pub(crate) put: &'static str,
    /// A second place in the same file, where the rule is held twice.
    pub(crate) also: Option<(&'static str, &'static str)>,
    /// Who must notice.
    pub(crate) witness: Witness,
}

/// Who must notice a bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Witness {
    /// The simulator, by its seeds.
    Seeds,
    /// The exploration: so rare an order of events that seeds do not meet it.
    Exploration,
    /// A story that the simulator is told, in this file and of this name: seeds met it once in
    /// thousands.
    Story(&'static str, &'static str),
}

const fn mutant(
    name: &'static str,
    rule: &'static str,
    file: &'static str,
    find: &'static str,
    put: &'static str,
) -> Mutant {
    Mutant { name, rule, file, find, put, also: None, witness: Witness::Seeds }
}

impl Mutant {
    const fn and(mut self, find: &'static str, put: &'static str) -> Self {
        self.also = Some((find, put));
        self
    }

    const fn explored(mut self) -> Self {
        self.witness = Witness::Exploration;
        self
    }

    const fn told(mut self, file: &'static str, story: &'static str) -> Self {
        self.witness = Witness::Story(file, story);
        self
    }
}

const ANSWER: &str = "protocol/src/node/answer.rs";
const FOLLOW: &str = "protocol/src/node/follow.rs";
const LEAD: &str = "protocol/src/node/lead.rs";
const PROMISE: &str = "protocol/src/node/promise.rs";
const INSYNC: &str = "protocol/src/node/insync.rs";
const NODE: &str = "protocol/src/node/mod.rs";
const SESSION: &str = "protocol/src/node/session.rs";
const FEED: &str = "protocol/src/node/feed.rs";
const HANDOVER: &str = "protocol/src/node/handover.rs";
const PACE: &str = "protocol/src/node/pace.rs";
const PROOF: &str = "protocol/src/node/proof.rs";
const REGISTER: &str = "protocol/src/node/register.rs";
const SPOOL: &str = "blockdev/src/replica/spool.rs";
const REPLICA: &str = "blockdev/src/replica.rs";
const RECOVERY: &str = "blockdev/src/journal/recovery.rs";
const OPEN: &str = "blockdev/src/journal/open.rs";
const WRITER: &str = "blockdev/src/journal/writer.rs";
const TRUNCATE: &str = "blockdev/src/journal/truncate.rs";

/// All of them.
pub(crate) const MUTANTS: &[Mutant] = &[
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
        "a standby is left out before the record says so",
        "§5.1",
        INSYNC,
        "        self.state.in_sync.retain(|life| life.member != member);\n",
        "        self.state.in_sync.retain(|life| life.member != member);\n        \
         self.insync.recorded.clone_from(&self.state.in_sync);\n",
    ),
    mutant(
        "a promise is forgotten over a restart",
        "I7",
        NODE,
        "state.incarnation = state.incarnation.next();",
        "state.incarnation = state.incarnation.next();\n        state.promised = state.owned;",
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
        "        if matches!(self.standing, Part::Waking(_)) {\n            return;\n        }\n",
        "",
    )
    .and("        if !matches!(self.standing, Part::Waking(_)) {\n", "        {\n"),
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
        "may_apply: self.kept_without(Some(member)).max(feed.told)",
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
        "a restart replays the whole log",
        "§2.5; holes, story 1",
        REPLICA,
        "let limit = state.apply_limit.min(recovered.end.lsn);",
        "let limit = recovered.end.lsn;",
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
        "Phase::Following | Phase::Joining(_))\n            {\n                session.phase",
        "Phase::Joining(_))\n            {\n                session.phase",
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
        "a proof is looked at only when the command comes",
        "§5.3",
        LEAD,
        "self.stand_by_force(by_proof, over, Some(id));",
        "self.stand_by_force(by_proof && over.is_some(), over, Some(id));",
    )
    .told("record_stories", "a_takeover_by_proof_that_takes_longer_than_its_proof_is_given_up"),
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
        "§5.2",
        REGISTER,
        "            Part::Leading | Part::Releasing(_) if owner != me => {",
        "            Part::Leading | Part::Releasing(_) if owner != me && epoch < \
         self.state.owned => {",
    ),
    mutant(
        "a record that names a dead life is nobody's business",
        "§6.0; holes, story 13",
        REGISTER,
        "            Part::Standby(None) if fresh && mine && !released && \
         !self.follow.cutting => {",
        "            Part::Standby(None) if fresh && mine && released && !self.follow.cutting => {",
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
        "a takeover by proof serves after its proof is over",
        "§5.3",
        LEAD,
        "if let (true, Err(why)) = (beginning.by_proof, self.prove()) {",
        "let late = beginning.by_proof && epoch > self.state.owned;\n        \
         if let (true, Err(why)) = (late, self.prove()) {",
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
        "an epoch is proposed that is below the record's",
        "I4",
        REGISTER,
        "            Ok(_) if lower => Verdict::Higher,\n",
        "            Ok(_) if lower && false => Verdict::Higher,\n",
    )
    .told("record_stories", "an_epoch_won_over_a_record_that_moved_on_is_above_it_all_the_same"),
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
        "frames overtake those that were left in the log",
        "§2.2",
        SPOOL,
        "let left = full || self.end.is_some();",
        "let left = full;",
    ),
    mutant(
        "an operator lets a primary go on alone while its standby has a proof",
        "§5.3",
        INSYNC,
        "        if let Some(left) = left {\n",
        "        if let Some(left) = left.filter(|_| false) {\n",
    )
    .told("late_stories", "a_primary_does_not_go_on_alone_while_its_standby_has_a_proof"),
    mutant(
        "a proof outlives a promise to another",
        "§5.3",
        PROMISE,
        "        self.follow.proof = None;\n",
        "",
    )
    .told("late_stories", "who_has_promised_to_another_has_no_proof_any_more"),
];
