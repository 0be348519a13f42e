//! A copy that is carried by hand: its export by a process, and its import on a disk (design §8.1).

use std::path::{Path, PathBuf};

use hadrian_blockdev::engine::double::{Copied, Double};
use hadrian_blockdev::replica::{self, Import, ReplicaError};
use hadrian_blockdev::superblock::{self, Label, Whose};
use hadrian_blockdev::volume::Store;
use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::{MemberId, SessionId};
use hadrian_protocol::replica::{Base, ReplicaState, Role};
use hadrian_protocol::resync::seed::Sink;
use hadrian_protocol::resync::{LEAF, Numbered};

use super::{BLOCK, BLOCKS, DIR, Host, Outward, Process, STORE, resource, volume};
use crate::oracle::Oracle;

/// What the file of a seed holds that was written to its end.
#[derive(Clone, Debug)]
pub(crate) struct Seed {
    pub(crate) image: Vec<u8>,
    pub(crate) state: ReplicaState,
}

/// An export that is under way: it ends with its process, as its file does.
#[derive(Debug)]
pub(super) struct Exporting {
    session: SessionId,
    sink: Sink,
    image: Vec<u8>,
}

impl Process {
    /// A file is begun for the source of this number. `false`: another one is being written.
    pub(crate) fn begin_export(&mut self, session: SessionId) -> bool {
        if self.exporting.is_some() {
            return false;
        }
        let sink = Sink::new(&self.node.state().volumes);
        let size = self.node.state().volumes.first().map_or(0, |volume| volume.size_bytes);
        let image = vec![0; size as usize];
        self.exporting = Some(Exporting { session, sink, image });
        true
    }

    pub(crate) fn end_export(&mut self) {
        self.exporting = None;
    }

    pub(super) fn is_export(&self, id: u64) -> bool {
        self.exporting.as_ref().is_some_and(|exporting| exporting.session.get() == id)
    }

    /// What the source says goes into the file.
    pub(super) fn export_hears(&mut self, message: Numbered, oracle: &mut Oracle) {
        let Some(Exporting { sink, image, .. }) = &mut self.exporting else { return };
        match sink.hear(message) {
            Ok(None) => {}
            Ok(Some(content)) => {
                let place = content.offset as usize..(content.offset + content.len) as usize;
                match content.data {
                    Some(data) => image[place].copy_from_slice(&data),
                    None => image[place].fill(0),
                }
                sink.has_taken(1);
            }
            Err(error) => oracle.broken("§8.1", error.to_string()),
        }
        self.answer_source(oracle);
    }

    /// Hands the source what the file's side says.
    pub(super) fn answer_source(&mut self, oracle: &mut Oracle) {
        let Self { exporting: Some(exporting), replica, .. } = self else { return };
        while let Some(answer) = exporting.sink.answer() {
            if let Err(error) = replica.copying(exporting.session.get(), answer) {
                oracle.broken("§8.1", format!("a source refuses a file's answer: {error}"));
            }
        }
    }

    /// Everything of `at` is in the file.
    pub(super) fn exported(&mut self, member: MemberId, at: LogPosition, oracle: &mut Oracle) {
        let Some(Exporting { image, .. }) = self.exporting.take() else { return };
        oracle.exported(member, at, &image);
        let state = self.node.state().seeded_at(at);
        self.out.push(Outward::Exported(Box::new(Seed { image, state })));
    }
}

impl Host {
    /// Its disk holds nothing any more but an empty store; nobody uses it.
    pub(crate) fn empty(&mut self) {
        self.disk.with(|disk| {
            disk.put_back(&Copied::default());
            disk.put_file(Path::new(STORE), (BLOCK * BLOCKS) as usize);
        });
        (self.fails, self.strayed, self.is_damaged) = (false, false, false);
    }

    /// Imports a seed as `hadrian seed import` does, from wherever one before has ended; with
    /// `cut_at` the power goes at that change of the disk.
    pub(crate) fn import(&mut self, seed: &Seed, cut_at: Option<u64>) {
        let before = self.replica_state();
        let other =
            |state: &ReplicaState| !replica::is_begun(state) || state.volumes != seed.state.volumes;
        if before.as_ref().is_some_and(other) {
            return;
        }
        // Where a disk is full, the import says so: whoever carries the seed makes room.
        self.disk.with(Double::make_room);
        cut_at.into_iter().for_each(|change| self.disk.with(|disk| disk.cut_power_at(change)));
        let made = self.make_of(seed, before.is_some());
        let cut = self.disk.with(|disk| disk.is_cut());
        assert!(made.is_ok() || cut, "a disk in order takes a seed: {made:?}");
        self.disk.with(if cut { Double::power_on } else { Double::restart_process });
    }

    fn make_of(&mut self, seed: &Seed, is_begun: bool) -> Result<(), ReplicaError> {
        let (paths, dir) = ([PathBuf::from(STORE)], Path::new(DIR));
        let whose = Whose { resource: resource(), label: Label::default() };
        let (mode, log_bytes) = self.first;
        if !is_begun {
            let volumes = seed.state.volumes.clone();
            self.disk.with(|disk| disk.put_file(Path::new(STORE), seed.image.len()));
            let (role, base) = (Role::Standby, Base::Zero);
            let new = ReplicaState::created(resource(), self.member, role, mode, base, volumes);
            let new = (&whose.label, &replica::begun(new));
            replica::create_in(&mut self.disk, dir, new, log_bytes, &mut |_| {})?;
        }
        let mut import = Import::open_over(self.disk.clone(), dir, &whose, &paths, Store::open_in)?;
        let io = |source| ReplicaError::Io { path: dir.into(), source };
        if is_begun {
            import.clear(|_| {}).map_err(io)?;
        }
        for (leaf, offset) in seed.image.chunks(LEAF as usize).zip((0..).step_by(LEAF as usize)) {
            if leaf.iter().any(|byte| *byte != 0) {
                let data = Some(leaf.to_vec().into());
                import.put(volume(), (offset, leaf.len() as u64), data).map_err(io)?;
            }
        }
        import.finish(&ReplicaState { member: self.member, ..seed.state.clone() })
    }

    /// What the superblock on its disk says, if there is one; nobody uses it.
    pub(crate) fn replica_state(&mut self) -> Option<ReplicaState> {
        let copies = superblock::inspect(&mut self.disk, Path::new(DIR)).ok()?;
        self.disk.with(Double::restart_process);
        let newest = copies.into_iter().flatten().max_by_key(|copy| copy.sequence)?;
        ReplicaState::decode(&newest.body).ok()
    }
}
