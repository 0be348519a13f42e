//! What a marker is, and which resource has which place on it.

use bytes::BufMut;

use super::block::{Block, Head, Kind, Void, open};
use super::layout::{BlockIndex, PLACES_MAX, Place};
use crate::codec::{CodecError, Put, Reader};
use crate::ids::{ClusterId, Incarnation, MEMBERS_MAX, ResourceId};
use crate::time::WallTime;

/// Most bytes of a name on a marker.
pub const NAME_LEN_MAX: usize = 64;
/// Most markers of a cluster.
pub const MARKERS_MAX: u8 = 3;

/// What both copies of the header say; written by an operator's command alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The same on every marker of one making, drawn at random.
    pub set: [u8; 16],
    /// Which of them this is, from 0 on.
    pub marker: u8,
    /// How many there are: one or three.
    pub markers: u8,
    /// How many members have blocks on it.
    pub members: u8,
    /// How many resources have room on it.
    pub places: u16,
    /// When it was made, for people.
    pub made: WallTime,
    /// The cluster's name, for people.
    pub cluster_name: String,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.put_slice(&self.set);
        out.put_u8(self.marker);
        out.put_u8(self.markers);
        out.put_u8(self.members);
        out.put_u16_le(self.places);
        out.put_u64_le(self.made.as_micros());
        out.put_text(&self.cluster_name);
        out
    }

    fn decode(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let bounded = |field, value: u8, most: u8| {
            let error = CodecError::Value { field, value: u64::from(value) };
            if value <= most { Ok(value) } else { Err(error) }
        };
        let header = Self {
            set: *reader.resource("identity of the set")?.as_bytes(),
            marker: bounded("number of the marker", reader.u8("marker")?, MARKERS_MAX - 1)?,
            markers: bounded("count of markers", reader.u8("markers")?, MARKERS_MAX)?,
            members: bounded("count of members", reader.u8("members")?, MEMBERS_MAX)?,
            places: match reader.u16("places")? {
                places if places <= PLACES_MAX => places,
                places => {
                    let value = u64::from(places);
                    return Err(CodecError::Value { field: "places", value });
                }
            },
            made: WallTime::from_micros(reader.u64("time of making")?),
            cluster_name: reader.text("cluster name", NAME_LEN_MAX)?,
        };
        reader.finish()?;
        Ok(header)
    }

    /// The block for the marker's copy at `index`.
    #[must_use]
    pub fn seal(&self, cluster: ClusterId, index: BlockIndex) -> Block {
        Block::seal(&head(Kind::Header, cluster, 0), index, &self.encode())
    }

    /// What the block at `index` says.
    ///
    /// # Errors
    /// [`Void`]
    pub fn open(bytes: &[u8], cluster: ClusterId, index: BlockIndex) -> Result<Self, Void> {
        let (_, body) = open(bytes, (Kind::Header, cluster, index), None)?;
        Ok(Self::decode(body)?)
    }
}

/// Which resource a place is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// Which.
    pub resource: ResourceId,
    /// Its name, for people.
    pub name: String,
}

impl Label {
    /// The block for `place`.
    #[must_use]
    pub fn seal(&self, cluster: ClusterId, place: Place) -> Block {
        let mut body = Vec::with_capacity(96);
        body.put_slice(self.resource.as_bytes());
        body.put_text(&self.name);
        Block::seal(&head(Kind::Label, cluster, 0), place.label(), &body)
    }

    /// What the block of `place` says.
    ///
    /// # Errors
    /// [`Void`]
    pub fn open(bytes: &[u8], cluster: ClusterId, place: Place) -> Result<Self, Void> {
        let (_, body) = open(bytes, (Kind::Label, cluster, place.label()), None)?;
        let mut reader = Reader::new(body);
        let resource = reader.resource("resource")?;
        let name = reader.text("resource name", NAME_LEN_MAX)?;
        reader.finish()?;
        Ok(Self { resource, name })
    }
}

const fn head(kind: Kind, cluster: ClusterId, sequence: u64) -> Head {
    Head { kind, cluster, member: None, sequence, incarnation: Incarnation::new(0), nonce: 0 }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn full() -> Header {
        Header {
            set: [7; 16],
            marker: 2,
            markers: 3,
            members: 2,
            places: 64,
            made: WallTime::from_micros(1_795_000_000_000_000),
            cluster_name: "orders".into(),
        }
    }

    #[test]
    fn a_header_reads_back_as_it_was_written() {
        let cluster = ClusterId::derive("orders");
        for index in BlockIndex::HEADERS {
            let block = full().seal(cluster, index);
            assert_eq!(Header::open(block.as_bytes(), cluster, index), Ok(full()));
        }
    }

    #[test]
    fn a_label_reads_back_in_its_own_place_only() {
        let cluster = ClusterId::derive("orders");
        let label = Label { resource: ResourceId::derive("orders", "db"), name: "db".into() };
        let [first, second] = [0, 1].map(|index| Place::new(index).unwrap());
        let block = label.seal(cluster, first);
        assert_eq!(Label::open(block.as_bytes(), cluster, first), Ok(label));
        assert!(Label::open(block.as_bytes(), cluster, second).is_err());
    }

    #[test]
    fn a_header_over_a_limit_is_refused() {
        let cluster = ClusterId::derive("orders");
        let [index, _] = BlockIndex::HEADERS;
        let bad = [
            Header { marker: 3, ..full() },
            Header { markers: 4, ..full() },
            Header { members: 9, ..full() },
            Header { places: PLACES_MAX + 1, ..full() },
        ];
        for header in bad {
            let block = header.seal(cluster, index);
            let read = Header::open(block.as_bytes(), cluster, index);
            assert!(matches!(read, Err(Void::Body(_))), "{header:?}");
        }
    }
}
