//! The clusters that are explored.

use hadrian_protocol::node::{Command, How};
use hadrian_protocol::replica::Mode;

use super::{Ration, Setting};

const BY_PROOF: Command = Command::Takeover { how: How::PeerWindowOnly, test: false };

/// Without a record, where nobody uses force: a primary that holds, a standby that can prove.
pub const PAIR: Setting = Setting {
    name: "two members, the peer window and its proof",
    members: 2,
    mode: Mode::Nearsync,
    record: false,
    hold: true,
    commands: &[BY_PROOF, Command::planned()],
    ration: Ration { writes: 1, kills: 1, powers: 0, cuts: 1, commands: 2, waits: 1 },
};

/// A commit is durable twice: one host after the other loses its power.
pub const PAIR_IN_SYNC: Setting = Setting {
    name: "two members in sync, power lost twice",
    mode: Mode::Sync,
    commands: &[BY_PROOF],
    ration: Ration { writes: 1, kills: 0, powers: 2, cuts: 0, commands: 1, waits: 0 },
    ..PAIR
};

/// The record decides; force means a member of its set.
pub const WITH_RECORD: Setting = Setting {
    name: "two members and the control record",
    record: true,
    hold: false,
    commands: &[Command::forced()],
    ration: Ration { writes: 1, kills: 1, powers: 0, cuts: 1, commands: 1, waits: 1 },
    ..PAIR
};

/// Plain force on either side: what was answered may be lost, no more than that.
pub const BY_FORCE: Setting = Setting {
    name: "two members, plain force on either side",
    hold: false,
    commands: &[Command::forced(), Command::StartPrimary],
    ration: Ration { writes: 1, kills: 2, powers: 0, cuts: 1, commands: 2, waits: 0 },
    ..PAIR
};

/// One leads, two may want to.
pub const THREE: Setting = Setting {
    name: "three members",
    members: 3,
    commands: &[Command::planned(), BY_PROOF],
    ration: Ration { writes: 1, kills: 1, powers: 0, cuts: 0, commands: 1, waits: 0 },
    ..PAIR
};

/// All of them.
pub const ALL: [Setting; 5] = [PAIR, PAIR_IN_SYNC, WITH_RECORD, BY_FORCE, THREE];
