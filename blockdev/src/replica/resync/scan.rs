//! Reading stretches of the log for what they changed: for sources, for a sink that has diverged,
//! and into dirty maps. One after the other, so that it costs the memory of one read.

use std::io;

use hadrian_protocol::frame::Frame;
use hadrian_protocol::ids::{Lsn, MemberId};
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::{BlockMap, LeafSet, Span};

use super::super::{LOG_READ_MAX, Replica, ReplicaEvent};
use super::{Copies, FoldRun};
use crate::engine::Engine;
use crate::journal::ReadError;
use crate::resync::maps::{self, DirtyMap};
use crate::resync::task::Task;

/// Under this number the log is read here; sessions count up from zero.
pub(in super::super) const SCAN_READ: u64 = u64::MAX - 2;

/// For whom the log is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whom {
    Source(u64),
    Sink,
    Fold(MemberId),
}

/// What is gathered.
#[derive(Debug)]
enum Found {
    Leaves(LeafSet),
    Map(DirtyMap),
}

/// A stretch of the log that is read, or will be.
#[derive(Debug)]
pub(super) struct Scan {
    whom: Whom,
    /// The next frame begins here.
    pub(super) at: Lsn,
    end: Lsn,
    found: Found,
}

impl Scan {
    pub(super) fn new(whom: Whom, volumes: &[VolumeGeometry], from: Lsn, end: Lsn) -> Self {
        Self { whom, at: from, end, found: Found::Leaves(LeafSet::new(volumes)) }
    }

    pub(super) fn nothing(volumes: &[VolumeGeometry]) -> LeafSet {
        LeafSet::new(volumes)
    }

    fn add(&mut self, frame: &Frame) {
        self.at = frame.end();
        match &mut self.found {
            Found::Leaves(leaves) => leaves.mark_frame(frame),
            Found::Map(dirty) => dirty.map.mark_frame(frame),
        }
    }
}

impl Copies {
    /// Nobody wants to know it any more.
    pub(super) fn forget_scan(&mut self, whom: Whom) {
        self.scans.retain(|scan| scan.whom != whom);
    }

    pub(super) fn fold(&mut self, peer: MemberId, from: Option<Lsn>, to: Lsn) {
        let Some(from) = from else {
            let span = Span { since: to, to };
            return self.write_map(peer, DirtyMap { span, map: BlockMap::new(&self.volumes) });
        };
        // A map that does not reach to `from` would have a gap: the read below fails, and it goes.
        let known = self.maps.get(&peer).filter(|dirty| dirty.span.to == from && from <= to);
        let (at, found) = match known {
            // It may be of a time when the volumes were smaller.
            Some(dirty) => match dirty.map.grown_to(&self.volumes) {
                Some(map) => (from, Found::Map(DirtyMap { map, span: dirty.span })),
                None => (Lsn::new(u64::MAX), Found::Leaves(LeafSet::default())),
            },
            None => (Lsn::new(u64::MAX), Found::Leaves(LeafSet::default())),
        };
        self.scans.push_back(Scan { whom: Whom::Fold(peer), at, end: to, found });
    }

    fn write_map(&mut self, peer: MemberId, dirty: DirtyMap) {
        let (io, of) = (self.tasks.io(), (self.resource, peer));
        let task = Task::new(maps::store(io, self.dir.clone(), of, dirty));
        self.folds.push(FoldRun { peer, task });
    }

    /// Who waited for the front has it. None: the log cannot be read there.
    fn scanned(&mut self, scan: Scan, is_whole: bool) -> Option<MemberId> {
        match (scan.whom, scan.found) {
            (Whom::Source(id), Found::Leaves(leaves)) => {
                let mut states = self.sources.iter().map(|run| run.state.borrow_mut());
                if let Some(mut state) = states.find(|state| state.id == id) {
                    state.scanned = Some(is_whole.then_some(leaves));
                }
                None
            }
            (Whom::Sink, Found::Leaves(leaves)) => {
                if let Some(sink) = &self.sink {
                    sink.state.borrow_mut().mine = Some(is_whole.then_some(leaves));
                }
                None
            }
            (Whom::Fold(peer), Found::Map(mut dirty)) if is_whole => {
                // The end of the last frame that is in it, where the next fold begins.
                dirty.span.to = scan.at;
                self.write_map(peer, dirty);
                None
            }
            (Whom::Fold(peer), _) => Some(peer),
            (Whom::Source(_) | Whom::Sink, Found::Map(_)) => None,
        }
    }
}

impl<E: Engine> Replica<E> {
    pub(super) fn go_on_scanning(&mut self) {
        while let Some(scan) = self.copies.scans.front() {
            if scan.at >= scan.end {
                let is_whole = scan.at < Lsn::new(u64::MAX);
                self.end_scan(is_whole);
                continue;
            }
            let (at, from_here) = (scan.at, self.journal.written() > scan.at);
            if self.copies.scanning.is_some() || !from_here {
                return;
            }
            match self.journal.read(&mut self.engine, at, LOG_READ_MAX, SCAN_READ) {
                Ok(()) => {
                    self.copies.scanning = Some(at);
                    self.engine.kick();
                    self.take_journal_events();
                }
                // It is tried again with the next event.
                Err(ReadError::Busy) => return,
                Err(error) => {
                    tracing::warn!(%at, %error, "the log cannot be read for what it changed");
                    self.end_scan(false);
                }
            }
        }
    }

    fn end_scan(&mut self, is_whole: bool) {
        let Some(scan) = self.copies.scans.pop_front() else { return };
        if let Some(peer) = self.copies.scanned(scan, is_whole) {
            self.map_is_gone(peer);
        }
    }

    pub(in super::super) fn scan_read(&mut self, result: Result<Vec<Frame>, ReadError>) {
        let from = self.copies.scanning.take();
        let Some(scan) = self.copies.scans.front_mut() else { return };
        match result {
            Ok(frames) => {
                // Of a scan that was forgotten, frames of somewhere else may come.
                for frame in frames {
                    if frame.lsn() == scan.at && scan.at < scan.end {
                        scan.add(&frame);
                    }
                }
            }
            // Of a scan that was forgotten: this one is to be read elsewhere.
            Err(_) if from != Some(scan.at) => {}
            Err(error) => {
                tracing::warn!(%error, "the log cannot be read for what it changed");
                self.end_scan(false);
            }
        }
    }

    pub(super) fn go_on_folding(&mut self) {
        let Self { copies, engine, .. } = self;
        let (mut at, mut gone) = (0, Vec::new());
        while let Some(run) = copies.folds.get_mut(at) {
            let Some(stored) = copies.tasks.poll(&mut run.task, engine) else {
                at += 1;
                continue;
            };
            let peer = run.peer;
            copies.folds.remove(at);
            match stored {
                Ok(dirty) => {
                    let span = Some(dirty.span);
                    copies.maps.insert(peer, dirty);
                    self.ready.push(ReplicaEvent::Folded { peer, span });
                }
                Err(error) => gone.push((peer, error)),
            }
        }
        for (peer, error) in gone {
            tracing::warn!(?peer, %error, "a dirty map cannot be written");
            self.map_is_gone(peer);
        }
    }

    /// The map of a member does not say everything any more.
    fn map_is_gone(&mut self, peer: MemberId) {
        let Self { copies, ready, .. } = self;
        copies.maps.remove(&peer);
        let removing = maps::remove(copies.tasks.io(), copies.dir.clone(), peer);
        copies.removing.push(Task::new(removing));
        ready.push(ReplicaEvent::Folded { peer, span: None });
    }

    /// What is removed need not be waited for; it is only looked after.
    pub(super) fn go_on_removing(&mut self) {
        let Self { copies, engine, .. } = self;
        let tasks = &copies.tasks;
        copies.removing.retain_mut(|task| match tasks.poll(task, engine) {
            None => true,
            Some(Ok(())) => false,
            Some(Err(error)) => {
                let error: io::Error = error;
                tracing::warn!(%error, "a dirty map that does not count any more is still there");
                false
            }
        });
    }
}
