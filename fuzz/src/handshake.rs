//! What a member says: the preamble, then envelopes with messages and frames.
//!
//! Input: one byte of how, a preamble, envelopes. With how & 1 the checksum of every envelope is
//! computed, with how & 2 also those of the frames in them.

use hadrian_protocol::frame::{BODY_LEN_MAX, HEAD_LEN};
use hadrian_protocol::ids::MemberId;
use hadrian_protocol::wire::{
    ENVELOPE_LEN, Envelope, MESSAGE_LEN_MAX, Message, PREAMBLE_LEN, Preamble,
};

use crate::memory::within;
use crate::{frame, mend};

/// What a message may hold once it is read; its lists have limits far below.
const HELD_MAX: usize = 2 * MESSAGE_LEN_MAX;

/// Runs the readers of a new session on `input`.
///
/// # Panics
/// If one breaks a property.
pub fn run(input: &[u8]) {
    let Some((how, bytes)) = input.split_first() else { return };
    let Some((preamble, stream)) = bytes.split_first_chunk::<PREAMBLE_LEN>() else { return };
    check_preamble(preamble);
    let mut stream = stream.to_vec();
    let mut rest = &mut stream[..];
    while let Some(used) = envelope(*how, rest) {
        rest = &mut rest[used..];
    }
}

fn check_preamble(bytes: &[u8; PREAMBLE_LEN]) {
    let Ok(theirs) = Preamble::parse(bytes) else { return };
    assert_eq!(Preamble::parse(&theirs.encode()), Ok(theirs));
    let ours = Preamble::ours(mend::resource(), MemberId::new(0).expect("0 is a member"));
    let (here, there) = (ours.negotiate(&theirs), theirs.negotiate(&ours));
    assert_eq!(here.as_ref().ok(), there.as_ref().ok(), "both sides choose the same version");
    for side in [ours, theirs] {
        let spoken = side.version_min..=side.version_max;
        assert!(here.as_ref().is_ok_and(|version| spoken.contains(version)) || here.is_err());
    }
}

/// Reads one envelope; how many bytes it took, `None` where a link would end.
fn envelope(how: u8, stream: &mut [u8]) -> Option<usize> {
    if how & 1 != 0 {
        mend::seal_envelope(stream);
    }
    let (head, rest) = stream.split_first_chunk_mut::<ENVELOPE_LEN>()?;
    let envelope = Envelope::parse(head).ok()?;
    let limit = if envelope.is_frame() { HEAD_LEN + BODY_LEN_MAX } else { MESSAGE_LEN_MAX };
    assert!(envelope.body_len() <= limit, "the reader makes room for what the head says");
    let body = rest.get_mut(..envelope.body_len())?;
    if envelope.is_frame() {
        if how & 2 != 0 {
            mend::identify(body, body.len());
        }
        let mut laid_out = frame::lay_out(body)?;
        if how & 2 != 0 {
            mend::seal_frame(&mut laid_out, &[0; 32]);
        }
        frame::check(laid_out);
    } else {
        let message = within(HELD_MAX, || envelope.message(body)).ok()?;
        check_message(&message, head, body);
    }
    Some(ENVELOPE_LEN + envelope.body_len())
}

fn check_message(message: &Message, head: &[u8; ENVELOPE_LEN], body: &[u8]) {
    let again = message.encode();
    let (again_head, again_body) = again.split_first_chunk().expect("an envelope has a head");
    let read = Envelope::parse(again_head).and_then(|envelope| envelope.message(again_body));
    assert_eq!(read.as_ref(), Ok(message));
    // A refusal has a number that most reasons do not look at; all else has one spelling.
    if !matches!(message, Message::Refuse(_)) {
        assert_eq!((again_head, again_body), (head, body));
    }
}
