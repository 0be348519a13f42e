//! Copies that are carried by hand: of one position of a history, whoever imports them, and when.

use hadrian_protocol::frame::LogPosition;
use hadrian_protocol::ids::MemberId;

use super::{Oracle, Witness};

impl Oracle {
    /// A member has written its image into a file, as of `at`. Nobody can take back what it had
    /// applied; but its branch of the history may be one that is left later.
    pub(crate) fn exported(&mut self, member: MemberId, at: LogPosition, image: &[u8]) {
        let witness = self.see(member);
        let (known, reached) = (witness.path.holds(at), at.lsn <= witness.applied);
        let mut path = witness.path.clone();
        let differs = self.ledger.differs(&path, at.lsn, image);
        self.demand(known && reached, "§8.1", || {
            format!("{member} exports its image as of {at:?}, which it has not applied")
        });
        self.demand(differs.is_none() || self.rot.is_on(member), "§8.1", || {
            format!("{member} has exported {}, but block {differs:?} of it differs", at.lsn)
        });
        path.cut(at);
        self.exported.push(path);
    }

    /// A replica was made of the file as of `at`. It has nothing but that.
    pub(crate) fn imported(&mut self, member: MemberId, at: LogPosition) {
        let Some(path) = self.exported.iter().find(|path| path.end == at).cloned() else {
            return self.broken("§8.1", format!("{member} is made of {at:?}, never exported"));
        };
        let (written, durable, applied, released) = (at.lsn, at.lsn, at.lsn, at.lsn);
        self.replace(
            member,
            Witness { path, written, durable, applied, released, ..Witness::default() },
        );
    }
}
