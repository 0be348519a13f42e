//! A standby's side of a resync.

use super::super::follow::Follow;
use super::super::log::{Log, Recovered};
use super::super::peer::Phase;
use super::super::persist::After;
use super::super::{Action, Answers, Denied, Done, Node, Note, Part, answer};
use super::Retention;
use crate::frame::LogPosition;
use crate::history::Parting;
use crate::ids::{Epoch, Lsn, MemberId, SessionId};
use crate::replica::{Base, Image};
use crate::resync::Takes;
use crate::wire::{AskResync, Landed, Lead, Message, Refusal};

/// What a standby wants of its primary.
#[derive(Clone, Debug)]
pub(in super::super) struct Sinking {
    pub(in super::super) epoch: Epoch,
    wish: Wish,
    stage: Stage,
}

/// From where, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Wish {
    /// To here both have one history; `None`: nothing is known to be common.
    from: Option<Lsn>,
    /// The log beyond here is not the primary's, and was written by clients: it goes to quarantine.
    apart: Option<Lsn>,
    takes: Takes,
}

/// How far it is.
#[derive(Clone, Debug)]
enum Stage {
    /// The promise to the primary becomes durable.
    Promising,
    /// The image comes to rest.
    Settling,
    /// What differs comes in.
    Taking,
    /// Everything came: it is looked at once more, and made durable.
    Verifying(Box<Landed>),
}

impl Phase {
    pub(in super::super) fn is_sinking(&self) -> bool {
        matches!(self, Self::Sinking(_))
    }
}

impl Node {
    /// Whether this replica holds nothing of its own: another content may take its place unasked.
    fn is_blank(&self) -> bool {
        let empty = self.state.history.entries().is_empty() && self.state.base == Base::Zero;
        empty || self.state.image == Image::Incomplete
    }

    /// Whether the two began with different content, and neither is there to get the other's.
    pub(in super::super) fn base_stands_between(
        &self,
        theirs: Base,
        image: Image,
        at: Lsn,
    ) -> bool {
        let blank = image == Image::Incomplete || theirs == Base::Zero && at == Lsn::START;
        theirs != self.state.base && !blank && !self.is_blank()
    }

    /// What a standby that hears a primary cannot join by the log is to do about it: whether it
    /// asks for the rest otherwise.
    pub(in super::super) fn asks_instead(
        &mut self,
        session: SessionId,
        member: MemberId,
        lead: &Lead,
    ) -> bool {
        let base = self.peers.get(&member).and_then(|peer| Some(peer.hello()?.base));
        let same_base = base.is_none_or(|base| base == self.state.base);
        if same_base && self.state.image == Image::Whole {
            return false;
        }
        if !same_base && !self.is_blank() && !self.wants_rejoin() {
            self.refuse(session, Refusal::BaseDiffers);
            return true;
        }
        let end = self.log.end().lsn;
        let own = !self.state.history.entries().is_empty();
        let point = match self.state.history.parting(end, &lead.history, lead.end.lsn) {
            Parting::At { point } if own && same_base => Some(point),
            _ => None,
        };
        let apart = own.then(|| point.unwrap_or_default()).filter(|point| *point < end);
        self.ask_resync(session, member, lead.epoch, (point, apart));
        true
    }

    /// A replica whose own writes stand between it and the primary goes back to the fork, if an
    /// operator or the policy says so (design §6.4). `fork`: `None` where nothing is common.
    pub(in super::super) fn rejoins(
        &mut self,
        session: SessionId,
        member: MemberId,
        epoch: Epoch,
        fork: Option<Lsn>,
    ) -> bool {
        let wanted = self.wants_rejoin();
        if wanted {
            let apart = Some(fork.unwrap_or_default());
            self.ask_resync(session, member, epoch, (fork, apart));
        }
        wanted
    }

    /// The primary's log does not reach back to the end of this one.
    pub(in super::super) fn log_gone(&mut self, member: MemberId) {
        let Some(peer) = self.peers.get(&member).filter(|peer| peer.is_following()) else { return };
        let Some(session) = peer.session.as_ref().map(|open| open.id) else { return };
        // What waits in this log was not applied, and is fetched with the rest.
        let from = (Some(self.state.apply_limit), None);
        self.ask_resync(session, member, self.state.promised, from);
    }

    /// The promise comes first: nothing of an older epoch is taken from here on (I7).
    fn ask_resync(
        &mut self,
        session: SessionId,
        member: MemberId,
        epoch: Epoch,
        (from, apart): (Option<Lsn>, Option<Lsn>),
    ) {
        let place = self.place();
        let never_held = self.state.image == Image::Incomplete
            || self.state.history.entries().is_empty() && self.is_blank();
        let takes = if never_held { Takes::InPlace } else { self.config.resync };
        if takes == Takes::InPlace {
            // Durable with the promise, and so before the first byte is written over.
            self.state.image = Image::Incomplete;
        }
        // What is in the log and not in the image is lacking, too, or is this replica's own.
        let limit = self.state.apply_limit;
        let (from, apart) = (from.map(|at| at.min(limit)), apart.map(|at| at.min(limit)));
        let wish = Wish { from, apart, takes };
        if let Some(open) = self.session_mut(session) {
            open.phase = Phase::Sinking(Sinking { epoch, wish, stage: Stage::Promising });
        }
        self.register.outdate();
        self.state.promised = epoch;
        let diverged = self.follow.diverged;
        self.follow = Follow::of(epoch);
        self.follow.diverged = diverged;
        self.moved_from(place);
        self.forget_refusal(member);
        self.persist_then(After::AskResync(session, epoch));
    }

    pub(in super::super) fn resync_promised(&mut self, session: SessionId, epoch: Epoch) {
        let promised = self.state.promised == epoch;
        if let Some(sinking) = self.sinking_mut(session).filter(|_| promised)
            && sinking.epoch == epoch
            && matches!(sinking.stage, Stage::Promising)
        {
            sinking.stage = Stage::Settling;
            self.tell_former_leaders(session);
        }
    }

    /// Nothing goes into the image any more: what is compared and staged is beside one point.
    pub(super) fn settle_sink(&mut self) {
        let sinking = self.peers.values().find_map(|peer| {
            let open = peer.session.as_ref()?;
            match &open.phase {
                Phase::Sinking(sinking) => Some((peer.member, open.id, sinking)),
                _ => None,
            }
        });
        let Some((member, session, sinking)) = sinking else { return };
        let (epoch, wish) = (sinking.epoch, sinking.wish);
        let ready = matches!(sinking.stage, Stage::Settling) && self.image_rests();
        if !ready || self.resync.sink.is_some() || !matches!(self.standing, Part::Standby(_)) {
            return;
        }
        if let Some(sinking) = self.sinking_mut(session) {
            sinking.stage = Stage::Taking;
        }
        self.resync.sink = Some(session);
        let Wish { from, apart, takes } = wish;
        self.out.push_back(Action::Sink { session, takes, apart });
        self.send(session, Message::AskResync(AskResync { epoch, from }));
        self.out.push_back(Action::Note(Note::AsksForResync { member, takes }));
    }

    /// Everything was sent.
    pub(in super::super) fn on_landed(&mut self, session: SessionId, landed: Box<Landed>) {
        let promised = self.state.promised;
        let Some(sinking) = self.sinking_mut(session) else { return };
        if !matches!(sinking.stage, Stage::Taking) {
            return;
        }
        let newest = landed.history.last();
        let fits = landed.epoch == promised
            && newest
                .is_some_and(|entry| entry.epoch <= promised && entry.start.lsn < landed.at.lsn);
        if !fits {
            return self.refuse(session, Refusal::Protocol);
        }
        let (said, at) = (landed.said, landed.at);
        sinking.stage = Stage::Verifying(landed);
        // What the primary said when it was met is of the past: its log goes at least to there.
        if let Some(lead) = self.session_mut(session).and_then(|open| open.lead.as_mut()) {
            lead.end = at;
        }
        self.out.push_back(Action::FinishSink { session, said });
    }

    /// What came is whole and durable beside the image, and what it replaces is in quarantine where
    /// it has to be: the switch. One write of the superblock makes the landing the checkpoint.
    pub(in super::super) fn sink_done(&mut self, session: SessionId, whole: bool) {
        let Some(sinking) = self.sinking_mut(session) else { return };
        let landed = match (&sinking.stage, whole) {
            (Stage::Verifying(landed), true) => landed.clone(),
            // It is begun again from what is there already.
            _ => return self.refuse(session, Refusal::NotNow),
        };
        if let Some(open) = self.session_mut(session) {
            open.phase = Phase::Idle;
        }
        let (place, state) = (self.place(), &mut self.state);
        (state.history, state.base, state.image) = (landed.history, landed.base, Image::Switching);
        (state.checkpoint, state.apply_limit) = (landed.at, landed.at.lsn);
        state.in_sync.clear();
        (state.in_set_of, state.release) = (None, None);
        state.rejoin = false;
        self.resync.switching = true;
        self.begin_at(landed.at);
        self.follow = Follow::of(landed.epoch);
        self.follow.cutting = true;
        self.moved_from(place);
        self.persist_then(After::Switch(landed.at));
    }

    /// The image is the landing, and the log begins there.
    pub(in super::super) fn switched(&mut self, at: LogPosition) {
        if !std::mem::take(&mut self.resync.switching) {
            return;
        }
        self.state.image = Image::Whole;
        self.persist_then(After::Settled);
        if self.back_arrived() {
            return;
        }
        self.follow.cutting = false;
        self.out.push_back(Action::Note(Note::Landed(at.lsn)));
        self.hear_leads_again();
    }

    /// From here on the log is what begins at the landing. The old one may still tell of what it
    /// has done; nobody listens.
    pub(in super::super) fn begin_at(&mut self, at: LogPosition) {
        let (durable, start) = (at.lsn, at.lsn);
        let (epoch_starts, maps) = (Vec::new(), Vec::new());
        let recovered = Recovered { end: at, durable, start, epoch_starts, maps };
        self.log = Log::new(&mut self.state, recovered, self.clock);
        self.applying = answer::Applying::new(&self.log, self.clock.now);
        // Positions and maps of another history say nothing of this one. Least of all what was
        // answered in it: whoever leads again, further back, has answered nothing there.
        self.retention = Retention::default();
        (self.answers, self.promised_commits) = (Answers::default(), Lsn::START);
    }

    fn wants_rejoin(&self) -> bool {
        self.state.rejoin || self.config.rejoin_by_itself
    }

    /// An operator has decided that what this replica holds of its own is given up.
    pub(in super::super) fn rejoin(&mut self) -> Result<Done, Denied> {
        if !matches!(self.standing, Part::Standby(_)) {
            return Err(Denied::NothingToRejoin);
        }
        if !self.follow.cutting && self.give_up_back() {
            return Ok(Done::Rejoins);
        }
        let apart = |refusal: Refusal| {
            matches!(refusal, Refusal::Diverged { .. } | Refusal::Unrelated | Refusal::BaseDiffers)
        };
        let refused = self.peers.values().any(|peer| peer.refusal.is_some_and(apart));
        if self.follow.diverged.is_none() && !refused {
            return Err(Denied::NothingToRejoin);
        }
        self.state.rejoin = true;
        self.persist.touch();
        for open in self.peers.values_mut().filter_map(|peer| peer.session.as_mut()) {
            if matches!(open.phase, Phase::Refused) && open.lead.is_some() {
                open.phase = Phase::Idle;
            }
        }
        self.hear_leads_again();
        Ok(Done::Rejoins)
    }

    /// Whether this replica can be taken over: its image is a point of a history.
    pub(in super::super) fn is_complete(&self) -> bool {
        self.state.image != Image::Incomplete
    }

    fn sinking_mut(&mut self, session: SessionId) -> Option<&mut Sinking> {
        match &mut self.session_mut(session)?.phase {
            Phase::Sinking(sinking) => Some(sinking),
            _ => None,
        }
    }
}
