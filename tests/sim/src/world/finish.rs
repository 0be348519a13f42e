//! The end of a run: nothing goes wrong any more, so the cluster must come together, and then stop
//! in order with the same content everywhere.

use hadrian_protocol::ids::MemberId;
use hadrian_protocol::node::{Command, Event, NodeStatus, PeerStatus, StandbyState, Standing, Why};
use hadrian_protocol::replica::Sizes;
use hadrian_protocol::wire::Refusal;

use super::{Act, Due, World};
use crate::plan::Host as Index;
use crate::{MS, NAMES};

/// Checks, a fifth of a second apart, until an operator helps; and until it is too late.
const PATIENCE: u32 = 60;
const TOO_LATE: u32 = 300;

impl World<'_> {
    pub(super) fn check(&mut self, times: u32) {
        let all: Vec<_> = (0..self.plan.members).map(|index| self.status(index)).collect();
        let serving = (0..self.plan.members).any(|index| self.hosts[usize::from(index)].serves());
        let together = together(&all).and_then(|()| match serving {
            true => Ok(()),
            false => Err("nobody serves".to_string()),
        });
        match together {
            Ok(()) => {
                self.oracle.same_sizes(&self.sizes_of_those_together(&all));
                return self.stop_all();
            }
            Err(why) if times >= TOO_LATE => {
                self.oracle.broken("liveness", format!("mended, and yet {why}"));
            }
            Err(_) if times > 0 && times.is_multiple_of(PATIENCE) => self.help(&all, times),
            Err(_) => self.send_back(&all),
        }
        self.after(200 * MS, Due::Check(times + 1));
    }

    /// Whoever holds writes of its own beside the one primary that there is goes back to that one,
    /// by an operator's word.
    fn send_back(&mut self, all: &[Option<NodeStatus>]) {
        let leads = |status: &&NodeStatus| status.standing == Standing::Primary;
        let [primary] = all.iter().flatten().filter(leads).collect::<Vec<_>>()[..] else { return };
        let back = |status: &NodeStatus| {
            let apart = status.peers.iter().any(|peer| {
                peer.member == primary.member && peer.refusal.is_some_and(stands_between)
            });
            let went = |why: &Why| matches!(why, Why::WentBack { .. });
            matches!(status.standing, Standing::Diverged(_))
                || status.reasons.iter().any(|reason| went(&reason.why))
                || apart && status.standing == Standing::Standby
        };
        let back: Vec<_> = all.iter().flatten().filter(|status| back(status)).collect();
        for status in back {
            self.command(status.member.index(), Command::Rejoin);
        }
    }

    /// The sizes of the primary and of all that follow it.
    fn sizes_of_those_together(&self, all: &[Option<NodeStatus>]) -> Vec<(MemberId, Sizes)> {
        let leads = |status: &&NodeStatus| status.standing == Standing::Primary;
        let primary = all.iter().flatten().find(leads);
        let with = |member: MemberId| {
            primary.is_some_and(|primary| {
                let follows = |peer: &PeerStatus| {
                    // One that was created with another size is told so, and stays out.
                    let refused = peer.refusal == Some(Refusal::GeometryDiffers);
                    peer.member == member && peer.state.is_some() && !refused
                };
                primary.member == member || primary.peers.iter().any(follows)
            })
        };
        let with = self.hosts.iter().filter(|host| with(host.member));
        with.filter_map(|host| Some((host.member, host.sizes()?))).collect()
    }

    fn status(&self, index: Index) -> Option<NodeStatus> {
        let process = self.hosts[usize::from(index)].process()?;
        Some(process.node.status())
    }

    /// An operator does what status says: opens a gate, or makes a standby primary; and restarts
    /// what has failed.
    fn help(&mut self, all: &[Option<NodeStatus>], times: u32) {
        let leads = |status: &Option<NodeStatus>| {
            status.as_ref().is_some_and(|status| status.standing == Standing::Primary)
        };
        for index in 0..self.plan.members {
            let failed = matches!(
                all[usize::from(index)],
                Some(NodeStatus { standing: Standing::Failed(_), .. })
            );
            if failed {
                self.end_process(index, false);
                self.start(index, None);
            }
        }
        if all.iter().any(leads) {
            return;
        }
        let failed = all.iter().flatten().any(|status| !takes_part(status))
            || self.hosts.iter().any(|host| host.is_damaged);
        if !failed && !self.oracle.force_was_tried() {
            let standings: Vec<_> = all.iter().flatten().map(|one| one.standing.clone()).collect();
            self.oracle.broken("liveness", format!("{standings:?} need an operator for nothing"));
        }
        // The best log first, then whoever is left.
        let mut order: Vec<Index> = (0..self.plan.members).collect();
        order.sort_by_key(|index| {
            let status = all[usize::from(*index)].as_ref();
            std::cmp::Reverse(status.map(|status| (status.epoch, status.end)))
        });
        let turn = (times / PATIENCE - 1) as usize % order.len();
        self.story.tell("help", &[], || {
            format!("** an operator helps with {}", NAMES[usize::from(order[turn])])
        });
        self.override_owner(order[turn]);
    }

    fn stop_all(&mut self) {
        self.story.tell("together", &[], || "** the cluster is together; it is stopped".into());
        self.act = Act::Stopping;
        self.primary =
            (0..self.plan.members).find(|index| self.hosts[usize::from(*index)].serves());
        // The primary goes first: its standbys hear how far they may apply.
        let first = self.primary.unwrap_or_default();
        let lost = |peer: &PeerStatus| peer.state == Some(StandbyState::DisconnectedPeer);
        self.held = self.status(first).is_some_and(|status| status.peers.iter().any(lost));
        self.stop(first, first);
    }

    fn stop(&mut self, index: Index, primary: Index) {
        let id = self.clients.next_id();
        self.event(index, Event::Command { id, command: Command::Stop });
        self.after(100 * MS, Due::Stopped(index, primary, 0));
    }

    pub(super) fn check_stopped(&mut self, index: Index, primary: Index, times: u32) {
        let stopped = self.hosts[usize::from(index)].has_stopped();
        if !stopped && times < TOO_LATE {
            return self.after(100 * MS, Due::Stopped(index, primary, times + 1));
        }
        if !stopped {
            let name = NAMES[usize::from(index)];
            self.oracle.broken("liveness", format!("{name} does not stop"));
            return;
        }
        let of = |index: Index| &self.hosts[usize::from(index)];
        let (member, first, image) = (of(index).member, of(primary).member, of(index).image());
        self.oracle.stopped(member, (first, self.held), &image);
        let saved = self.host(index).quarantine();
        self.oracle.kept(member, &saved);
        self.end_process(index, false);
        let next = (0..self.plan.members).find(|other| {
            let host = &self.hosts[usize::from(*other)];
            host.process().is_some_and(|process| takes_part(&process.node.status()))
        });
        match next {
            Some(next) => self.stop(next, primary),
            None => self.act = Act::Over,
        }
    }
}

fn takes_part(status: &NodeStatus) -> bool {
    !matches!(status.standing, Standing::Failed(_))
}

/// Whether an operator can end it by letting one of the two have the other's content.
fn stands_between(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::Diverged { .. } | Refusal::Unrelated | Refusal::BaseDiffers)
}

/// One primary, and everybody who can be is with it and has everything.
fn together(all: &[Option<NodeStatus>]) -> Result<(), String> {
    let running = || all.iter().flatten();
    let primaries: Vec<_> =
        running().filter(|status| status.standing == Standing::Primary).collect();
    let [primary] = primaries[..] else {
        let standings: Vec<_> = running().map(|status| status.standing.clone()).collect();
        return Err(format!("{} primaries among {standings:?}", primaries.len()));
    };
    for peer in &primary.peers {
        let own = running().find(|status| status.member == peer.member);
        let out = own.is_none_or(|status| !takes_part(status));
        let gone = peer.refusal == Some(Refusal::GeometryDiffers);
        let with = peer.state == Some(StandbyState::Peer)
            || (peer.state == Some(StandbyState::RemoteCatchup)
                && !peer.in_set
                && peer.received == Some(primary.end));
        if !out && !gone && !with {
            return Err(format!("{} is not with its primary: {peer:?}", peer.member));
        }
    }
    Ok(())
}
