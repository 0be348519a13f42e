//! Two members on one thread, whose link is two queues: all that one has said in a turn reaches the
//! other at once, as from a socket that nobody has looked at for a while. So words of the core and
//! the data of a resync that they begin come without a pause between them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use hadrian_blockdev::engine::EngineChoice;
use hadrian_blockdev::replica::{self, Replica};
use hadrian_blockdev::superblock::{Label, Whose};
use hadrian_protocol::ids::{MemberId, ResourceId};
use hadrian_protocol::node::{
    Command, NodeConfig, NodeStatus, RECORDING_VERSION, Recorded, StandbyState, Start, VerifyState,
};
use hadrian_protocol::replica::{Base, Image, Mode, ReplicaState, Role, VolumeGeometry};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::driver::resource::{Disks, ResourceOptions};
use crate::driver::share::Share;

const MIB: u64 = 1 << 20;
/// Two members that work side by side need milliseconds.
const TOO_LONG: Duration = Duration::from_secs(20);
/// Exchanges, after each of which nobody has anything left to do: a comparison of a volume of this
/// size needs three.
const EXCHANGES: usize = 12;

fn resource() -> ResourceId {
    ResourceId::derive("queues", "db")
}

fn options() -> ResourceOptions {
    ResourceOptions {
        name: "db".into(),
        members: vec!["alpha".into(), "beta".into()],
        exports: vec!["db/data".into()],
        compression: Compression::None,
        recording: None,
        ublk_queues: None,
        held_bytes: 0,
        copy_rate: None,
        share: Share::of(64 * MIB, 1),
        marks: None,
        hooks: None,
        companions: None,
    }
}

/// A member, and its end of the link.
struct Side {
    shared: Rc<Shared>,
    session: SessionId,
    outgoing: Rc<Outgoing>,
    _dir: TempDir,
}

impl Side {
    fn new(index: u8, image: Image) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let member = |index| MemberId::new(index).unwrap();
        let (replica, state, recovered) = made(dir.path(), member(index), image);
        let mut config = NodeConfig::new(vec![member(0), member(1)], Mode::Nearsync);
        config.log_sync_interval = Duration::from_millis(1);
        config.apply_interval = Duration::ZERO;
        let (clock, program) = (hadrian_fencing::clock::now(), "queues".into());
        let start = Start { version: RECORDING_VERSION, program, config, state, recovered, clock };
        let node = Recorded::start(start, None);
        let shared = Shared::new(node, replica, resource(), member(index), &options());
        let (session, outgoing) = shared.linked(member(1 - index));
        Self { shared, session, outgoing, _dir: dir }
    }

    /// Works until it has nothing left to do.
    fn turn(&self) {
        loop {
            self.shared.settle();
            if self.shared.work_disks() == Disks::Quiet {
                return;
            }
        }
    }

    fn status(&self) -> NodeStatus {
        self.shared.inner.borrow().node.status()
    }

    /// Everything that waits here reaches the other side, which settles nothing in between but what
    /// it does by itself. What it was, in order: whether it was data of a resync.
    fn reaches(&self, other: &Side) -> Vec<bool> {
        let mut said = Vec::new();
        loop {
            let item = self.outgoing.queue.borrow_mut().pop_front();
            match item {
                None => return said,
                Some(Item::Close) => panic!("a session is ended"),
                Some(Item::Frame(frame)) => {
                    other.takes(&frame);
                    self.shared.handed(self.session, frame.end());
                }
                Some(Item::Message(bytes)) => {
                    let (head, body) = bytes.split_at(ENVELOPE_LEN);
                    let envelope = Envelope::parse(head.first_chunk().unwrap()).unwrap();
                    let message = envelope.message(body).unwrap();
                    said.push(matches!(message, Message::Copying(_)));
                    match message {
                        Message::Copying(data) => {
                            assert!(other.shared.copying(other.session, data), "it makes sense");
                        }
                        word => other.shared.heard(other.session, word),
                    }
                }
            }
        }
    }

    fn takes(&self, frame: &Frame) {
        let (head, body) = frame.wire_parts();
        let mut buffer = IoBuf::for_body(body.len());
        buffer[..head.len()].copy_from_slice(&head);
        buffer[HEAD_LEN..HEAD_LEN + body.len()].copy_from_slice(&body);
        let frame = Frame::receive(buffer, resource(), self.shared.durable()).unwrap();
        assert!(self.shared.frame_in(self.session, frame));
    }
}

fn made(
    dir: &Path,
    member: MemberId,
    image: Image,
) -> (Replica, ReplicaState, hadrian_protocol::node::Recovered) {
    let (store, replica_dir): (PathBuf, PathBuf) = (dir.join("store"), dir.join("db"));
    std::fs::File::create(&store).unwrap().set_len(MIB).unwrap();
    let role = if member.index() == 0 { Role::Primary } else { Role::Standby };
    let volumes = vec![VolumeGeometry { size_bytes: MIB, block_size: 512 }];
    let mut state =
        ReplicaState::created(resource(), member, role, Mode::Nearsync, Base::Zero, volumes);
    state.image = image;
    replica::create(&replica_dir, &Label::default(), &state, 4 * MIB, |_| {}).unwrap();
    let whose = Whose { resource: resource(), label: Label::default() };
    Replica::open(&replica_dir, &whose, &[store], EngineChoice::Plain).unwrap()
}

/// Both, and whether data of a resync has come behind a word within one turn.
struct Pair {
    alpha: Side,
    beta: Side,
    data_behind_a_word: bool,
}

impl Pair {
    fn new(image: Image) -> Self {
        let (alpha, beta) = (Side::new(0, Image::Whole), Side::new(1, image));
        Self { alpha, beta, data_behind_a_word: false }
    }

    fn exchange(&mut self) {
        for (from, to) in [(&self.alpha, &self.beta), (&self.beta, &self.alpha)] {
            from.turn();
            let said = from.reaches(to);
            self.data_behind_a_word |= said.windows(2).any(|two| two == [false, true]);
        }
    }

    /// Goes on until beta is with alpha and both images are at the end of the log.
    fn come_together(&mut self) {
        let began = Instant::now();
        loop {
            self.exchange();
            let status = self.alpha.status();
            let with = status.peers.iter().any(|peer| {
                peer.state == Some(StandbyState::Peer) && peer.applied == Some(status.end)
            });
            if with && status.applied == status.end {
                return;
            }
            assert!(began.elapsed() < TOO_LONG, "they do not come together: {status:?}");
        }
    }
}

#[test]
fn data_of_a_comparison_that_come_with_the_word_that_begins_it_are_answered() {
    let mut pair = Pair::new(Image::Whole);
    pair.come_together();
    let (reply, mut answer) = oneshot::channel();
    pair.alpha.shared.command(Command::Verify(None), reply);
    pair.data_behind_a_word = false;
    pair.exchange();
    assert!(answer.try_recv().unwrap().is_ok(), "it is begun");
    assert!(pair.data_behind_a_word, "otherwise this shows nothing");
    (0..EXCHANGES).for_each(|_| pair.exchange());
    let verify = pair.alpha.status().verify.unwrap();
    assert_eq!((verify.state, verify.done), (VerifyState::Done, MIB));
    assert_eq!(verify.differs, []);
}

#[test]
fn data_of_a_sink_that_come_with_its_wish_reach_the_source() {
    let mut pair = Pair::new(Image::Incomplete);
    pair.come_together();
    assert!(pair.data_behind_a_word, "otherwise this shows nothing");
    assert_eq!(pair.beta.shared.inner.borrow().node.state().image, Image::Whole);
}
