//! What of a log is good after a crash (design §2.3).
//!
//! From the checkpoint on, frames are read one after the other until one is not whole or does not
//! follow. That is the end of the log, unless something durable lay behind it. Three witnesses
//! say how far the log was durable: the superblock, the stamp of every good frame, and the stamp
//! of every frame head that is found behind the end at its right position. If any of them says
//! more than the end, what is missing is damage, and nobody truncates it silently. Otherwise it
//! is a torn tail, also where a later frame of it happens to be whole (holes, story 16).
//!
//! Heads behind the end are then zeroed, durably, before anything is written there: a frame that
//! was lost and written again must not be followed by what followed its first life (story 17).
//! How far behind the end such a head can lie is bounded by [`UNSYNCED_BYTES_MAX`].
//!
//! A client can write bytes that look like a frame head. Where they lie in the payload of a whole
//! frame they are not looked at; in a torn one they could at worst pass for a witness, if they
//! name this resource and their own future position. Then recovery refuses; it never loses data.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use hadrian_protocol::frame::{self, Frame, FrameError, HEAD_LEN, LogPosition};
use hadrian_protocol::ids::{Lsn, ResourceId};

use super::ahead::Ahead;
use super::layout::Segments;
use super::reader::{BadFrame, Cursor, Step, head_at};
use super::tail::Tail;
use crate::engine::{Completion, Engine, Token};

/// Most bytes that may be written and not durable (design §10): appends beyond are refused. So a
/// recovery has to look no further than this behind the end for what a crash left.
pub const UNSYNCED_BYTES_MAX: u64 = 256 << 20;

/// A log that is worse off than any crash can leave it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the log is damaged at {at} ({path}, byte {offset}): {cause}; it was durable up to {durable} \
     (says {witness}); nothing was changed: repair the disk or fetch the log from the peer, or \
     look at what is left with `hadrian inspect log`"
)]
pub struct Damage {
    /// The position that cannot be read.
    pub at: Lsn,
    /// The segment in which it lies.
    pub path: PathBuf,
    /// Where in the segment, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub cause: BadFrame,
    /// How far the log was durable.
    pub durable: Lsn,
    /// Who says so.
    pub witness: Witness,
}

/// Who knows how far the log was durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Witness {
    /// The superblock, or the record of a truncation.
    Superblock,
    /// A good frame before the place.
    FrameBefore(Lsn),
    /// A frame head behind the place.
    FrameBehind(Lsn),
}

impl std::fmt::Display for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Superblock => write!(f, "the superblock"),
            Self::FrameBefore(lsn) => write!(f, "the frame before it at {lsn}"),
            Self::FrameBehind(lsn) => write!(f, "the frame behind it at {lsn}"),
        }
    }
}

/// Why a recovery ends without a log.
#[derive(Debug)]
pub(super) enum Stopped {
    Io(Lsn, io::Error),
    Damage(Box<Damage>),
}

/// What a recovery found.
#[derive(Debug)]
pub(super) struct Found {
    /// Behind the last good frame.
    pub(super) end: LogPosition,
    pub(super) frame_count: u64,
    /// How far some witness says that it was durable.
    pub(super) durable: Lsn,
    /// Behind the last head that a crash left behind the end; the end where there is none.
    pub(super) leftover_end: Lsn,
    /// Those of the frames that the log itself lacks.
    pub(super) kept: Vec<Frame>,
}

/// What a recovery starts from.
pub(super) struct Start {
    pub(super) resource: ResourceId,
    pub(super) checkpoint: LogPosition,
    /// How far the log was durable, as the superblock and finished truncations have it.
    pub(super) known_durable: Lsn,
    /// Where an unfinished truncation ends the log.
    pub(super) stop: Option<Lsn>,
}

/// Reads the log from the checkpoint on; `visit` sees every good frame once, in order.
pub(super) fn recover<E: Engine + ?Sized>(
    engine: &mut E,
    segments: &Segments,
    (start, tail): (&Start, Option<&Tail>),
    visit: &mut dyn FnMut(&Frame),
) -> Result<Found, Stopped> {
    let mut reader = Reader { engine, segments, ahead: Ahead::default() };
    let found = find_end(&mut reader, (start, tail), visit);
    // Who comes next has the engine for itself, also behind a log that cannot be read.
    reader.finish().map_err(|error| Stopped::Io(start.checkpoint.lsn, error))?;
    found
}

fn find_end<E: Engine + ?Sized>(
    reader: &mut Reader<'_, E>,
    (start, tail): (&Start, Option<&Tail>),
    visit: &mut dyn FnMut(&Frame),
) -> Result<Found, Stopped> {
    let segments = reader.segments;
    let limit = start.stop.unwrap_or(segments.end());
    // What is being cut off does not come back.
    let tail = tail.filter(|_| start.stop.is_none());
    let (mut kept, mut first_gap) = (Vec::new(), None);
    let LogPosition { lsn, chain } = start.checkpoint;
    let mut cursor = Cursor::new(start.resource, lsn, Some(chain), limit);
    let mut end = start.checkpoint;
    let mut frame_count = 0;
    let mut claim = (start.known_durable, Witness::Superblock);
    let cause = loop {
        let step = cursor.next(|at, least, _| reader.read(at, least, limit));
        let (frame, cause) = match step.map_err(|error| Stopped::Io(cursor.at(), error))? {
            Step::Frame(frame) => (Some(frame), BadFrame::Frame(FrameError::Magic)),
            Step::Bad(cause) => (None, cause),
            Step::End => (None, BadFrame::Frame(FrameError::Magic)),
        };
        let frame = frame.or_else(|| {
            let frame = tail?.frame(end).filter(|frame| frame.end() <= limit)?;
            cursor = Cursor::new(start.resource, frame.end(), Some(frame.chain()), limit);
            kept.push(frame.clone());
            first_gap.get_or_insert((end.lsn, cause.clone()));
            Some(frame)
        });
        let Some(frame) = frame else { break cause };
        frame_count += 1;
        end = frame.position_after();
        let stamped = frame.stamp().map(|stamp| stamp.durable);
        raise(&mut claim, stamped, Witness::FrameBefore(frame.lsn()));
        visit(&frame);
    };
    let mut leftover_end = end.lsn;
    if start.stop.is_none() {
        leftover_end = look_behind(reader, start.resource, end.lsn, &mut claim)?;
    }
    let (durable, witness) = claim;
    // What was durable and is not there is told, also where the tail has it.
    let (at, cause) = first_gap.unwrap_or((end.lsn, cause));
    if durable > at {
        let (path, offset) = segments.locate(at);
        return Err(Stopped::Damage(Box::new(Damage {
            at,
            path,
            offset,
            cause,
            durable,
            witness,
        })));
    }
    Ok(Found { end, frame_count, durable, leftover_end, kept })
}

fn raise(claim: &mut (Lsn, Witness), durable: Option<Lsn>, witness: Witness) {
    if let Some(durable) = durable.filter(|durable| *durable > claim.0) {
        *claim = (durable, witness);
    }
}

/// Reads ahead and waits: recovery does nothing else meanwhile.
struct Reader<'a, E: ?Sized> {
    engine: &'a mut E,
    segments: &'a Segments,
    ahead: Ahead,
}

impl<E: Engine + ?Sized> Reader<'_, E> {
    /// At least `least` bytes at `at`, where the limit lets as many be read.
    fn read(&mut self, at: Lsn, least: usize, limit: Lsn) -> io::Result<Bytes> {
        loop {
            self.ahead.fill(self.engine, self.segments, (at, limit), Token);
            self.engine.kick();
            match self.ahead.bytes(at, least) {
                None => {}
                Some(Ok(bytes)) if bytes.len() < least => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Some(read) => return read,
            }
            self.wait()?;
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        let mut done = Vec::new();
        self.engine.wait()?;
        self.engine.reap(&mut done);
        for Completion { token: Token(number), op, result } in done {
            self.ahead.complete(number, op, result);
        }
        Ok(())
    }

    /// Waits for what nobody needs any more.
    fn finish(&mut self) -> io::Result<()> {
        while self.ahead.under_way() > 0 {
            self.wait()?;
        }
        Ok(())
    }
}

/// Looks for frame heads that a crash left behind the end, hears them as witnesses, and returns
/// where the last of their frames ends.
fn look_behind<E: Engine + ?Sized>(
    reader: &mut Reader<'_, E>,
    resource: ResourceId,
    end: Lsn,
    claim: &mut (Lsn, Witness),
) -> Result<Lsn, Stopped> {
    let farthest = end.get().saturating_add(UNSYNCED_BYTES_MAX);
    let limit = reader.segments.end().min(Lsn::new(farthest));
    let (mut leftover_end, mut at) = (end, end);
    while limit.since(at) > 0 {
        let left = usize::try_from(limit.since(at)).unwrap_or(usize::MAX);
        let chunk = reader.read(at, HEAD_LEN, limit).map_err(|error| Stopped::Io(at, error))?;
        let chunk = chunk.slice(..chunk.len().min(left));
        let mut skip = 0;
        while let Some(page) = chunk.get(skip..skip + HEAD_LEN) {
            let here = Lsn::new(at.get().saturating_add(skip as u64));
            let taken = head_at(page, resource, here);
            if let Some(log_len) = taken {
                leftover_end = Lsn::new(here.get().saturating_add(log_len)).min(limit);
                let stamp = frame::peek_stamp(page, resource, here).map(|stamp| stamp.durable);
                raise(claim, stamp, Witness::FrameBehind(here));
            }
            // What lies in a frame is its payload, whatever it looks like.
            let step = usize::try_from(taken.unwrap_or(0)).unwrap_or(usize::MAX);
            skip = skip.saturating_add(step.max(HEAD_LEN));
        }
        at = Lsn::new(at.get().saturating_add(skip as u64)).min(limit);
    }
    Ok(leftover_end)
}
