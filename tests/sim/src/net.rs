//! Connections between members: ordered streams that delay, stall, and break in every way in
//! which a TCP connection does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hadrian_protocol::frame::Frame;
use hadrian_protocol::ids::{Lsn, SessionId};

use crate::Micros;
use crate::plan::{Host, Way};

/// Bytes that the sockets of a connection hold in one direction.
const SOCKET_BYTES: u64 = 256 << 10;

/// Bytes that a sound link carries in a millisecond.
const RATE: u64 = 500_000;

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// An encoded message.
    Message(Vec<u8>),
    Frame(Frame),
    /// The other end has closed.
    End,
}

impl Parcel {
    fn len(&self) -> u64 {
        match self {
            Self::Message(bytes) => bytes.len() as u64,
            Self::Frame(frame) => frame.log_len(),
            Self::End => 0,
        }
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) host: Host,
    /// The process that holds it.
    pub(crate) life: u64,
    pub(crate) session: SessionId,
    pub(crate) open: bool,
    /// It was closed in order: what still comes is read and thrown away, and nobody is told.
    pub(crate) lingers: bool,
}

/// One connection: pipe 0 leads from end 0 to end 1.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) ends: [End; 2],
    pub(crate) pipes: [Pipe; 2],
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// Not taken by the socket yet.
    waiting: VecDeque<Parcel>,
    /// On its way, with the time of arrival.
    under_way: VecDeque<(Micros, Parcel)>,
    under_way_bytes: u64,
    /// A delivery is in the queue of the world.
    pub(crate) due: bool,
}

impl Pipe {
    pub(crate) fn push(&mut self, parcel: Parcel) {
        self.waiting.push_back(parcel);
    }

    /// Moves what fits into the socket; `arrival` says when a piece would be there and how long the
    /// link is busy with it: one piece at a time. Returns the end of the last frame that was handed
    /// over.
    pub(crate) fn hand_over(
        &mut self,
        mut arrival: impl FnMut(u64) -> (Micros, Micros),
    ) -> Option<Lsn> {
        let mut handed = None;
        while self.under_way_bytes < SOCKET_BYTES {
            let Some(parcel) = self.waiting.pop_front() else { break };
            if let Parcel::Frame(frame) = &parcel {
                handed = Some(frame.end());
            }
            let last = self.under_way.back().map_or(0, |(at, _)| *at);
            let (at, busy) = arrival(parcel.len());
            let at = at.max(last) + busy;
            self.under_way_bytes += parcel.len();
            self.under_way.push_back((at, parcel));
        }
        handed
    }

    /// When the next piece arrives.
    pub(crate) fn next_arrival(&self) -> Option<Micros> {
        self.under_way.front().map(|(at, _)| *at)
    }

    pub(crate) fn next(&self) -> Option<&Parcel> {
        self.under_way.front().map(|(_, parcel)| parcel)
    }

    pub(crate) fn arrive(&mut self) -> Option<Parcel> {
        let (_, parcel) = self.under_way.pop_front()?;
        self.under_way_bytes -= parcel.len();
        Some(parcel)
    }

    /// The next piece comes twice, or after the one behind it.
    pub(crate) fn disturb(&mut self, twice: bool) {
        let Some((at, first)) = self.under_way.front().cloned() else { return };
        if twice && !matches!(first, Parcel::End) {
            self.under_way_bytes += first.len();
            self.under_way.insert(1, (at, first));
        } else if let Some((_, second)) = self.under_way.get_mut(1)
            && !matches!((&first, &*second), (Parcel::End, _) | (_, Parcel::End))
        {
            let second = std::mem::replace(second, first);
            if let Some((_, front)) = self.under_way.front_mut() {
                *front = second;
            }
        }
    }

    /// The process is gone, and with it what its socket had not taken.
    pub(crate) fn lose_waiting(&mut self) {
        self.waiting.clear();
    }

    pub(crate) fn clear(&mut self) {
        *self = Self { due: self.due, ..Self::default() };
    }

    /// Bytes that nobody has taken off the sender's hands.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting.iter().map(Parcel::len).sum()
    }
}

/// The state of the ways between hosts.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    cut: BTreeMap<(Host, Host), bool>,
    slow: BTreeMap<(Host, Host), Micros>,
    /// KiB that a way carries in a second.
    narrow: BTreeMap<(Host, Host), u64>,
    disorderly: BTreeSet<(Host, Host)>,
}

impl Ways {
    pub(crate) fn cut(&mut self, a: Host, b: Host, way: Way) {
        if way != Way::Back {
            self.cut.insert((a, b), true);
        }
        if way != Way::There {
            self.cut.insert((b, a), true);
        }
    }

    pub(crate) fn heal(&mut self, a: Host, b: Host) {
        for way in [(a, b), (b, a)] {
            self.cut.remove(&way);
            self.slow.remove(&way);
            self.narrow.remove(&way);
            self.disorderly.remove(&way);
        }
    }

    pub(crate) fn heal_all(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn slow(&mut self, a: Host, b: Host, by: Micros) {
        self.slow.insert((a, b), by);
        self.slow.insert((b, a), by);
    }

    pub(crate) fn narrow(&mut self, a: Host, b: Host, rate: u64) {
        self.narrow.insert((a, b), rate.max(1));
        self.narrow.insert((b, a), rate.max(1));
    }

    pub(crate) fn disturb(&mut self, a: Host, b: Host) {
        self.disorderly.extend([(a, b), (b, a)]);
    }

    pub(crate) fn disturbs(&self, from: Host, to: Host) -> bool {
        self.disorderly.contains(&(from, to))
    }

    pub(crate) fn works(&self, from: Host, to: Host) -> bool {
        !self.cut.get(&(from, to)).copied().unwrap_or_default()
    }

    pub(crate) fn delay(&self, from: Host, to: Host) -> Micros {
        self.slow.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Bytes that a way carries in a millisecond.
    pub(crate) fn rate(&self, from: Host, to: Host) -> u64 {
        self.narrow.get(&(from, to)).map_or(RATE, |kib| (kib << 10).div_ceil(1000))
    }
}
