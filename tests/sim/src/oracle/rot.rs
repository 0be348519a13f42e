//! Disks that forget what they were given, in silence: what comparisons find of it, and what
//! repairs leave behind (design §8.4).

use hadrian_protocol::divergence::Changed;
use hadrian_protocol::ids::MemberId;

use super::Oracle;

/// Blocks that hold something else than was written to them.
#[derive(Debug, Default)]
pub(super) struct Rot {
    /// Where a comparison is yet to find it, and what such a block holds.
    hidden: Vec<(MemberId, Vec<u8>)>,
    /// What was replaced by repairs.
    replaced: Vec<(MemberId, Vec<u8>)>,
}

impl Rot {
    /// Whether the image of a member may differ from what it should be.
    pub(super) fn is_on(&self, member: MemberId) -> bool {
        self.hidden.iter().any(|(of, _)| *of == member)
    }
}

impl Oracle {
    /// A block on a member's disk is no longer what was written, but this.
    pub(crate) fn rots(&mut self, member: MemberId, holds: Vec<u8>) {
        self.rot.hidden.push((member, holds));
    }

    /// What a comparison has found, which looks at everything at once here. No false report: only
    /// what has rotted differs.
    pub(crate) fn compared(&mut self, member: MemberId, differs: &[Changed], repaired: u64) {
        let sound = self.rot.hidden.is_empty();
        self.demand(differs.is_empty() || !sound, "§8.4", || {
            format!("{member} finds that a standby differs, and it does not: {differs:?}")
        });
        if repaired > 0 {
            self.rot.replaced.append(&mut self.rot.hidden);
        } else if differs.is_empty() {
            // Clients have written over it, or a repair was done that nobody heard of.
            self.rot.hidden.clear();
        }
    }

    /// At the end: what a repair has replaced is in quarantine.
    pub(crate) fn kept(&mut self, member: MemberId, saved: &[Vec<u8>]) {
        let own = self.rot.replaced.iter().filter(|(of, _)| *of == member);
        let holds = |file: &Vec<u8>, block: &[u8]| file.windows(block.len()).any(|at| at == block);
        let lost = own.filter(|(_, block)| !saved.iter().any(|file| holds(file, block))).count();
        self.demand(lost == 0, "§8.4", || {
            format!("{lost} blocks of {member} were replaced, and are not in quarantine")
        });
    }
}
