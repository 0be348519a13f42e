//! Connections and what travels over them.

use std::time::Duration;

use hadrian_protocol::backoff::Backoff;
use hadrian_protocol::ids::{Lsn, MemberId, SessionId};
use hadrian_protocol::node::Event;
use hadrian_protocol::time::micros;
use hadrian_protocol::wire::{ENVELOPE_LEN, Envelope, Message};
use rand::Rng;

use super::{Due, WAITING_BYTES_MAX, World};
use crate::host;
use crate::net::{Conn, End, Parcel};
use crate::plan::Host as Index;
use crate::{MS, NAMES};

/// Pauses between two calls, as those of the daemon.
const REDIAL_FIRST: Duration = Duration::from_millis(50);
const REDIAL_LAST: Duration = Duration::from_secs(2);

impl World<'_> {
    pub(super) fn post(&mut self, session: SessionId, parcel: Parcel) {
        let Some((conn, end)) = self.sessions.get(&session).copied() else { return };
        if self.conns[conn].ends[end].open {
            self.conns[conn].pipes[end].push(parcel);
            self.push_on(conn, end);
        }
    }

    /// What was sent before still goes; then the other end hears of the end.
    pub(super) fn close(&mut self, index: Index, session: SessionId) {
        let Some((conn, end)) = self.sessions.get(&session).copied() else { return };
        self.post(session, Parcel::End);
        self.conns[conn].ends[end].lingers = true;
        self.end_closed(conn, end, index);
    }

    /// One end is closed for its own process, which hears of it.
    pub(super) fn end_closed(&mut self, conn: usize, end: usize, index: Index) {
        let this = &mut self.conns[conn].ends[end];
        if !this.open {
            return;
        }
        this.open = false;
        let (life, session) = (this.life, this.session);
        let other = self.conns[conn].ends[1 - end].host;
        self.after(1, Due::Unlinked(index, life, session));
        if index < other {
            self.call_later(index, other, life);
        }
    }

    /// Hands to the socket what fits, and sees to the delivery.
    pub(super) fn push_on(&mut self, conn: usize, way: usize) {
        let (now, Conn { ends, pipes }) = (self.now, &mut self.conns[conn]);
        let (from, to) = (ends[way], ends[1 - way]);
        let (slow, rate) =
            (self.ways.delay(from.host, to.host), self.ways.rate(from.host, to.host));
        let rng = &mut self.rng;
        let handed = pipes[way].hand_over(|len| {
            let base = match rng.random_range(0..100) {
                0 => rng.random_range(1..30) * MS,
                _ => rng.random_range(30..300),
            };
            (now + base + slow, len * MS / rate)
        });
        if pipes[way].waiting_bytes() > WAITING_BYTES_MAX {
            self.oracle.broken("I10", "a connection's queue grows without bound".into());
        }
        let next = self.conns[conn].pipes[way].next_arrival();
        if let Some(at) = next.filter(|_| !self.conns[conn].pipes[way].due) {
            self.conns[conn].pipes[way].due = true;
            self.at(at, Due::Deliver(conn, way));
        }
        if let Some(lsn) = handed {
            self.after(1, Due::Handed(from.host, from.life, from.session, lsn));
        }
    }

    pub(super) fn deliver(&mut self, conn: usize, way: usize) {
        let Conn { ends, pipes } = &mut self.conns[conn];
        let (from, to) = (ends[way], ends[1 - way]);
        pipes[way].due = false;
        if !self.ways.works(from.host, to.host) {
            // What is in the socket is sent again when the way works again.
            return;
        }
        let host = &self.hosts[usize::from(to.host)];
        let alive = to.open && host.life == to.life && host.runs();
        if !alive {
            return self.nobody_there(conn, way);
        }
        let is_frame = matches!(pipes[way].next(), Some(Parcel::Frame(_)));
        if is_frame && host.process().is_some_and(|process| !process.has_room()) {
            pipes[way].due = true;
            let (life, session) = (to.life, to.session);
            self.event_of(to.host, life, Event::Full { session });
            return self.after(5 * MS, Due::Deliver(conn, way));
        }
        if self.ways.disturbs(from.host, to.host) && self.rng.random_bool(0.2) {
            pipes[way].disturb(self.rng.random());
        }
        let Some(parcel) = pipes[way].arrive() else { return };
        self.arrive(conn, 1 - way, parcel);
        self.push_on(conn, way);
    }

    pub(super) fn arrive(&mut self, conn: usize, end: usize, parcel: Parcel) {
        let End { host, session, .. } = self.conns[conn].ends[end];
        let from = self.conns[conn].ends[1 - end].host;
        let [to, from] = [host, from].map(|index| self.hosts[usize::from(index)].member);
        if !matches!(parcel, Parcel::End) {
            self.oracle.hears(to, from);
        }
        match parcel {
            Parcel::Message(bytes) => {
                let (head, body) = bytes.split_at(ENVELOPE_LEN);
                let envelope = head.first_chunk().and_then(|head| Envelope::parse(head).ok());
                let message = envelope.and_then(|envelope| envelope.message(body).ok());
                if let Some(message) = &message {
                    let member = self.hosts[usize::from(host)].member;
                    self.oracle.heard(member, message);
                    let facts = [u64::from(host), session.get()];
                    self.story.note("hear", &facts, || {
                        format!("{} hears {message:?}", NAMES[usize::from(host)])
                    });
                }
                match message {
                    Some(Message::Copying(copying)) => {
                        let now = self.now;
                        let disturbed =
                            self.ways.disturbs(self.conns[conn].ends[1 - end].host, host);
                        let to = &mut self.hosts[usize::from(host)];
                        if !to.copying(now, session, copying, &mut self.oracle) {
                            if !disturbed {
                                self.oracle
                                    .broken("wire", "the data of a resync is refused".into());
                            }
                            return self.close(host, session);
                        }
                        self.event(host, Event::Heard { session, message: Message::Alive });
                    }
                    Some(message) => self.event(host, Event::Heard { session, message }),
                    None => self.oracle.broken("wire", "a message does not read back".into()),
                }
            }
            Parcel::Frame(frame) => {
                let durable = self.hosts[usize::from(host)].process();
                let durable = durable.map_or(Lsn::START, |process| process.node.log_durable());
                let frame = host::over_the_wire(&frame, durable);
                let process = self.hosts[usize::from(host)].process();
                if process.is_some_and(|process| !process.holds(&frame)) {
                    let what =
                        format!("{} is sent {frame:?}, beyond its end", NAMES[usize::from(host)]);
                    self.oracle.broken("§2.4", what);
                    return self.close(host, session);
                }
                self.event(host, Event::FrameIn { session, frame });
            }
            Parcel::End => self.end_closed(conn, end, host),
        }
    }

    /// Nobody is at the other end: the sender is told so, where the way back works.
    pub(super) fn nobody_there(&mut self, conn: usize, way: usize) {
        let from = self.conns[conn].ends[way];
        let End { host: to, life, lingers, .. } = self.conns[conn].ends[1 - way];
        self.conns[conn].pipes[way].clear();
        let host = &self.hosts[usize::from(to)];
        let quiet = lingers && host.life == life && host.runs();
        if !quiet && host.life > 0 && from.open && self.ways.works(to, from.host) {
            self.end_closed(conn, way, from.host);
        }
    }

    pub(super) fn dial(&mut self, from: Index, to: Index, life: u64) {
        let (now, caller, called) =
            (self.now, &self.hosts[usize::from(from)], &self.hosts[usize::from(to)]);
        let open = self.conns.iter().any(|conn| {
            let [a, b] = conn.ends;
            a.host == from && a.life == life && a.open && b.host == to
        });
        if caller.life != life || !caller.runs() || caller.has_stopped() || open {
            return;
        }
        let reached = self.ways.works(from, to)
            && self.ways.works(to, from)
            && called.runs()
            && !called.has_stopped()
            && called.paused_until <= now;
        if !reached {
            return self.call_later(from, to, life);
        }
        if let Some((_, backoff)) = self.backoffs.get_mut(&(from, to)) {
            backoff.reset();
        }
        let lives = [caller.life, called.life];
        self.connect(from, to, lives);
    }

    /// As the daemon does it: the pauses of one life double until somebody answers.
    fn call_later(&mut self, from: Index, to: Index, life: u64) {
        let seed = self.plan.seed ^ life << 16 ^ u64::from(from) << 8 ^ u64::from(to);
        let fresh = || (life, Backoff::new(REDIAL_FIRST, REDIAL_LAST, seed));
        let (of, backoff) = self.backoffs.entry((from, to)).or_insert_with(fresh);
        if *of != life {
            (*of, *backoff) = fresh();
        }
        let pause = micros(backoff.pause());
        self.after(pause, Due::Dial(from, to, life));
    }

    pub(super) fn connect(&mut self, from: Index, to: Index, lives: [u64; 2]) {
        let number = self.conns.len();
        let mut end = |host: Index, life: u64, end: usize| {
            let session = SessionId::new(self.next_session);
            self.next_session += 1;
            self.sessions.insert(session, (number, end));
            End { host, life, session, open: true, lingers: false }
        };
        let ends = [end(from, lives[0], 0), end(to, lives[1], 1)];
        self.conns.push(Conn { ends, pipes: Default::default() });
        let facts = [u64::from(from), u64::from(to)];
        self.story.note("connect", &facts, || {
            format!("{} and {} connect", NAMES[usize::from(from)], NAMES[usize::from(to)])
        });
        for (this, other) in [(ends[0], to), (ends[1], from)] {
            if let Some(peer) = MemberId::new(other) {
                self.event(this.host, Event::Linked { session: this.session, peer });
            }
        }
    }
}
