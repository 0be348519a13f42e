//! A member's part of one resource's control record (design §7): what it has learned to be
//! decided, and how far it is with the next decision. Disk Paxos; the rules are in
//! [`super::proposer`].

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use super::block::{Block, Head, Kind, Void, open};
use super::layout::{BlockIndex, Place};
use crate::codec::{CodecError, Put, Reader};
use crate::frame::Began;
use crate::ids::{ClusterId, Incarnation, MEMBERS_MAX, MemberId, ResourceId};
use crate::record::ControlRecord;
use crate::replica::{get_release, put_release};

/// The number of an attempt to decide; no two attempts ever share one.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Ballot {
    /// Above every one that was seen.
    pub round: u32,
    /// The life that made it.
    pub incarnation: Incarnation,
    /// The member that made it, by its index.
    pub member: u8,
}

/// A value, and the ballot in which it was accepted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// The newest ballot in which its holder stood for it.
    pub ballot: Ballot,
    /// What may be decided by it.
    pub value: ControlRecord,
}

/// What a member says of one control record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Control {
    /// The newest decision that it knows.
    pub learned: Option<ControlRecord>,
    /// The decision that the rest is about: the number that its record will bear.
    pub instance: u64,
    /// The highest ballot of its own in that instance; none: it has not tried.
    pub tried: Option<Ballot>,
    /// What it has accepted in that instance.
    pub accepted: Option<Accepted>,
}

impl Control {
    /// The number of the newest record that it knows to be decided; 0: none.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.learned.as_ref().map_or(0, |record| record.number)
    }

    fn encode(&self, resource: ResourceId) -> Vec<u8> {
        let mut out = Vec::with_capacity(448);
        out.put_slice(resource.as_bytes());
        out.put_option(self.learned.as_ref(), put_record);
        out.put_u64_le(self.instance);
        out.put_option(self.tried, put_ballot);
        out.put_option(self.accepted.as_ref(), |out, accepted| {
            put_ballot(out, accepted.ballot);
            put_record(out, &accepted.value);
        });
        out
    }

    fn decode(body: &[u8], resource: ResourceId) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let found = reader.resource("resource")?;
        if found != resource {
            return Err(CodecError::Value { field: "resource", value: 0 });
        }
        let control = Self {
            learned: reader.option("decided record", get_record)?,
            instance: reader.u64("instance")?,
            tried: reader.option("ballot", get_ballot)?,
            accepted: reader.option("accepted record", |reader| {
                Ok(Accepted { ballot: get_ballot(reader)?, value: get_record(reader)? })
            })?,
        };
        reader.finish()?;
        Ok(control)
    }
}

fn put_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    out.put_u32_le(ballot.round);
    out.put_u64_le(ballot.incarnation.get());
    out.put_u8(ballot.member);
}

fn get_ballot(reader: &mut Reader<'_>) -> Result<Ballot, CodecError> {
    let round = reader.u32("ballot")?;
    Ok(Ballot { round, incarnation: reader.incarnation("ballot")?, member: reader.u8("ballot")? })
}

fn put_record(out: &mut Vec<u8>, record: &ControlRecord) {
    out.put_u64_le(record.number);
    out.put_epoch(record.epoch);
    out.put_u8(record.began.code());
    out.put_incarnate(record.owner);
    out.put_list(&record.in_sync, |out, life| out.put_incarnate(*life));
    out.put_option(record.release, put_release);
}

fn get_record(reader: &mut Reader<'_>) -> Result<ControlRecord, CodecError> {
    let number = reader.u64("record number")?;
    let epoch = reader.epoch("record epoch")?;
    let code = reader.u8("kind of epoch")?;
    let began = Began::from_code(code)
        .ok_or(CodecError::Value { field: "kind of epoch", value: u64::from(code) })?;
    let owner = reader.incarnate("owner")?;
    let limit = usize::from(MEMBERS_MAX);
    let in_sync = reader.list("in-sync set", limit, |reader| reader.incarnate("in-sync set"))?;
    let release = reader.option("release", get_release)?;
    Ok(ControlRecord { number, epoch, began, owner, in_sync, release })
}

/// A member's part of a control record, as it stands on a marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlBlock {
    /// Of which resource.
    pub resource: ResourceId,
    /// Whose part.
    pub member: MemberId,
    /// One more with each write.
    pub sequence: u64,
    /// Which life of that member's daemon.
    pub incarnation: Incarnation,
    /// That life's random number.
    pub nonce: u64,
    /// What it says.
    pub control: Control,
}

impl ControlBlock {
    /// What a place holds before anything was decided there.
    #[must_use]
    pub fn blank(resource: ResourceId, member: MemberId) -> Self {
        let (incarnation, control) = (Incarnation::default(), Control::default());
        Self { resource, member, sequence: 0, incarnation, nonce: 0, control }
    }

    /// Where it is written.
    #[must_use]
    pub fn index(&self, place: Place) -> BlockIndex {
        BlockIndex::control(place, self.member, self.sequence)
    }

    /// The block for the marker.
    #[must_use]
    pub fn seal(&self, cluster: ClusterId, place: Place) -> Block {
        let head = Head {
            kind: Kind::Control,
            cluster,
            member: Some(self.member),
            sequence: self.sequence,
            incarnation: self.incarnation,
            nonce: self.nonce,
        };
        Block::seal(&head, self.index(place), &self.control.encode(self.resource))
    }

    /// What the block at `index` says.
    ///
    /// # Errors
    /// [`Void`]
    pub fn open(
        bytes: &[u8],
        (cluster, resource): (ClusterId, ResourceId),
        member: MemberId,
        index: BlockIndex,
    ) -> Result<Self, Void> {
        let (head, body) = open(bytes, (Kind::Control, cluster, index), Some(member))?;
        let control = Control::decode(body, resource)?;
        let Head { sequence, incarnation, nonce, .. } = head;
        Ok(Self { resource, member, sequence, incarnation, nonce, control })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ids::{Epoch, Incarnate, Lsn};
    use crate::marks::block::BODY_LEN_MAX;
    use crate::replica::Release;

    fn record(number: u64, members: u8) -> ControlRecord {
        let lives = (0..members).filter_map(MemberId::new);
        let lives =
            lives.map(|member| Incarnate { member, incarnation: Incarnation::new(1 << 50) });
        let in_sync: Vec<_> = lives.collect();
        let (owner, epoch) = (in_sync[0], Epoch::new(17));
        let to = MemberId::new(1).unwrap();
        let release = Some(Release { to, epoch: Epoch::new(18), lsn: Lsn::new(8192) });
        ControlRecord { number, epoch, began: Began::Planned, owner, in_sync, release }
    }

    pub(crate) fn full(members: u8) -> ControlBlock {
        let ballot = Ballot { round: 3, incarnation: Incarnation::new(8), member: 1 };
        let control = Control {
            learned: Some(record(4, members)),
            instance: 5,
            tried: Some(Ballot { round: 4, ..ballot }),
            accepted: Some(Accepted { ballot, value: record(5, members) }),
        };
        ControlBlock {
            resource: ResourceId::derive("orders", "db"),
            member: MemberId::new(1).unwrap(),
            sequence: 6,
            incarnation: Incarnation::new(8),
            nonce: 99,
            control,
        }
    }

    #[test]
    fn a_part_reads_back_as_it_was_written_and_one_of_the_largest_cluster_fits() {
        let cluster = ClusterId::derive("orders");
        let place = Place::new(2).unwrap();
        for members in [2, MEMBERS_MAX] {
            let block = full(members);
            assert!(block.control.encode(block.resource).len() <= BODY_LEN_MAX);
            let (sealed, at) = (block.seal(cluster, place), block.index(place));
            let names = (cluster, block.resource);
            let read = ControlBlock::open(sealed.as_bytes(), names, block.member, at);
            assert_eq!(read, Ok(block.clone()));
            let other = (cluster, ResourceId::derive("orders", "log"));
            assert!(ControlBlock::open(sealed.as_bytes(), other, block.member, at).is_err());
        }
    }
}
