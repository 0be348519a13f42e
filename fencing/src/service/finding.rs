//! Before the rules begin: which resource has which place, by a majority of the markers.

use std::time::Duration;

use hadrian_protocol::ids::ResourceId;
use hadrian_protocol::marks::header::{Header, Label};
use hadrian_protocol::marks::layout::Place;
use hadrian_protocol::time::Now;

use super::worker::Outcome;

/// Pause before a marker that could not be read is looked at again.
const AGAIN: Duration = Duration::from_secs(1);

/// Resources with their places.
pub(super) type Places = Vec<(ResourceId, Option<Place>)>;

type Look = (Header, Vec<(Place, Label)>);

#[derive(Debug)]
struct Marker {
    next_at: Option<Now>,
    look: Option<Result<Look, String>>,
}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Finding {
    markers: Vec<Marker>,
}

impl Finding {
    pub(super) fn new(markers: usize) -> Self {
        let fresh = || Marker { next_at: Some(Now::default()), look: None };
        Self { markers: std::iter::repeat_with(fresh).take(markers).collect() }
    }

    /// Markers that are to be looked at now; none twice before it has answered.
    pub(super) fn due(&mut self, now: Now) -> Vec<usize> {
        let due = self
            .markers
            .iter_mut()
            .enumerate()
            .filter(|(_, marker)| marker.next_at.is_some_and(|at| at <= now));
        let due = due.map(|(index, marker)| {
            marker.next_at = None;
            index
        });
        due.collect()
    }

    pub(super) fn saw(&mut self, index: usize, outcome: Outcome, now: Now) {
        let (Some(marker), Outcome::Places(look)) = (self.markers.get_mut(index), outcome) else {
            return;
        };
        // One that is no marker may become one.
        marker.next_at = look.is_err().then(|| now.after(AGAIN));
        marker.look = Some(look);
    }

    /// The place of each resource that has one, once a majority of the markers agrees.
    pub(super) fn places(&self, resources: &[ResourceId]) -> Option<Places> {
        let looks: Vec<_> = self.good().collect();
        let (first, _) = looks.first()?;
        let agree = looks.iter().filter(|(header, _)| header.set == first.set).count();
        if agree <= self.markers.len() / 2 || usize::from(first.markers) != self.markers.len() {
            return None;
        }
        let place_of = |resource: &ResourceId| {
            let labels = looks.iter().flat_map(|(_, places)| places);
            let found = labels.filter(|(_, label)| label.resource == *resource);
            found.map(|(place, _)| *place).next()
        };
        let places = resources.iter().map(|resource| {
            let place = place_of(resource);
            if place.is_none() {
                tracing::error!(
                    %resource,
                    "has no place on the markers; run hadrian mark format and start hadriand again"
                );
            }
            (*resource, place)
        });
        Some(places.collect())
    }

    /// Why there is nothing yet.
    pub(super) fn trouble(&self) -> String {
        let sets: std::collections::BTreeSet<_> =
            self.good().map(|(header, _)| header.set).collect();
        let failed = self.markers.iter().find_map(|marker| match &marker.look {
            Some(Err(why)) => Some(why.clone()),
            _ => None,
        });
        let counted = self.good().map(|(header, _)| header.markers).next();
        match (failed, counted) {
            (Some(why), _) => why,
            _ if sets.len() > 1 => "the markers were not made together; make them anew".into(),
            (None, Some(count)) if usize::from(count) != self.markers.len() => format!(
                "the markers were made as {count}, and the configuration names {}",
                self.markers.len()
            ),
            _ => "waits until a majority of the markers can be read".into(),
        }
    }

    fn good(&self) -> impl Iterator<Item = &Look> {
        self.markers.iter().filter_map(|marker| marker.look.as_ref()?.as_ref().ok())
    }
}
