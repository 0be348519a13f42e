//! Points that somebody has given a name, listed.

use std::collections::VecDeque;

use hadrian_protocol::frame::{Frame, Record};
use hadrian_protocol::point::PointName;

use super::book::Segment;
use super::door::Door;
use super::layout::Point;
use super::resolve::{Unresolved, each_record};
use crate::engine::{Engine, TokenSpace};
use crate::resync::task::{Task, Tasks};

/// The points with a name that are kept, or ahead of the image in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedPoints {
    /// The newest of them, the newest first. A name that was given twice stands here twice; what
    /// asks for it by name gets the newer.
    pub newest: Vec<(PointName, Point)>,
    /// How many there are in all.
    pub count: u64,
}

impl NamedPoints {
    fn add(&mut self, most: usize, (name, point): (PointName, Point)) {
        self.count += 1;
        if self.newest.len() < most {
            self.newest.push((name, point));
        }
    }
}

impl Door {
    /// All of them, of which at most `most` are listed. Reads the heads of all records.
    ///
    /// # Errors
    /// [`Unresolved::Io`]
    pub fn named_points<E: Engine>(
        &self,
        engine: &mut E,
        most: usize,
    ) -> Result<NamedPoints, Unresolved> {
        let (reach, segments) = {
            let book = self.shelf.book();
            (book.reach(), book.segments.clone())
        };
        let mut names = NamedPoints { newest: Vec::new(), count: 0 };
        let (mut ahead, mut older) = (VecDeque::new(), 0);
        let mut visit = |frame: &Frame, point: Point| {
            let of = frame.records().filter_map(|record| match record {
                Record::Point { name } => Some((name, point)),
                _ => None,
            });
            ahead.extend(of);
            while ahead.len() > most {
                ahead.pop_front();
                older += 1;
            }
            true
        };
        self.visit_ahead(engine, reach.newest, &mut visit);
        ahead.into_iter().rev().for_each(|named| names.add(most, named));
        names.count += older;
        for segment in segments.into_iter().rev() {
            let number = segment.number;
            match self.names_in(engine, segment) {
                Ok(found) => found.into_iter().rev().for_each(|named| names.add(most, named)),
                // What is removed meanwhile was the oldest, and is no longer kept.
                Err(_) if !self.shelf.book().segments.iter().any(|kept| kept.number == number) => {
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(names)
    }

    /// The names in one segment, in order: at most one for each of its pages.
    fn names_in<E: Engine>(
        &self,
        engine: &mut E,
        segment: Segment,
    ) -> std::io::Result<Vec<(PointName, Point)>> {
        let tasks = Tasks::new(TokenSpace::new(1));
        let (io, door) = (tasks.io(), self.clone());
        let scan = async move {
            let mut found = Vec::new();
            each_record(io, door, segment, &mut |record| {
                if let Some(name) = record.name.clone().filter(|_| record.is_last) {
                    found.push((name, record.to));
                }
            })
            .await?;
            Ok(found)
        };
        tasks.run(Task::new(scan), engine).flatten()
    }
}
