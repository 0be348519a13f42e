//! What happens to a resource, for the operator's programs.

use std::rc::Rc;

use hadrian_fencing::clock::since_boot;
use hadrian_protocol::ids::{Epoch, MemberId};
use hadrian_protocol::node::{Event, Note};
use tokio::task::spawn_local;

use super::resource::{Inner, Shared};
use crate::hooks::Vars;

/// Whether the operator's program is told of it: of changes that somebody may want to follow with
/// an address, a service or a message, and not of every step.
const fn is_told(note: &Note) -> bool {
    matches!(
        note,
        Note::Leads(_)
            | Note::SteppedDown(_)
            | Note::Follows(..)
            | Note::Deposed { .. }
            | Note::LeaseOver
            | Note::LeaseBack
            | Note::TakesOverAlone
            | Note::GoesHome
            | Note::GivenUp(_)
            | Note::PeerEntered(_)
            | Note::LeftOut(_)
            | Note::Fences(_)
            | Note::Fenced(_)
            | Note::NotFenced(_)
            | Note::GoesBack { .. }
            | Note::WentBack(_)
            | Note::Failed(_)
    ) || matches!(note, Note::Verified { differs: 1.., .. })
}

impl Inner {
    /// Something that people should know.
    pub(super) fn note(&mut self, note: Note) {
        self.follows |= matches!(note, Note::Follows(..));
        let name = |member| self.name_of(member);
        let (resource, code, text) = (&self.name, note.code(), note.in_words(&name));
        match note.is_warning() {
            true => tracing::warn!(%resource, code, "{text}"),
            false => tracing::info!(%resource, code, "{text}"),
        }
        if matches!(note, Note::LeaseOver) {
            self.tell_end_of_lease();
        }
        self.tell_hook(&note, &text);
        let wall_us = self.clock().wall.as_micros();
        self.told.tell(wall_us, text, note);
    }

    /// By the host's clock, so that it can be held against what others see of its devices.
    fn tell_end_of_lease(&self) {
        let left = self.node.lease_end().map(|end| end.since(self.clock().now));
        let ends_at_ms = (since_boot() + left.unwrap_or_default()).as_millis();
        tracing::info!(resource = %self.name, ends_at_ms, "nobody is served from then on");
    }

    pub(super) fn name_of(&self, member: MemberId) -> String {
        let name = self.members.get(usize::from(member.index()));
        name.cloned().unwrap_or_else(|| member.to_string())
    }

    /// The resource as it is now, for a program's environment.
    fn vars(&self, event: &str, peer: Option<MemberId>, text: String) -> Vars {
        let status = self.node.status();
        let owner = status.record.as_ref().map(|record| record.owner).or(status.leader);
        let name = |member: Option<MemberId>| member.map_or_else(String::new, |m| self.name_of(m));
        let role = if self.node.is_leading() { "primary" } else { "standby" };
        vec![
            ("HADRIAN_EVENT", event.to_owned()),
            ("HADRIAN_ROLE", role.to_owned()),
            ("HADRIAN_EPOCH", status.epoch.to_string()),
            ("HADRIAN_OWNER", name(owner)),
            ("HADRIAN_PEER", name(peer)),
            ("HADRIAN_TEXT", text),
        ]
    }

    /// Tells the operator's program; never waits for it.
    pub(super) fn tell_hook(&self, note: &Note, text: &str) {
        let Some(hooks) = self.hooks.as_ref().filter(|hooks| hooks.tells()) else { return };
        if is_told(note) {
            hooks.happened(self.vars(note.code(), note.member(), text.to_owned()));
        }
    }

    /// The marks are lost to this member, or are back.
    pub(super) fn marks_changed(&mut self, has_lease: bool) {
        let had = self.had_lease.replace(has_lease);
        let (code, text) = match (had, has_lease) {
            (Some(true), false) => ("marks_lost", "this member has no lease on the marks any more"),
            (Some(false), true) => ("marks_back", "this member has a lease on the marks again"),
            _ => return,
        };
        self.tell_hook_of(code, text.to_owned());
    }

    /// Tells the operator's program of what is no affair of the core.
    pub(super) fn tell_hook_of(&self, code: &str, text: String) {
        if let Some(hooks) = self.hooks.as_ref().filter(|hooks| hooks.tells()) {
            hooks.happened(self.vars(code, None, text));
        }
    }

    /// The operator's program is to fence an owner; what it says goes to the core.
    pub(super) fn fence(&self, owner: MemberId, epoch: Epoch) {
        let (Some(hooks), Some(marks)) = (&self.hooks, &self.marks) else { return };
        let mailbox = marks.mailbox.clone();
        let mut vars = self.vars("fence", Some(owner), "fence the owner by force".into());
        vars.push(("HADRIAN_VICTIM", self.name_of(owner)));
        let ended = move |fenced| mailbox.tell(Event::FenceEnded { owner, epoch, fenced });
        hooks.fence(vars, Box::new(ended));
    }
}

impl Shared {
    /// The operator's program hears of a takeover before it begins; which it does when that one
    /// has ended, and after its time at the latest, whatever else it still has to do.
    pub(super) fn announce(self: &Rc<Self>, owner: MemberId, epoch: Epoch) {
        let prepared = move || Event::Prepared { owner, epoch };
        let inner = self.inner.borrow();
        let (Some(hooks), Some(marks)) = (&inner.hooks, &inner.marks) else {
            // Its thread could not be started: nobody is to be waited for.
            drop(inner);
            return self.event(prepared());
        };
        let (mailbox, limit) = (marks.mailbox.clone(), hooks.announce_limit());
        let text = "the owner serves nothing any more; this member is about to take over by itself";
        let vars = inner.vars(Note::TakesOverAlone.code(), Some(owner), text.into());
        hooks.announce(vars, Box::new(move |_| mailbox.tell(prepared())));
        let shared = self.clone();
        spawn_local(async move {
            tokio::time::sleep(limit).await;
            shared.event(prepared());
        });
    }
}
