//! Reads under way: by which number the disks tell of one, and whose it is.

use slab::Slab;

/// Reads under way in one era of service. The disks may tell of a read after its client was cut
/// off, and after another one has come: the number says of which era it was, so that nobody is
/// given what somebody else has asked for.
#[derive(Debug)]
pub(super) struct Reading<R> {
    era: u32,
    open: Slab<R>,
}

impl<R> Default for Reading<R> {
    fn default() -> Self {
        Self { era: 0, open: Slab::new() }
    }
}

impl<R> Reading<R> {
    /// Takes a read up; the number is its own until it is done.
    pub(super) fn begin(&mut self, reply: R) -> u64 {
        // A read holds memory: there are never so many that the places leave their half.
        (u64::from(self.era) << 32) | self.open.insert(reply) as u64
    }

    /// Whose the read of this number is, if anybody waits for it still.
    pub(super) fn end(&mut self, number: u64) -> Option<R> {
        let (era, place) = (number >> 32, number & u64::from(u32::MAX));
        let place = usize::try_from(place).ok()?;
        (era == u64::from(self.era)).then(|| self.open.try_remove(place)).flatten()
    }

    /// Nobody waits for any of them any more, and another era begins.
    pub(super) fn drop_all(&mut self) {
        self.era = self.era.wrapping_add(1);
        self.open = Slab::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_of_a_client_that_was_cut_off_is_nobodys() {
        let mut reading = Reading::default();
        let before = reading.begin("before");
        reading.drop_all();
        let after = reading.begin("after");
        assert_ne!(before, after);
        assert_eq!(reading.end(before), None);
        assert_eq!(reading.end(after), Some("after"));
        assert_eq!(reading.end(after), None);
    }
}
