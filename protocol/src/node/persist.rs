//! The durable state, and what may be said or done only when it is durable.

use std::collections::VecDeque;

use super::{Action, Node};
use crate::frame::LogPosition;
use crate::ids::{Epoch, Incarnate, Lsn, SessionId};
use crate::replica::{Image, Release, ReplicaState, Role};

/// Most things that may wait for the superblock at once.
pub(super) const AFTER_MAX: usize = 64;

/// What waits for a write of the superblock. Each is looked at again when its turn comes: what
/// has been overtaken meanwhile does nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// The new incarnation may speak.
    Awake,
    /// A promise to another may be spoken.
    SayPromised(SessionId, Epoch),
    /// The candidate's promise to itself stands.
    SelfPromised(Epoch),
    /// The epoch is owned.
    Owned(Epoch),
    /// The promise to the primary stands: join it.
    Join(SessionId, Epoch),
    /// The image may hold frames to here.
    Apply(Lsn),
    /// The in-sync set is in the superblock.
    SetRecorded(Vec<Incarnate>),
    /// The old primary is a standby.
    Released(Release),
    /// The log before here is not needed for recovery.
    Checkpointed(LogPosition),
    /// The promise to the primary stands: ask it for what differs.
    AskResync(SessionId, Epoch),
    /// The landing is the checkpoint: the image and the log follow.
    Switch(LogPosition),
    /// This member has a new life, which begins at that point of the past.
    WentBack(LogPosition),
    /// They have followed: nothing staged is needed any more.
    Settled,
    /// The volumes have their new sizes.
    Grown,
}

/// The part of the state that is spoken of without being asked for: only what is durable may be
/// said, because a crash could take back the rest (I7, I8).
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub(super) role: Role,
    pub(super) promised: Epoch,
    pub(super) owned: Epoch,
    pub(super) release: Option<Release>,
    pub(super) image: Image,
}

impl Words {
    fn of(state: &ReplicaState) -> Self {
        let ReplicaState { role, promised, owned, release, image, .. } = *state;
        Self { role, promised, owned, release, image }
    }
}

/// One write at a time; what changes meanwhile goes into the next.
#[derive(Clone, Debug)]
pub(super) struct Persist {
    issued: u64,
    done: u64,
    dirty: bool,
    /// In the write under way, and in the last that was done.
    issued_words: Words,
    words: Words,
    after: VecDeque<(u64, After)>,
}

impl Persist {
    /// Nothing is under way, and `state` is durable.
    pub(super) fn new(state: &ReplicaState) -> Self {
        let words = Words::of(state);
        let (issued, done, dirty) = (0, 0, false);
        Self { issued, done, dirty, issued_words: words, words, after: VecDeque::new() }
    }

    /// What may be spoken of.
    pub(super) fn words(&self) -> Words {
        self.words
    }

    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    /// Whether the write of this number was begun.
    pub(super) fn can_be_done(&self, number: u64) -> bool {
        number <= self.issued
    }

    /// How many things wait.
    pub(super) fn waiting(&self) -> usize {
        self.after.len()
    }

    pub(super) fn is_quiet(&self) -> bool {
        !self.dirty && self.done == self.issued
    }
}

impl Node {
    /// The state was changed; when it is durable, do this.
    pub(super) fn persist_then(&mut self, after: After) {
        self.persist.dirty = true;
        self.persist.after.push_back((self.persist.issued + 1, after));
    }

    pub(super) fn settle_persist(&mut self) {
        if self.persist.dirty && self.persist.done == self.persist.issued {
            self.persist.dirty = false;
            self.persist.issued += 1;
            self.persist.issued_words = Words::of(&self.state);
            self.state.durable = self.log.durable();
            let (number, state) = (self.persist.issued, Box::new(self.state.clone()));
            self.out.push_back(Action::Persist { number, state });
        }
    }

    pub(super) fn persisted(&mut self, number: u64) {
        assert!(self.persist.can_be_done(number), "only what was issued can become durable");
        self.persist.done = self.persist.done.max(number);
        if self.persist.done == self.persist.issued {
            self.persist.words = self.persist.issued_words;
        }
        while let Some((_, after)) = self.persist.after.pop_front_if(|(due, _)| *due <= number) {
            self.do_after(after);
        }
    }

    fn do_after(&mut self, after: After) {
        match after {
            After::Awake => self.awake(),
            After::SayPromised(session, epoch) => self.say_promised(session, epoch),
            After::SelfPromised(epoch) => self.self_promised(epoch),
            After::Owned(epoch) => self.owned(epoch),
            After::Join(session, epoch) => self.say_join(session, epoch),
            After::Apply(lsn) => self.out.push_back(Action::Apply(lsn)),
            After::SetRecorded(set) => self.set_persisted(set),
            After::Released(release) => self.release_persisted(release),
            After::Checkpointed(position) => self.checkpoint_recorded(position),
            After::AskResync(session, epoch) => self.resync_promised(session, epoch),
            After::Switch(at) => self.out.push_back(Action::SwitchImage(at)),
            After::Grown => self.sizes_persisted(),
            After::WentBack(to) => self.back_recorded(to),
            After::Settled => self.out.push_back(Action::DropStaging),
        }
    }
}
