//! The blocks that make a marker of a blank device, in the order in which they are written.

use super::block::Block;
use super::control::ControlBlock;
use super::header::{Header, Label};
use super::layout::{BlockIndex, CONTROL_COPIES, LEASE_COPIES, Place};
use super::lease::{Lease, LeaseBlock};
use crate::ids::{ClusterId, Incarnation, MemberId};

/// A whole marker without resources. Only the last block makes it one: a making that was
/// interrupted left none.
#[must_use]
pub fn marker(cluster: ClusterId, header: &Header) -> Vec<(BlockIndex, Block)> {
    let members = (0..header.members).filter_map(MemberId::new);
    let leases = members.flat_map(|member| {
        let copies = 0..LEASE_COPIES;
        copies.map(move |sequence| {
            let (incarnation, lease) = (Incarnation::default(), Lease::blank());
            let block = LeaseBlock { member, sequence, incarnation, nonce: 0, lease };
            (block.index(), block.seal(cluster))
        })
    });
    let [first, second] = BlockIndex::HEADERS;
    let headers = [second, first].map(|index| (index, header.seal(cluster, index)));
    leases.chain(headers).collect()
}

/// A place for a resource on a marker. Only the last block names it.
#[must_use]
pub fn place(
    cluster: ClusterId,
    (place, label): (Place, &Label),
    members: u8,
) -> Vec<(BlockIndex, Block)> {
    let members = (0..members).filter_map(MemberId::new);
    let controls = members.flat_map(|member| {
        let copies = 0..CONTROL_COPIES;
        copies.map(move |sequence| {
            let blank = ControlBlock::blank(label.resource, member);
            let block = ControlBlock { sequence, ..blank };
            (block.index(place), block.seal(cluster, place))
        })
    });
    controls.chain([(place.label(), label.seal(cluster, place))]).collect()
}
