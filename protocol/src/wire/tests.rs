//! Every message survives the wire, and no bytes from it can do harm.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::divergence::Changed;
use crate::frame::{Began, ChainHash, LogPosition};
use crate::history::{EpochEntry, History};
use crate::ids::VolumeIndex;
use crate::ids::{EPOCH_MAX, Epoch, Incarnate, Incarnation, Lsn, MemberId, ResourceId};
use crate::replica::{Base, Image, Mode, Release, Role, Sizes, VolumeGeometry};
use crate::resync::digest::Digest;
use crate::resync::{Copying, Numbered};
use crate::time::Now;

/// One of every message, with every field different from zero; the golden files hold them too.
pub(crate) fn one_of_each() -> Vec<(&'static str, Message)> {
    let member = MemberId::new(1).unwrap();
    let life = Incarnate { member, incarnation: Incarnation::new(7) };
    let end = LogPosition { lsn: Lsn::new(0x5000), chain: ChainHash::from_bytes([5; 32]) };
    let epoch = Epoch::new(17);
    let start = LogPosition { lsn: Lsn::new(0x2000), chain: ChainHash::from_bytes([2; 32]) };
    let mut history = History::default();
    history.push(EpochEntry { epoch: Epoch::new(9), began: Began::InSync, leader: life, start });
    let release = Release { to: member, epoch, lsn: Lsn::new(0x4000) };
    let hello = Hello {
        life,
        role: Role::Standby,
        leading: true,
        promised: epoch,
        owned: Epoch::new(9),
        history: history.clone(),
        end,
        log_start: Lsn::new(0x1000),
        image: Image::Incomplete,
        base: Base::Digest([8; 32]),
        sizes: sizes(0),
        release: Some(release),
    };
    let grown_hello = Hello { sizes: sizes(2), ..hello.clone() };
    let lead = Lead { epoch, life, history: history.clone(), end, mode: Mode::Async };
    let progress = Progress {
        epoch,
        end: Lsn::new(3),
        may_apply: Lsn::new(2),
        wanted: Lsn::new(1),
        peer: true,
        in_set: true,
        mode: Mode::Sync,
        hold: Some(Lsn::new(2)),
        number: 6,
        echo: Some(Now::from_micros(77)),
    };
    let (of, received) = (Epoch::new(9), Lsn::new(3));
    let (durable, applied, stamp) = (Lsn::new(2), Lsn::new(1), Now::from_micros(78));
    let ack = Ack { epoch: of, received, durable, applied, heard: 5, stamp };
    let max_quiesce = Duration::from_millis(1500);
    let fork = Lsn::new(0x3000);
    let landed =
        Landed { epoch, said: 8, at: end, history: history.clone(), base: Base::Digest([8; 32]) };
    vec![
        ("hello", Message::Hello(Box::new(hello))),
        ("hello-grown", Message::Hello(Box::new(grown_hello))),
        ("lead", Message::Lead(Box::new(lead))),
        ("join", Message::Join(Join { epoch, from: end, durable: Lsn::new(0x4000) })),
        ("refuse", Message::Refuse(Refuse { refusal: Refusal::Diverged { fork } })),
        ("ask_promise", Message::AskPromise(AskPromise { epoch, force: true })),
        ("promised", Message::Promised(Promised { epoch, end, history })),
        ("fetch", Message::Fetch(end)),
        ("ack", Message::Ack(ack)),
        ("alive", Message::Alive),
        ("progress", Message::Progress(progress)),
        ("takeover_ask", Message::TakeoverAsk(TakeoverAsk { epoch, by: member, max_quiesce })),
        ("takeover_cancel", Message::TakeoverCancel(epoch)),
        ("handed_over", Message::HandedOver(release)),
        ("goodbye", Message::Goodbye(Goodbye::Stopping)),
        ("ask_resync", Message::AskResync(AskResync { epoch, from: Some(fork) })),
        ("landed", Message::Landed(Box::new(landed))),
    ]
}

fn sizes(growths: u32) -> Sizes {
    Sizes { growths, volumes: vec![VolumeGeometry { size_bytes: 1 << 30, block_size: 4096 }] }
}

/// Both questions of a growth, and every answer.
pub(crate) fn every_growth() -> Vec<(&'static str, Message)> {
    let (epoch, number) = (Epoch::new(17), 3);
    let grow = |step| Message::Grow(Box::new(Grow { epoch, number, step, sizes: sizes(2) }));
    let grown = |step, cannot| Message::Grown(Grown { epoch, number, step, cannot });
    let (room, take) = (GrowStep::MakeRoom, GrowStep::Take);
    let too_small = CannotGrow::DeviceTooSmall { has: 1 << 29, missing: 1 << 29 };
    vec![
        ("grow-make-room", grow(room)),
        ("grow-take", grow(take)),
        ("grown-room", grown(room, None)),
        ("grown-taken", grown(take, None)),
        ("grown-device-too-small", grown(room, Some(too_small))),
        ("grown-system", grown(room, Some(CannotGrow::System { errno: 28 }))),
        ("grown-busy", grown(room, Some(CannotGrow::Busy))),
    ]
}

/// Each kind of data of a resync.
pub(crate) fn every_copying() -> Vec<(&'static str, Message)> {
    let volume = VolumeIndex::new(3).unwrap();
    let digest = |byte| Digest::from_bytes([byte; 32]);
    let mine = Changed { volume, start: 512, end: 4096 };
    let at = Lsn::new(0x6000);
    let (offset, data) = (1 << 40, Some(bytes::Bytes::from_static(b"content")));
    let named = [
        ("mine", Copying::Mine(Some(vec![mine]))),
        ("mine-unknown", Copying::Mine(None)),
        (
            "compare",
            Copying::Compare {
                number: 5,
                volume,
                first: 9,
                runs: vec![(1, digest(1)), (700, digest(2))],
            },
        ),
        (
            "differs",
            Copying::Differs { volume, region: 9, leaves: Some(vec![digest(3), digest(4)]) },
        ),
        ("differs-from-zero", Copying::Differs { volume, region: 10, leaves: None }),
        ("compared", Copying::Compared(5)),
        ("content", Copying::Content { volume, offset, len: 7, data: data.clone() }),
        ("content-zero", Copying::Content { volume, offset, len: 1 << 30, data: None }),
        ("taken", Copying::Taken(77)),
        ("mend", Copying::Mend { at, volume, offset, len: 7, data: data.clone() }),
        ("mend-zero", Copying::Mend { at, volume, offset, len: 16 << 10, data: None }),
        ("mend-end", Copying::MendEnd),
        ("mended", Copying::Mended { count: 3, whole: true }),
        ("fetch", Copying::Fetch { at, volume, offset, len: 16 << 10 }),
    ];
    named.map(|(name, copying)| (name, Message::Copying(Numbered { number: 77, copying }))).into()
}

/// The refusals that [`one_of_each`] does not hold.
pub(crate) fn every_other_refusal() -> Vec<(&'static str, Message)> {
    let named = [
        ("unrelated", Refusal::Unrelated),
        ("base_differs", Refusal::BaseDiffers),
        ("geometry_differs", Refusal::GeometryDiffers),
        ("growing", Refusal::Growing),
        ("log_gone", Refusal::LogGone { start: Lsn::new(9) }),
        ("overtaken", Refusal::Overtaken { promised: Epoch::new(9), owned: false }),
        ("overtaken-by-owner", Refusal::Overtaken { promised: Epoch::new(9), owned: true }),
        ("not_now", Refusal::NotNow),
        ("protocol", Refusal::Protocol),
    ];
    named.map(|(name, refusal)| (name, Message::Refuse(Refuse { refusal }))).into()
}

/// The goodbyes that [`one_of_each`] does not hold.
pub(crate) fn other_goodbyes() -> [(&'static str, Message); 2] {
    let goodbye = Message::Goodbye;
    [("replaced", goodbye(Goodbye::Replaced)), ("failed", goodbye(Goodbye::Failed))]
}

fn read_back(bytes: &[u8]) -> Result<Message, WireError> {
    let (head, body) = bytes.split_first_chunk::<ENVELOPE_LEN>().unwrap();
    let envelope = Envelope::parse(head)?;
    assert_eq!(envelope.body_len(), body.len());
    envelope.message(body)
}

#[test]
fn every_message_reads_back_as_it_was_sent() {
    for (name, message) in one_of_each() {
        assert_eq!(read_back(&message.encode()), Ok(message), "{name}");
    }
}

#[test]
fn every_piece_of_a_resync_reads_back_as_it_was_sent() {
    for (name, message) in every_copying() {
        assert_eq!(read_back(&message.encode()), Ok(message), "{name}");
    }
}

#[test]
fn every_word_of_a_growth_reads_back_as_it_was_sent() {
    for (name, message) in every_growth() {
        assert_eq!(read_back(&message.encode()), Ok(message), "{name}");
    }
}

#[test]
fn every_refusal_reads_back_as_it_was_sent() {
    for (name, message) in every_other_refusal() {
        assert_eq!(read_back(&message.encode()), Ok(message), "{name}");
    }
}

#[test]
fn a_refusal_cannot_name_an_epoch_that_leaves_no_next_one() {
    let promised = Epoch::new(EPOCH_MAX + 1);
    let message = Message::Refuse(Refuse { refusal: Refusal::Overtaken { promised, owned: true } });
    let error = CodecError::Value { field: "promised epoch", value: promised.get() };
    assert_eq!(read_back(&message.encode()), Err(WireError::Body(error)));
}

#[test]
fn every_flipped_byte_of_a_message_is_noticed() {
    for (name, message) in one_of_each() {
        let good = message.encode();
        for at in (0..good.len()).filter(|at| !(4..8).contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(read_back(&bad).is_err(), "{name}: flipped byte {at} went unnoticed");
        }
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_read() {
    let mut head = [0; ENVELOPE_LEN];
    head.copy_from_slice(&Message::Goodbye(Goodbye::Stopping).encode()[..ENVELOPE_LEN]);
    head[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Envelope::parse(&head), Err(WireError::TooLong { .. })));
}

#[test]
fn a_preamble_reads_back_and_agrees_on_the_highest_common_version() {
    let resource = ResourceId::derive("orders", "db");
    let ours = Preamble::ours(resource, MemberId::new(1).unwrap());
    assert_eq!(Preamble::parse(&ours.encode()), Ok(ours));
    let old = Preamble { version_min: 1, version_max: 3, ..ours };
    let new = Preamble { version_min: 2, version_max: 9, ..ours };
    assert_eq!(old.negotiate(&new), Ok(3));
    let newer = Preamble { version_min: 4, version_max: 9, ..ours };
    let error = PreambleError::Version { theirs: (4, 9), ours: (1, 3) };
    assert_eq!(old.negotiate(&newer), Err(error));
}

proptest! {
    #[test]
    fn no_body_makes_the_reader_panic(
        kind in 0u8..23,
        body in proptest::collection::vec(any::<u8>(), 0..400)
    ) {
        let _ = Message::get(kind, &body);
    }
}
