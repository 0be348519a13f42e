//! What can happen to a cluster from outside, and how it is told.

use std::fmt;

use hadrian_protocol::node::{Command, How, Limits};

use super::Host;
use crate::{MS, Micros, NAMES};

/// Which way of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Both.
    Both,
    /// From the first to the second only.
    There,
    /// From the second to the first only.
    Back,
}

/// How a replica is created again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Anew {
    /// As an empty standby, as the first time.
    Alike,
    /// With a volume of twice the size.
    Larger,
    /// From other content than the rest of the cluster.
    OtherBase,
    /// As a primary with a history of its own.
    Primary,
}

impl Anew {
    const fn in_words(self) -> &'static str {
        match self {
            Self::Alike => "anew",
            Self::Larger => "anew, with a larger volume",
            Self::OtherBase => "anew, from other content",
            Self::Primary => "anew, as a primary of its own",
        }
    }
}

/// Something that happens to the cluster from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    /// `kill -9` of a daemon.
    Kill(Host),
    /// A host loses power: what was not synced is lost, kept or torn.
    PowerLoss(Host),
    /// All hosts lose power at once.
    PowerLossOfAll,
    /// The power goes while the replica is opened, at the n-th change of the disk.
    StartAndLosePower(Host, u64),
    /// A daemon is started, if it does not run.
    Start(Host),
    /// A link swallows everything, without a word to anybody.
    Cut(Host, Host, Way),
    /// A link works again.
    Heal(Host, Host),
    /// A connection is reset, seen by both ends.
    Reset(Host, Host),
    /// A connection ends for the first host only; the second believes in it still.
    HalfOpen(Host, Host),
    /// A link becomes slow, by this much per parcel.
    Slow(Host, Host, Micros),
    /// A link carries only so many KiB a second, each way.
    Narrow(Host, Host, u64),
    /// A link delivers some pieces twice and others in another order. No TCP connection does; the
    /// promises hold all the same.
    Disorder(Host, Host),
    /// A daemon stands still for so long (SIGSTOP, a paused virtual machine).
    Pause(Host, Micros),
    /// A host stands still, and its clocks with it: a hypervisor has frozen it.
    Freezes(Host, Micros),
    /// A disk does nothing for so long.
    DiskHangs(Host, Micros),
    /// The n-th further change of a disk fails with EIO.
    DiskFails(Host, u64),
    /// The n-th further change of a disk fails when half of it is written.
    DiskFallsShort(Host, u64),
    /// The n-th further read of a disk fails with EIO, and none after it.
    ReadFails(Host, u64),
    /// A block of the backing store holds something else than was written to it, and the disk says
    /// nothing.
    Rots(Host, u64),
    /// A write to the log goes astray, and the disk says that all is well.
    WriteGoesAstray(Host),
    /// From the n-th further change on a disk has no room for anything.
    DiskFills(Host, u64),
    /// It has room again.
    DiskHasRoom(Host),
    /// Somebody keeps a copy of everything on a disk: a backup, a snapshot of a virtual machine.
    Copied(Host),
    /// A host that does not run gets back the copy that was kept last; where there is none, nothing
    /// happens.
    PutBack(Host),
    /// The replica of a host that does not run is created again.
    MadeAnew(Host, Anew),
    /// The wall clock of a host jumps by so many seconds.
    WallJumps(Host, i64),
    /// A host does not reach the control record any more, or reaches it again.
    RecordCut(Host),
    /// See there.
    RecordHeals(Host),
    /// What a host asks of a marker hangs from here on.
    MarkerHangs(Host, u8),
    /// What a host asks of a marker fails; whether it was written, nobody knows.
    MarkerFails(Host, u8),
    /// A host reaches a marker again.
    MarkerHeals(Host, u8),
    /// A marker holds what it held when the run began: a snapshot was rolled back.
    MarkerForgets(u8),
    /// An operator makes the volume larger, or only asks whether that could be done; on any member.
    Grow(Host, bool),
    /// The backing store of a host is a device, which only its operator makes larger.
    StoreIsDevice(Host),
    /// That operator has done so.
    DeviceEnlarged(Host),
    /// An operator takes over against what the record says, naming its owner.
    Override(Host),
    /// An operator takes a standby back to a point of its past, so many thousandths of the way from
    /// the oldest that is kept to the end of its log, to lead from there.
    GoesBack(Host, u64),
    /// An operator's command.
    Command(Host, Command),
    /// An operator exports the image of a host into a file, for a host that will be made of it, if
    /// that is said. What clients write meanwhile goes on.
    Exports(Host, Option<Host>),
    /// The disk of a host that does not run is replaced, and its replica made of the seed that was
    /// exported last; the power goes at the n-th change of the new disk, if that is said. Nothing
    /// happens where there is no seed, or nobody else serves.
    Imports(Host, Option<u64>),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |host: &Host| NAMES.get(usize::from(*host)).copied().unwrap_or("?");
        let ms = |micros: &Micros| micros / MS;
        match self {
            Self::Kill(a) => write!(f, "{} is killed", name(a)),
            Self::PowerLoss(a) => write!(f, "{} loses power", name(a)),
            Self::PowerLossOfAll => write!(f, "everybody loses power"),
            Self::StartAndLosePower(a, n) => {
                write!(f, "{} starts and loses power at change {n} of its disk", name(a))
            }
            Self::Start(a) => write!(f, "{} is started", name(a)),
            Self::Cut(a, b, Way::Both) => write!(f, "the link {}-{} is cut", name(a), name(b)),
            Self::Cut(a, b, Way::There) => {
                write!(f, "nothing gets from {} to {}", name(a), name(b))
            }
            Self::Cut(a, b, Way::Back) => write!(f, "nothing gets from {} to {}", name(b), name(a)),
            Self::Heal(a, b) => write!(f, "the link {}-{} works again", name(a), name(b)),
            Self::Reset(a, b) => write!(f, "the connection {}-{} is reset", name(a), name(b)),
            Self::HalfOpen(a, b) => {
                write!(f, "{} loses its connection to {}, which does not notice", name(a), name(b))
            }
            Self::Slow(a, b, by) => {
                write!(f, "the link {}-{} is slow, {} ms", name(a), name(b), ms(by))
            }
            Self::Narrow(a, b, rate) => {
                write!(f, "the link {}-{} carries {rate} KiB a second", name(a), name(b))
            }
            Self::Disorder(a, b) => {
                write!(f, "the link {}-{} doubles and swaps what it carries", name(a), name(b))
            }
            Self::Pause(a, time) => write!(f, "{} stands still for {} ms", name(a), ms(time)),
            Self::Freezes(a, time) => {
                write!(f, "{} is frozen with its clocks for {} ms", name(a), ms(time))
            }
            Self::DiskHangs(a, time) => {
                write!(f, "the disk of {} hangs for {} ms", name(a), ms(time))
            }
            Self::DiskFails(a, n) => write!(f, "the disk of {} fails {n} changes on", name(a)),
            Self::DiskFallsShort(a, n) => {
                write!(f, "the disk of {} fails {n} changes on, half-way", name(a))
            }
            Self::ReadFails(a, n) => {
                write!(f, "the disk of {} cannot read, {n} reads on", name(a))
            }
            Self::WallJumps(a, by) => write!(f, "the wall clock of {} jumps by {by} s", name(a)),
            Self::RecordCut(a) => write!(f, "{} loses sight of the record", name(a)),
            Self::RecordHeals(a) => write!(f, "{} sees the record again", name(a)),
            Self::MarkerHangs(a, n) => write!(f, "marker {n} hangs for {}", name(a)),
            Self::MarkerFails(a, n) => write!(f, "marker {n} fails for {}", name(a)),
            Self::MarkerHeals(a, n) => write!(f, "marker {n} works again for {}", name(a)),
            Self::MarkerForgets(n) => write!(f, "marker {n} is what it was in the beginning"),
            other => other.of_disks_and_people(f),
        }
    }
}

impl Happening {
    /// What happens to whole disks, and what people do, in words.
    fn of_disks_and_people(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |host: &Host| NAMES.get(usize::from(*host)).copied().unwrap_or("?");
        match self {
            Self::Copied(a) => write!(f, "a copy of the disk of {} is kept", name(a)),
            Self::PutBack(a) => write!(f, "the disk of {} is what its copy holds", name(a)),
            Self::MadeAnew(a, anew) => {
                write!(f, "the replica of {} is created {}", name(a), anew.in_words())
            }
            of_disks => of_disks.fmt_further(f),
        }
    }
}

impl Happening {
    /// What happens to disks, markers and people.
    fn fmt_further(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |host: &Host| NAMES.get(usize::from(*host)).copied().unwrap_or("?");
        match self {
            Self::Rots(a, block) => write!(f, "block {block} on the disk of {} rots", name(a)),
            Self::WriteGoesAstray(a) => write!(f, "a log write of {} goes astray", name(a)),
            Self::DiskFills(a, n) => write!(f, "the disk of {} is full {n} changes on", name(a)),
            Self::DiskHasRoom(a) => write!(f, "the disk of {} has room again", name(a)),
            Self::Grow(a, test) => {
                let test = if *test { " --dry-run" } else { "" };
                write!(f, "operator on {}: grow{test}", name(a))
            }
            Self::StoreIsDevice(a) => write!(f, "the store of {} is a device", name(a)),
            Self::DeviceEnlarged(a) => write!(f, "the device of {} is larger now", name(a)),
            Self::Override(a) => write!(f, "operator on {}: override the owner", name(a)),
            Self::GoesBack(a, part) => {
                write!(f, "operator on {}: takeover --force --to {part} ‰", name(a))
            }
            Self::Exports(a, None) => write!(f, "operator on {}: seed export", name(a)),
            Self::Exports(a, Some(b)) => {
                write!(f, "operator on {}: seed export --for {}", name(a), name(b))
            }
            Self::Imports(a, None) => write!(f, "operator on {}: seed import", name(a)),
            Self::Imports(a, Some(n)) => write!(f, "{}: seed import, power cut at {n}", name(a)),
            Self::Command(a, how) => write!(f, "operator on {}: {}", name(a), in_words(*how)),
            other => unreachable!("everything else is told elsewhere: {other:?}"),
        }
    }
}

/// As an operator would type it.
fn in_words(command: Command) -> String {
    match command {
        Command::Takeover { how, test } => {
            let how = match how {
                How::Planned(limits) if limits == Limits::default() => String::new(),
                How::Planned(Limits { max_quiesce, max_total }) => {
                    format!(" --max-quiesce {max_quiesce:?} --max-total {max_total:?}")
                }
                How::PeerWindowOnly => " --force --peer-window-only".into(),
                How::Force => " --force".into(),
                How::Override { owner, epoch } => format!(" --override {owner}:{epoch}"),
            };
            format!("takeover{how}{}", if test { " --test" } else { "" })
        }
        Command::GoBack { to, .. } => format!("takeover --force --to {}", to.lsn),
        Command::CancelTakeover => "takeover --cancel".into(),
        Command::StartPrimary => "start --primary --force".into(),
        Command::SetMode(mode) => format!("mode {}", mode.name()),
        Command::Rejoin => "rejoin".into(),
        Command::Verify(_) => "verify".into(),
        Command::Repair { from, .. } => format!("verify --repair --from {from}"),
        Command::Grow { size_bytes, .. } => format!("grow --size {size_bytes}"),
        Command::Seed { .. } => "seed export".into(),
        Command::Stop => "stop".into(),
    }
}
