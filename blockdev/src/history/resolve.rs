//! From what an operator names to a point.

use hadrian_protocol::frame::{Frame, LogPosition, Record};
use hadrian_protocol::ids::Lsn;
use hadrian_protocol::point::PointName;
use hadrian_protocol::time::WallTime;

use super::book::{Reach, Segment};
use super::door::Door;
use super::layout::{PAGE, Point, Record as Stored};
use super::scan::{open_segment, record_at};
use crate::engine::{Engine, TokenSpace};
use crate::journal::inspect;
use crate::resync::task::{Io, Task, Tasks};

/// What an operator names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The last point at or before a position.
    Lsn(Lsn),
    /// The last point at or before a moment, by the clock of the primary of that time.
    Time(WallTime),
    /// The newest point of the image, without the log that is not in it yet.
    Applied,
    /// The last point of this name.
    Named(PointName),
}

/// The point that was meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// Which.
    pub point: Point,
    /// The image has not reached it yet: what the log has up to there is laid over it.
    pub is_ahead: bool,
}

/// Why there is no such point.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// It is older than what is kept.
    #[error("it is older than the oldest point that is kept, {}", in_words(.0.oldest))]
    TooOld(Reach),
    /// It was never named so, or is not kept any more.
    #[error("no point between {} and the end of the log is called {name}", in_words(.reach.oldest))]
    NoName {
        /// What was asked for.
        name: PointName,
        /// What is kept.
        reach: Box<Reach>,
    },
    /// The record cannot be read.
    #[error("the history cannot be read: {0}; see the log of hadriand")]
    Io(#[from] std::io::Error),
}

fn in_words(point: Point) -> String {
    match point.wall.as_micros() {
        0 => format!("LSN {}", point.at.lsn),
        us => format!("LSN {} of {} s after the epoch", point.at.lsn, us / 1_000_000),
    }
}

impl Target {
    /// Whether a point is not behind it. One of unknown age is not for a moment: who asks for a
    /// moment wants the image of then.
    fn takes(&self, point: Point) -> bool {
        match self {
            Self::Lsn(lsn) => point.at.lsn <= *lsn,
            Self::Time(wall) => point.wall != WallTime::default() && point.wall <= *wall,
            Self::Applied => true,
            Self::Named(_) => false,
        }
    }
}

impl Door {
    /// The last point at or before what is named.
    ///
    /// # Errors
    /// [`Unresolved`]
    pub fn resolve<E: Engine>(
        &self,
        engine: &mut E,
        target: &Target,
    ) -> Result<Resolved, Unresolved> {
        if let Target::Named(name) = target {
            return self.named(engine, name);
        }
        let (reach, segment) = {
            let book = self.shelf.book();
            (book.reach(), book.segment_of(|from| target.takes(from)))
        };
        if target.takes(reach.newest) {
            let point = match target {
                Target::Applied => reach.newest,
                _ => self.ahead(engine, target, reach.newest),
            };
            return Ok(Resolved { point, is_ahead: point.at != reach.newest.at });
        }
        let Some(segment) = segment else { return Err(Unresolved::TooOld(reach)) };
        let tasks = Tasks::new(TokenSpace::new(1));
        let scan = last_of(tasks.io(), self.clone(), (segment, target.clone()));
        let found = tasks.run(Task::new(scan), engine).flatten()?;
        let point = found.ok_or(Unresolved::TooOld(reach))?;
        Ok(Resolved { point, is_ahead: false })
    }

    /// The last point of this name: in the log, or on record.
    fn named<E: Engine>(&self, engine: &mut E, name: &PointName) -> Result<Resolved, Unresolved> {
        let (reach, segments) = {
            let book = self.shelf.book();
            (book.reach(), book.segments.clone())
        };
        let mut found = None;
        let mut visit = |frame: &Frame, point: Point| {
            let named =
                frame.records().any(|r| matches!(r, Record::Point { name: of } if of == *name));
            found = Some(point).filter(|_| named).or(found);
            true
        };
        self.visit_ahead(engine, reach.newest, &mut visit);
        if let Some(point) = found {
            return Ok(Resolved { point, is_ahead: true });
        }
        let tasks = Tasks::new(TokenSpace::new(1));
        for segment in segments.into_iter().rev() {
            let scan = last_named(tasks.io(), self.clone(), (segment, name.clone()));
            if let Some(point) = tasks.run(Task::new(scan), engine).flatten()? {
                return Ok(Resolved { point, is_ahead: false });
            }
        }
        Err(Unresolved::NoName { name: name.clone(), reach: Box::new(reach) })
    }

    /// The last point in the log at or before what is named, from `newest` on.
    fn ahead<E: Engine>(&self, engine: &mut E, target: &Target, newest: Point) -> Point {
        let mut last = newest;
        self.visit_ahead(engine, newest, &mut |_, point| {
            let takes = target.takes(point);
            last = if takes { point } else { last };
            takes
        });
        last
    }

    /// Goes through the frames of the log from a point on, each with the point behind it, as long
    /// as `visit` says so.
    pub(super) fn visit_ahead<E: Engine>(
        &self,
        engine: &mut E,
        newest: Point,
        visit: &mut dyn FnMut(&Frame, Point) -> bool,
    ) {
        let LogPosition { lsn, chain } = newest.at;
        let Ok(mut dump) = inspect::frames(engine, &self.replica_dir, Some(lsn)) else { return };
        let mut before = chain;
        while let Ok(Ok(frame)) = dump.next(engine) {
            let point = Point { at: frame.position_after(), wall: frame.wall() };
            // Behind the end of the log lie frames of an earlier use of the file.
            if !frame.follows(before) || !visit(&frame, point) {
                break;
            }
            before = frame.chain();
        }
        dump.close(engine);
    }
}

/// The last point of a segment that has this name.
async fn last_named(
    io: Io,
    door: Door,
    (segment, name): (Segment, PointName),
) -> std::io::Result<Option<Point>> {
    let mut found = None;
    each_record(io, door, segment, &mut |record| {
        if record.is_last && record.name.as_ref() == Some(&name) {
            found = Some(record.to);
        }
    })
    .await?;
    Ok(found)
}

/// The last point of a segment that the target takes.
async fn last_of(
    io: Io,
    door: Door,
    (segment, target): (Segment, Target),
) -> std::io::Result<Option<Point>> {
    let mut found = Some(segment.from).filter(|from| target.takes(*from));
    each_record(io, door, segment, &mut |record| {
        if target.takes(record.from) {
            found = Some(record.from);
        }
    })
    .await?;
    Ok(found)
}

/// Shows every record of a segment, in order.
pub(super) async fn each_record(
    io: Io,
    door: Door,
    segment: Segment,
    visit: &mut dyn FnMut(&Stored),
) -> std::io::Result<()> {
    let opened = open_segment(&io, &door.dir, (door.resource, segment.number)).await?;
    let Some(opened) = opened else { return Err(std::io::ErrorKind::InvalidData.into()) };
    let (mut at, bounds) = (PAGE as u64, door.bounds());
    while at < segment.len {
        let place = (at, segment.len);
        let record = record_at(&io, opened.file.id, place, &bounds).await?;
        let Some(record) = record else { break };
        visit(&record);
        at = at.saturating_add(record.len());
    }
    Ok(())
}
