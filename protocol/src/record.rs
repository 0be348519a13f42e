//! The control record: who owns a resource, and without whom it answers nothing (design §5, §7).
//!
//! It is one register that every member can read and that is changed by compare-and-swap only. The
//! core speaks to it by events; where it is kept, on ownership marks or elsewhere, is the
//! driver's business. Of two proposals for one number at most one wins, so of a primary that wants
//! to go on without a standby and that standby's takeover, too (design §5.2).

use serde::{Deserialize, Serialize};

use crate::frame::Began;
use crate::ids::{Epoch, Incarnate};
use crate::replica::Release;

/// The content of the register.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ControlRecord {
    /// One more at each change.
    pub number: u64,
    /// The newest epoch; it grows with every new owner and every new life of one.
    pub epoch: Epoch,
    /// How that epoch came about: what a returning replica needs to know (design §6.4).
    pub began: Began,
    /// Whose epoch it is.
    pub owner: Incarnate,
    /// The lives without which no write is answered in it, the owner's among them.
    pub in_sync: Vec<Incarnate>,
    /// The owner has handed over, in order.
    pub release: Option<Release>,
}

impl ControlRecord {
    /// Whether no write was answered without this very life.
    #[must_use]
    pub fn counts(&self, life: Incarnate) -> bool {
        self.in_sync.contains(&life)
    }

    /// Whether it names another life of the same member as its owner.
    #[must_use]
    pub fn is_of_another_life(&self, life: Incarnate) -> bool {
        self.owner.member == life.member && self.owner.incarnation != life.incarnation
    }
}
