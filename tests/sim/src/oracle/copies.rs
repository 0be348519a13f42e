//! Disks that somebody else changes: copies that are put back, and replicas that are made anew.

use std::collections::BTreeMap;

use hadrian_protocol::ids::MemberId;

use super::{Oracle, Witness};

/// What was known of members when a copy of their disk was made.
pub(super) type Copies = BTreeMap<MemberId, Witness>;

impl Oracle {
    /// Somebody keeps a copy of a member's disk.
    pub(crate) fn copied(&mut self, member: MemberId) {
        let witness = self.see(member).clone();
        self.copies.insert(member, witness);
    }

    /// The disk holds what it held then; what came after is gone, as with a power loss.
    pub(crate) fn put_back(&mut self, member: MemberId) {
        let copy = self.copies.get(&member).cloned().unwrap_or_default();
        self.replace(member, copy);
    }

    /// The replica holds nothing, and is nobody that was there before.
    pub(crate) fn made_anew(&mut self, member: MemberId) {
        self.replace(member, Witness::default());
    }

    pub(super) fn replace(&mut self, member: MemberId, by: Witness) {
        let witness = self.of(member);
        let (power_losses, deaths) = (witness.power_losses + 1, witness.deaths + 1);
        let last_words = witness.last_words.take();
        let before = witness.clone();
        *witness = Witness { power_losses, deaths, last_words, leads: false, runs: false, ..by };
        self.replaced.push(before);
    }
}
