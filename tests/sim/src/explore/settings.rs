//! The clusters that are explored. Each is rationed to one kind of trouble, so that it can be
//! followed for many moves. "Every order" tries all interleavings to its depth; "to the end"
//! follows what comes from outside, at every moment, until nothing is left to happen.

use hadrian_protocol::node::{Command, How};
use hadrian_protocol::replica::Mode;

use super::{Ration, Setting};

const BY_PROOF: Command = Command::Takeover { how: How::PeerWindowOnly, test: false };
const NONE: Ration = Ration { writes: 0, kills: 0, powers: 0, cuts: 0, commands: 0, waits: 0 };

/// Nobody uses force: a primary that holds, and a standby that can prove that it does.
const PAIR: Setting = Setting {
    name: "window, every order: a process ends, the other takes over by proof",
    members: 2,
    mode: Mode::Nearsync,
    record: false,
    hold: true,
    batches: true,
    depth: 16,
    detours: None,
    commands: &[BY_PROOF],
    ration: Ration { writes: 1, kills: 1, commands: 1, ..NONE },
};

const DEEP_PAIR: Setting = Setting { depth: 60, detours: Some(0), ..PAIR };

/// With a record force means a member of its set.
const RECORD: Setting =
    Setting { record: true, hold: false, commands: &[Command::forced()], ..PAIR };

const DEEP_RECORD: Setting = Setting { depth: 60, detours: Some(0), ..RECORD };

/// All of them.
pub const ALL: &[Setting] = &[
    // The longest first.
    Setting {
        name: "record, to the end: one leaves and enters again, a host loses its power",
        ration: Ration { writes: 1, kills: 1, powers: 1, commands: 1, ..NONE },
        ..DEEP_RECORD
    },
    PAIR,
    Setting {
        name: "handover, every order: each arrival on its own, the connection breaks",
        batches: false,
        depth: 20,
        commands: &[Command::planned()],
        ration: Ration { writes: 1, cuts: 1, commands: 1, ..NONE },
        ..PAIR
    },
    Setting {
        name: "sync, every order: one host after the other loses its power",
        mode: Mode::Sync,
        depth: 18,
        ration: Ration { writes: 1, powers: 2, ..NONE },
        ..PAIR
    },
    Setting { name: "record, every order: a process ends", depth: 10, ..RECORD },
    Setting {
        name: "force, every order: both are made primary",
        hold: false,
        depth: 9,
        commands: &[Command::forced(), Command::StartPrimary],
        ration: Ration { writes: 1, kills: 1, cuts: 1, commands: 2, ..NONE },
        ..PAIR
    },
    Setting { name: "three, every order: a process ends", members: 3, depth: 8, ..PAIR },
    Setting {
        name: "window, to the end: the connection breaks, time passes, one takes over by proof",
        ration: Ration { writes: 1, cuts: 1, commands: 1, waits: 1, ..NONE },
        ..DEEP_PAIR
    },
    Setting {
        name: "window, to the end: two processes end, one takes over by proof",
        ration: Ration { writes: 1, kills: 2, commands: 1, ..NONE },
        ..DEEP_PAIR
    },
    Setting {
        name: "handover, to the end: processes end, the connection breaks",
        commands: &[Command::planned()],
        ration: Ration { writes: 1, kills: 1, cuts: 1, commands: 1, ..NONE },
        ..DEEP_PAIR
    },
    Setting {
        name: "record, to the end: the connection breaks, time passes, one takes over",
        ration: Ration { writes: 1, cuts: 1, commands: 1, waits: 1, ..NONE },
        ..DEEP_RECORD
    },
    Setting {
        name: "three, to the end: a process ends, a standby takes over",
        members: 3,
        commands: &[BY_PROOF, Command::planned()],
        ..DEEP_PAIR
    },
];
