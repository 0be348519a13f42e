//! Taking apart what was read from one marker: of each member the newest copy that is whole.

use super::block::Void;
use super::control::ControlBlock;
use super::layout::{BLOCK_LEN, BlockIndex, CONTROL_COPIES, LEASE_COPIES, Place, Run};
use super::lease::LeaseBlock;
use crate::ids::{ClusterId, MemberId, ResourceId};

/// A marker that has no whole copy of what some member wrote. What stands there may have been a
/// vote, so the marker is not counted as read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no copy of what {member} wrote is whole; of the last one, {why}")]
pub struct Unread {
    /// Whose.
    pub member: MemberId,
    /// What is wrong with the last copy looked at.
    pub why: Void,
}

/// The newest whole control block of each of the first `members` members, from the bytes of
/// [`Run::controls`].
///
/// # Errors
/// [`Unread`]
pub fn read_controls(
    bytes: &[u8],
    (cluster, resource): (ClusterId, ResourceId),
    (place, members): (Place, u8),
) -> Result<Vec<ControlBlock>, Unread> {
    let open = |block: &[u8], member, index| {
        let block = ControlBlock::open(block, (cluster, resource), member, index)?;
        Ok((block.sequence, block))
    };
    let run = Run::controls(place, members);
    newest(bytes, (run, CONTROL_COPIES), members, open)
}

/// The newest whole lease of each of the first `members` members, from the bytes of
/// [`Run::leases`].
///
/// # Errors
/// [`Unread`]
pub fn read_leases(
    bytes: &[u8],
    cluster: ClusterId,
    members: u8,
) -> Result<Vec<LeaseBlock>, Unread> {
    let open = |block: &[u8], member, index| {
        let block = LeaseBlock::open(block, (cluster, member), index)?;
        Ok((block.sequence, block))
    };
    newest(bytes, (Run::leases(), LEASE_COPIES), members, open)
}

fn newest<T>(
    bytes: &[u8],
    (run, copies): (Run, u64),
    members: u8,
    open: impl Fn(&[u8], MemberId, BlockIndex) -> Result<(u64, T), Void>,
) -> Result<Vec<T>, Unread> {
    let mut blocks = bytes.chunks(BLOCK_LEN).zip(run.blocks());
    let members = (0..members).filter_map(MemberId::new);
    let of_member = |member| {
        let copies = usize::try_from(copies).unwrap_or_default();
        let mut best: Result<(u64, T), Void> = Err(Void::Blank);
        for (block, index) in blocks.by_ref().take(copies) {
            match (open(block, member, index), &best) {
                (Ok(found), Ok(known)) if found.0 <= known.0 => {}
                (Ok(found), _) => best = Ok(found),
                (Err(why), Err(_)) => best = Err(why),
                (Err(_), Ok(_)) => {}
            }
        }
        best.map(|(_, block)| block).map_err(|why| Unread { member, why })
    };
    members.map(of_member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marks::control::tests::full;

    fn names() -> (ClusterId, ResourceId) {
        (ClusterId::derive("orders"), ResourceId::derive("orders", "db"))
    }

    fn place() -> Place {
        Place::new(0).unwrap()
    }

    /// A place with these sequence numbers written by both members.
    fn written(sequences: &[u64]) -> Vec<u8> {
        let run = Run::controls(place(), 2);
        let mut bytes = vec![0; run.len()];
        for member in [0, 1].map(|index| MemberId::new(index).unwrap()) {
            for sequence in sequences {
                let block = ControlBlock { member, sequence: *sequence, ..full(2) };
                let at = (block.index(place()).get() - run.first.get()) as usize * BLOCK_LEN;
                let sealed = block.seal(names().0, place());
                bytes[at..at + BLOCK_LEN].copy_from_slice(sealed.as_bytes());
            }
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<u64>, Unread> {
        let blocks = read_controls(bytes, names(), (place(), 2))?;
        Ok(blocks.into_iter().map(|block| block.sequence).collect())
    }

    #[test]
    fn the_newest_whole_copy_counts_and_an_older_one_where_that_is_torn() {
        let mut bytes = written(&[4, 5, 6]);
        assert_eq!(read(&bytes), Ok(vec![6, 6]));
        bytes[2 * BLOCK_LEN + 100] ^= 1;
        assert_eq!(read(&bytes), Ok(vec![5, 6]), "the first member's newest copy is torn");
    }

    #[test]
    fn a_marker_without_any_whole_copy_of_a_member_is_not_read() {
        let mut bytes = written(&[4]);
        bytes[4 * BLOCK_LEN + 100] ^= 1;
        let error = read(&bytes).unwrap_err();
        assert_eq!(error.member, MemberId::new(1).unwrap());
        assert!(read(&bytes[..5]).is_err(), "nor one that was read in part");
    }
}
