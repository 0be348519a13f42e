//! The commands by which requests are fetched and answered, in a ring of their own.
#![allow(unsafe_code, reason = "commands go to the kernel by a ring")]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use io_uring::{opcode, squeue, types};
use libublk::sys;
use tokio::io::unix::AsyncFd;

use crate::ring::{Ring, WorkIs};

/// Commands that are handed to the kernel together, at most. Its queue of results must not be
/// shorter, however few slots there are: one queue alone has fewer.
const BATCH: u32 = 256;

/// The place of a request: it is this request's from when it comes until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) queue: u16,
    pub(super) tag: u16,
}

impl Slot {
    pub(super) const fn number(self) -> u64 {
        (self.queue as u64) << 16 | self.tag as u64
    }

    pub(super) const fn of(number: u64) -> Self {
        Self { queue: (number >> 16 & 0xFFFF) as u16, tag: (number & 0xFFFF) as u16 }
    }

    /// Where the payload of its request is in the device, as a file.
    pub(super) const fn payload_at(self, from: usize) -> u64 {
        sys::UBLKSRV_IO_BUF_OFFSET as u64
            + ((self.queue as u64) << sys::UBLK_QID_OFF
                | (self.tag as u64) << sys::UBLK_TAG_OFF
                | from as u64)
    }
}

/// What came of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// A request.
    Request(Slot),
    /// The device is being taken away: nothing more comes to this slot.
    Gone,
    /// The kernel does not take the command, with its number for why.
    Refused(i32),
}

/// The ring. The kernel holds one command for each slot that waits for a request.
pub(super) struct Commands {
    ring: Ring,
    device: RawFd,
}

impl Commands {
    /// A ring for commands to the device, which must stay open as long; never more than `slots` of
    /// them are under way.
    ///
    /// # Errors
    /// As the system says.
    pub(super) fn new(device: &OwnedFd, slots: u32) -> io::Result<Self> {
        let ring = Ring::new(BATCH, Some(slots.max(BATCH)), WorkIs::Urgent)?;
        Ok(Self { ring, device: device.as_raw_fd() })
    }

    /// Waits for the first request of a slot.
    pub(super) fn fetch(&mut self, slot: Slot) -> io::Result<()> {
        self.push(slot, sys::UBLK_U_IO_FETCH_REQ, -1)
    }

    /// Answers the request of a slot and waits for the next.
    pub(super) fn commit(&mut self, slot: Slot, result: i32) -> io::Result<()> {
        self.push(slot, sys::UBLK_U_IO_COMMIT_AND_FETCH_REQ, result)
    }

    fn push(&mut self, slot: Slot, command: u32, result: i32) -> io::Result<()> {
        let mut body = [0; 16];
        // `struct ublksrv_io_cmd`; no address, because payloads are copied by this program.
        body[..2].copy_from_slice(&slot.queue.to_ne_bytes());
        body[2..4].copy_from_slice(&slot.tag.to_ne_bytes());
        body[4..8].copy_from_slice(&result.to_ne_bytes());
        let entry = opcode::UringCmd16::new(types::Fd(self.device), command).cmd(body).build();
        let entry = entry.user_data(slot.number());
        if !self.try_push(&entry) {
            self.enter()?;
            if !self.try_push(&entry) {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
        }
        Ok(())
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the entry carries its command and points to nothing.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Gives the kernel what was pushed.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        while !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// What has come since, without waiting.
    pub(super) fn next(&mut self) -> Option<Came> {
        let done = self.ring.completion().next()?;
        Some(match done.result() {
            0.. => Came::Request(Slot::of(done.user_data())),
            sys::UBLK_IO_RES_ABORT => Came::Gone,
            errno => Came::Refused(-errno),
        })
    }

    /// Is readable when something has come.
    pub(super) fn ready(&self) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: the copy is owned by the registration and by nobody else.
        Ok(unsafe { AsyncFd::register(self.ring.bell()?) }?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_made_for_few_slots_and_for_many() {
        // Any file will do: nothing is asked of it.
        let device = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        for slots in [1, 128, 512, 2048] {
            Commands::new(&device, slots).unwrap();
        }
    }

    #[test]
    fn a_slot_is_known_again_by_its_number() {
        for slot in [Slot { queue: 0, tag: 0 }, Slot { queue: 3, tag: 4095 }] {
            assert_eq!(Slot::of(slot.number()), slot);
        }
    }

    #[test]
    fn payloads_of_different_slots_do_not_overlap() {
        let (first, last) = (Slot { queue: 0, tag: 0 }, Slot { queue: 0, tag: 1 });
        assert!(first.payload_at((1 << 20) - 1) < last.payload_at(0));
        let next = Slot { queue: 1, tag: 0 };
        assert!(Slot { queue: 0, tag: 4095 }.payload_at(1 << 20) < next.payload_at(0));
    }
}
