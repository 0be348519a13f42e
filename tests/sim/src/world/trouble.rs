//! What happens to the cluster from outside.

use hadrian_blockdev::engine::double::{Double, Fault};
use hadrian_protocol::node::{Command, Event, How};

use super::{Act, Due, World, by_proof, is_force};
use crate::net::Parcel;
use crate::plan::{Happening, Host as Index};
use crate::{MS, Micros};

impl World<'_> {
    pub(super) fn start(&mut self, index: Index, cut_at: Option<u64>) {
        let now = self.now;
        let host = &mut self.hosts[usize::from(index)];
        if host.runs() || host.is_damaged {
            return;
        }
        if self.marks.is_busy(index) {
            return self.after(20 * MS, Due::Start(index));
        }
        let host = &mut self.hosts[usize::from(index)];
        if let Some(change) = cut_at {
            host.disk.with(|disk| disk.cut_power_at(change));
        }
        let started = host.start(now, &self.config, &mut self.oracle);
        let (life, member) = (host.life, host.member);
        match started {
            Ok(()) => {
                self.start_keeper(index);
                self.outward(index);
                for other in 0..self.plan.members {
                    if index < other {
                        self.after(MS, Due::Dial(index, other, life));
                    }
                }
            }
            Err(_) if host.disk.with(|disk| disk.is_cut()) => {
                host.lose_power();
                self.oracle.died(member, true);
            }
            Err(_) if host.fails || host.disk.with(|disk| disk.is_full()) => {
                host.kill();
                host.fails = false;
                self.after(100 * MS, Due::Start(index));
            }
            Err(error) if host.strayed => {
                // It needs another copy of everything.
                host.kill();
                host.is_damaged = true;
                self.damaged.push((index, error.to_string()));
            }
            Err(error) => {
                self.oracle.broken("§2.3", format!("{member} does not start: {error}"));
            }
        }
    }

    pub(super) fn end_process(&mut self, index: Index, power_lost: bool) {
        self.count_moves(index);
        let host = &self.hosts[usize::from(index)];
        if let Some(process) = host.process() {
            self.oracle.last_words(host.member, &process.node);
        }
        let host = &mut self.hosts[usize::from(index)];
        let (life, member) = (host.life, host.member);
        if power_lost {
            host.lose_power();
        } else {
            host.kill();
        }
        host.paused_until = 0;
        self.oracle.died(member, power_lost);
        self.end_keeper(index, power_lost);
        self.forget_requests(index);
        for conn in 0..self.conns.len() {
            for end in 0..2 {
                let this = &mut self.conns[conn].ends[end];
                if this.host == index && this.life == life && this.open {
                    this.open = false;
                    // The kernel of a living host closes the sockets of a dead process.
                    self.conns[conn].pipes[end].lose_waiting();
                    if !power_lost {
                        self.conns[conn].pipes[end].push(Parcel::End);
                        self.push_on(conn, end);
                    }
                }
            }
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        self.story.tell("happening", &[], || format!("** {happening}"));
        match happening {
            Happening::Kill(index) => self.end_process(index, false),
            Happening::PowerLoss(index) => self.end_process(index, true),
            Happening::PowerLossOfAll => {
                (0..self.plan.members).for_each(|index| self.end_process(index, true));
            }
            Happening::Start(index) => self.start(index, None),
            Happening::StartAndLosePower(index, change) => self.start(index, Some(change)),
            Happening::Cut(a, b, way) => self.ways.cut(a, b, way),
            Happening::Heal(a, b) => {
                self.ways.heal(a, b);
                self.flow_again();
            }
            Happening::Reset(a, b) => self.break_links(a, b, true),
            Happening::HalfOpen(a, b) => self.break_links(a, b, false),
            Happening::Slow(a, b, by) => self.ways.slow(a, b, by),
            Happening::Narrow(a, b, rate) => self.ways.narrow(a, b, rate),
            Happening::Disorder(a, b) => self.ways.disturb(a, b),
            Happening::Pause(index, time) => self.stand_still(index, time),
            Happening::Freezes(index, time) => {
                self.stand_still(index, time);
                self.host(index).frozen += time;
                self.oracle.clocks_freeze();
            }
            Happening::RecordCut(index) => {
                self.register.cut(index);
                self.marks.hang_all(index);
            }
            Happening::RecordHeals(index) => {
                self.register.heal(index);
                self.marks.heal_host(index);
            }
            Happening::MarkerHangs(index, marker) => self.marks.hang(index, marker),
            Happening::MarkerFails(index, marker) => self.marks.fail(index, marker),
            Happening::MarkerHeals(index, marker) => self.marks.heal(index, marker),
            Happening::MarkerForgets(marker) => self.marks.forget(marker),
            Happening::Override(index) => self.override_owner(index),
            Happening::GoesBack(index, part) => self.take_back(index, part),
            Happening::WallJumps(index, by) => self.host(index).wall_jumps(by),
            Happening::Command(index, command) => self.command(index, command),
            Happening::Grow(index, test) => {
                if let Some(command) = self.host(index).grow_command(test) {
                    self.command(index, command);
                }
            }
            Happening::Exports(index, absent) => self.export(index, absent),
            Happening::Imports(index, cut_at) => self.import(index, cut_at),
            disk => self.disk_happens(disk),
        }
    }

    fn stand_still(&mut self, index: Index, time: Micros) {
        let until = self.now + time;
        let host = self.host(index);
        host.paused_until = host.paused_until.max(until);
        let member = host.member;
        self.oracle.stalls(member, until);
    }

    fn disk_happens(&mut self, happening: Happening) {
        match happening {
            Happening::DiskHangs(index, time) => {
                let until = self.now + time;
                let host = self.host(index);
                host.hangs_until = host.hangs_until.max(until);
                let member = host.member;
                self.oracle.stalls(member, until);
            }
            Happening::DiskFails(index, change) => self.disk_fails(index, change, Fault::Eio),
            Happening::DiskFallsShort(index, change) => {
                self.disk_fails(index, change, Fault::Short);
            }
            Happening::DiskFills(index, change) => self.disk_fails(index, change, Fault::Full),
            Happening::ReadFails(index, read) => {
                let host = self.host(index);
                host.fails = true;
                host.disk.with(|disk| disk.fail_read_at(read));
            }
            Happening::Copied(index) => {
                let host = self.host(index);
                host.keep_copy();
                let member = host.member;
                self.oracle.copied(member);
            }
            Happening::PutBack(index) => {
                let host = self.host(index);
                if !host.runs() && host.put_back() {
                    let member = host.member;
                    self.oracle.put_back(member);
                }
            }
            Happening::MadeAnew(index, anew) => {
                let host = self.host(index);
                if !host.runs() {
                    host.make_anew(anew);
                    let member = host.member;
                    self.oracle.made_anew(member);
                }
            }
            Happening::StoreIsDevice(index) => self.host(index).store_is_device(),
            Happening::DeviceEnlarged(index) => self.host(index).enlarge_device(),
            Happening::Rots(index, block) => {
                let host = self.host(index);
                let (member, holds) = (host.member, host.rots(block));
                self.oracle.rots(member, holds);
            }
            Happening::WriteGoesAstray(index) => {
                self.host(index).write_goes_astray();
                let member = self.hosts[usize::from(index)].member;
                self.oracle.strays(member);
            }
            Happening::DiskHasRoom(index) => self.host(index).disk.with(Double::make_room),
            _ => unreachable!("everything else happens to hosts, links and people"),
        }
    }

    fn disk_fails(&mut self, index: Index, change: u64, fault: Fault) {
        let host = self.host(index);
        host.fails = true;
        host.disk.with(|disk| disk.fail_at(change, fault));
    }

    pub(super) fn command(&mut self, index: Index, command: Command) {
        let (now, host) = (self.now, self.host(index));
        if !host.runs() || host.paused_until > now {
            return;
        }
        let member = host.member;
        if is_force(command) {
            self.oracle.uses_force(member);
        } else if by_proof(command) {
            self.oracle.uses_proof(member);
        }
        let id = self.clients.next_id();
        self.commands.insert(id, command);
        self.event(index, Event::Command { id, command });
    }

    /// With a control record, an operator must name whom it overrides.
    pub(super) fn override_owner(&mut self, index: Index) {
        let how = match self.register.record.as_ref().or(self.marks.newest()) {
            Some(record) => How::Override { owner: record.owner.member, epoch: record.epoch },
            None => How::Force,
        };
        self.command(index, Command::Takeover { how, test: false });
    }

    /// An operator takes a standby back; against the record, naming its owner.
    fn take_back(&mut self, index: Index, part: u64) {
        let record = self.register.record.as_ref().or(self.marks.newest());
        let over = record.map(|record| (record.owner.member, record.epoch));
        if let Some(to) = self.host(index).point(part) {
            self.command(index, Command::GoBack { over, to, test: false });
        }
    }

    pub(super) fn break_links(&mut self, a: Index, b: Index, both: bool) {
        for conn in 0..self.conns.len() {
            let hosts = self.conns[conn].ends.map(|end| end.host);
            let open = self.conns[conn].ends.iter().all(|end| end.open);
            if !open || (hosts != [a, b] && hosts != [b, a]) {
                continue;
            }
            self.conns[conn].pipes.iter_mut().for_each(|pipe| pipe.clear());
            for (end, host) in hosts.into_iter().enumerate() {
                if both || host == a {
                    self.end_closed(conn, end, host);
                }
            }
        }
    }

    /// Everything that stood before a cut goes on.
    pub(super) fn flow_again(&mut self) {
        for conn in 0..self.conns.len() {
            (0..2).for_each(|way| self.push_on(conn, way));
        }
    }

    pub(super) fn mend(&mut self) {
        self.story.tell("mend", &[], || "** everything is mended".into());
        self.act = Act::Mending;
        self.ways.heal_all();
        self.register.heal_all();
        self.marks.heal_all();
        self.flow_again();
        for index in 0..self.plan.members {
            let host = self.host(index);
            (host.paused_until, host.hangs_until) = (0, 0);
            host.disk.with(Double::make_room);
            if host.has_stopped() {
                self.end_process(index, false);
            }
            self.start(index, None);
        }
        self.after(500 * MS, Due::Check(0));
    }
}
