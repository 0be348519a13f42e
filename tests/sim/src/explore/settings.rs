//! The clusters that are explored. Each is rationed to one kind of trouble, so that it can be
//! followed for many moves.

use hadrian_protocol::node::{Command, How};
use hadrian_protocol::replica::Mode;

use super::{Ration, Setting};

const BY_PROOF: Command = Command::Takeover { how: How::PeerWindowOnly, test: false };
const NONE: Ration = Ration { writes: 0, kills: 0, powers: 0, cuts: 0, commands: 0, waits: 0 };

/// Nobody uses force: a primary that holds, and a standby that can prove that it does.
const PAIR: Setting = Setting {
    name: "window: a process ends, the other takes over by proof",
    members: 2,
    mode: Mode::Nearsync,
    record: false,
    hold: true,
    batches: true,
    depth: 17,
    commands: &[BY_PROOF],
    ration: Ration { writes: 1, kills: 1, commands: 1, ..NONE },
};

/// With a record force means a member of its set.
const RECORD: Setting = Setting {
    name: "record: a process ends, the other takes over",
    record: true,
    hold: false,
    depth: 11,
    commands: &[Command::forced()],
    ..PAIR
};

/// All of them.
pub const ALL: &[Setting] = &[
    PAIR,
    Setting {
        name: "window: the connection breaks, time passes, one takes over by proof",
        depth: 10,
        ration: Ration { writes: 1, cuts: 1, commands: 1, waits: 1, ..NONE },
        ..PAIR
    },
    Setting {
        name: "handover: a process ends at any step",
        depth: 16,
        commands: &[Command::planned()],
        ..PAIR
    },
    Setting {
        name: "handover: each arrival on its own",
        batches: false,
        depth: 24,
        commands: &[Command::planned()],
        ration: Ration { writes: 1, cuts: 1, commands: 1, ..NONE },
        ..PAIR
    },
    Setting {
        name: "sync: one host after the other loses its power",
        mode: Mode::Sync,
        depth: 18,
        ration: Ration { writes: 1, powers: 2, ..NONE },
        ..PAIR
    },
    RECORD,
    Setting {
        name: "record: the connection breaks, time passes, one takes over",
        depth: 9,
        ration: Ration { writes: 1, cuts: 1, commands: 1, waits: 1, ..NONE },
        ..RECORD
    },
    Setting {
        name: "record: one leaves and enters again, and the other loses its power",
        depth: 11,
        ration: Ration { writes: 1, powers: 2, commands: 1, ..NONE },
        ..RECORD
    },
    Setting {
        name: "force: both are made primary",
        hold: false,
        depth: 10,
        commands: &[Command::forced(), Command::StartPrimary],
        ration: Ration { writes: 1, kills: 1, cuts: 1, commands: 2, ..NONE },
        ..PAIR
    },
    Setting {
        name: "three: a process ends, a standby takes over by proof",
        members: 3,
        depth: 9,
        ..PAIR
    },
    Setting {
        name: "three: a handover, and a process ends",
        members: 3,
        depth: 9,
        commands: &[Command::planned()],
        ..PAIR
    },
];
