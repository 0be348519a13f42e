//! What stands on a marker, for people and programs.

use hadrian_protocol::ids::ClusterId;
use hadrian_protocol::marks::layout::Run;
use hadrian_protocol::marks::lease::LeaseBlock;
use hadrian_protocol::marks::parts::{read_controls, read_leases};
use hadrian_protocol::record::ControlRecord;
use serde::Serialize;

use crate::making::{MakeError, header_of, places};
use crate::medium::Source;

/// A marker at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Shown {
    /// Where it is.
    pub path: String,
    /// Its number, and how many there are.
    pub marker: u8,
    /// See there.
    pub markers: u8,
    /// How many resources have room.
    pub places: u16,
    /// When it was made, in microseconds since 1970.
    pub made_us: u64,
    /// The members, in the order of the configuration.
    pub members: Vec<ShownMember>,
    /// The resources.
    pub resources: Vec<ShownResource>,
    /// What could not be read.
    pub trouble: Vec<String>,
}

/// A member, by its lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ShownMember {
    /// Its index.
    pub member: u8,
    /// What it is.
    pub state: &'static str,
    /// How often it has renewed.
    pub sequence: u64,
    /// Which life of its daemon.
    pub incarnation: u64,
    /// The host that it runs on.
    pub host: String,
    /// When it wrote that, by its own wall clock, in microseconds since 1970.
    pub wall_us: u64,
    /// When its state last changed.
    pub changed_us: u64,
    /// How long its lease is good for, in milliseconds.
    pub lease_ms: u64,
    /// How long others wait before it is over, in milliseconds.
    pub wait_out_ms: u64,
    /// Members whose leases it sees, as bits.
    pub sees_on_marks: u8,
}

/// A resource, by its control record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ShownResource {
    /// Its name.
    pub name: String,
    /// Its place.
    pub place: u16,
    /// What was decided last; none: nothing yet.
    pub record: Option<ControlRecord>,
    /// A change that may be under way.
    pub undecided: Option<ControlRecord>,
}

/// Reads a marker of `cluster`.
///
/// # Errors
/// [`MakeError`]; what is damaged further on is told in [`Shown::trouble`].
pub fn show(source: &Source, cluster: &str) -> Result<Shown, MakeError> {
    let (mut marker, header) = header_of(source, cluster)?;
    let id = ClusterId::derive(cluster);
    let path = source.to_string();
    let io = |source| MakeError::Io { place: path.clone(), source };
    let mut trouble = Vec::new();
    let bytes = marker.read(Run::leases()).map_err(io)?;
    let members = match read_leases(&bytes, id, header.members) {
        Ok(leases) => leases.iter().map(shown).collect(),
        Err(unread) => {
            trouble.push(unread.to_string());
            Vec::new()
        }
    };
    let mut resources = Vec::new();
    for (place, label) in places(marker.as_mut(), (id, &header)).map_err(io)? {
        let run = Run::controls(place, header.members);
        let bytes = marker.read(run).map_err(io)?;
        let controls = read_controls(&bytes, (id, label.resource), (place, header.members));
        let controls = controls.unwrap_or_else(|unread| {
            trouble.push(format!("{}: {unread}", label.name));
            Vec::new()
        });
        let controls = controls.into_iter().map(|block| block.control);
        let learned = controls.clone().filter_map(|control| control.learned);
        let record = learned.max_by_key(|record| record.number);
        let number = record.as_ref().map_or(0, |record| record.number);
        let open = controls.filter_map(|control| control.accepted);
        let open = open.filter(|accepted| accepted.value.number > number);
        let undecided = open.max_by_key(|accepted| accepted.ballot).map(|open| open.value);
        let (name, place) = (label.name, place.index());
        resources.push(ShownResource { name, place, record, undecided });
    }
    Ok(Shown {
        path,
        marker: header.marker,
        markers: header.markers,
        places: header.places,
        made_us: header.made.as_micros(),
        members,
        resources,
        trouble,
    })
}

fn shown(block: &LeaseBlock) -> ShownMember {
    let lease = &block.lease;
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    ShownMember {
        member: block.member.index(),
        state: lease.state.name(),
        sequence: block.sequence,
        incarnation: block.incarnation.get(),
        host: lease.host.clone(),
        wall_us: lease.wall.as_micros(),
        changed_us: lease.changed.as_micros(),
        lease_ms: ms(lease.timing.lease),
        wait_out_ms: ms(lease.timing.wait_out()),
        sees_on_marks: lease.sees_on_marks,
    }
}
