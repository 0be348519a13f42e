//! What clients ask for: changes are gathered into frames, answers wait for their positions.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hadrian_blockdev::buffer::IoBuf;
use hadrian_blockdev::export::{
    Backend, EXTENT_COUNT_MAX, ExportInfo, Extent, Piece, Reply, Request, RequestError, WriteData,
};
use hadrian_blockdev::volume::ReadDone;
use hadrian_protocol::frame::{Draft, DraftFull};
use hadrian_protocol::ids::{Lsn, VolumeIndex};
use hadrian_protocol::node::Answers;
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::time::Now;

use super::points::Points;
use super::reading::Reading;
use super::resource::{Inner, Shared};

/// Most log space that is kept free for frames of the node itself; a small log keeps a 64th.
const LOG_MARGIN_MAX: u64 = 8 << 20;
/// Body of the first draft; it grows with what clients send together.
const DRAFT_LEN: usize = 4096;
const DRAFT_LEN_MAX: usize = 256 << 10;

/// Requests under way.
#[derive(Default)]
pub(super) struct Clients {
    draft: Option<Draft<IoBuf>>,
    draft_len: usize,
    waiting: Vec<Waiting>,
    writes: VecDeque<(Lsn, Reply)>,
    commits: VecDeque<(Lsn, Reply)>,
    reads: Reading<Reply>,
    /// Reads that were done too late to be answered under this member's lease.
    held_reads: Vec<(Reply, ReadDone)>,
    late: VecDeque<Late>,
    pub(super) points: Points,
    wakers: Vec<Waker>,
}

/// A request whose frame is not sealed yet.
struct Waiting {
    reply: Reply,
    commit: bool,
}

/// A request that came while the resource takes none, or has no room.
struct Late {
    volume: VolumeIndex,
    change: Change,
    commit: bool,
    reply: Reply,
}

/// A change as it waits, or a question that came when this member may not answer.
enum Change {
    Small(u64, Vec<u8>),
    Large(u64, VecDeque<Piece>),
    Zero(u64, u64),
    Trim(u64, u64),
    Status(u64, u64),
}

/// Adds a record without payload to a frame.
type AddRecord = fn(&mut Draft<IoBuf>, VolumeIndex, ByteRange) -> Result<(), DraftFull>;

impl Change {
    /// Payload of the next frame that it needs: a large one is taken piece by piece, because all
    /// of it may be more than the log ever has free.
    fn next_len(&self) -> u64 {
        match self {
            Self::Small(_, bytes) => bytes.len() as u64,
            Self::Large(_, pieces) => pieces.front().map_or(0, |piece| piece.len as u64),
            Self::Zero(..) | Self::Trim(..) | Self::Status(..) => 0,
        }
    }
}

impl Clients {
    /// The next reply whose position has been reached.
    fn next_due(&mut self, answers: Answers) -> Option<Reply> {
        let write = self.writes.pop_front_if(|(end, _)| *end <= answers.writes);
        let due = write.or_else(|| self.commits.pop_front_if(|(end, _)| *end <= answers.flushes));
        due.map(|(_, reply)| reply)
    }
}

/// One volume as the NBD server sees it.
pub(super) struct VolumeBackend {
    pub(super) resource: Rc<Shared>,
    pub(super) volume: VolumeIndex,
    pub(super) info: ExportInfo,
}

impl Backend for VolumeBackend {
    fn info(&self) -> ExportInfo {
        self.info.clone()
    }

    fn submit(&self, request: Request<'_>, reply: Reply) {
        let mut inner = self.resource.inner.borrow_mut();
        if inner.serving {
            let reply = match inner.replica.is_source() {
                true => reply.asked_at(self.resource.when_asked(inner.clock().now)),
                false => reply,
            };
            inner.request(self.volume, request, reply);
            self.resource.wake.notify_one();
        } else {
            reply.done(Err(RequestError::Shutdown));
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.resource.inner.borrow_mut();
        if inner.takes_requests() {
            return Poll::Ready(());
        }
        inner.clients.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}

impl Inner {
    fn takes_requests(&self) -> bool {
        !self.holding && self.clients.late.is_empty() && !self.is_full()
    }

    /// Whether clients are held back until more of the log is applied.
    pub(super) fn is_full(&self) -> bool {
        self.replica.log_room() <= 4 * self.log_margin()
            || self.replica.unapplied_bytes() >= self.share.unapplied()
            || self.replica.is_slowed()
    }

    fn log_margin(&self) -> u64 {
        LOG_MARGIN_MAX.min(self.replica.log_capacity() / 64)
    }

    /// Whether a change whose next frame has `len` bytes of payload can be taken now.
    pub(super) fn has_room(&self, len: u64) -> bool {
        !self.holding && self.replica.log_room() > self.log_margin() + len
    }

    fn request(&mut self, volume: VolumeIndex, request: Request<'_>, reply: Reply) {
        match request {
            Request::Read { offset, len } => self.read(volume, offset, u64::from(len), reply),
            Request::Flush => self.flush(reply),
            Request::Cache { .. } => reply.done(Ok(())),
            Request::BlockStatus { offset, len, .. } => self.status(volume, offset, len, reply),
            Request::Write { offset, data: WriteData::Lent(bytes), fua }
                if self.clients.late.is_empty() && self.has_room(bytes.len() as u64) =>
            {
                self.small(volume, offset, bytes, fua, reply);
            }
            Request::Write { offset, data: WriteData::Lent(bytes), fua } => {
                let change = Change::Small(offset, bytes.to_vec());
                self.change(Late { volume, change, commit: fua, reply });
            }
            Request::Write { offset, data: WriteData::Owned(pieces), fua } => {
                let change = Change::Large(offset, pieces.into());
                self.change(Late { volume, change, commit: fua, reply });
            }
            Request::Trim { offset, len, fua } => {
                let change = Change::Trim(offset, len);
                self.change(Late { volume, change, commit: fua, reply });
            }
            Request::WriteZeroes { offset, len, fua, no_hole, .. } => {
                let change =
                    if no_hole { Change::Zero(offset, len) } else { Change::Trim(offset, len) };
                self.change(Late { volume, change, commit: fua, reply });
            }
        }
    }

    pub(super) fn read(&mut self, volume: VolumeIndex, offset: u64, len: u64, reply: Reply) {
        let Ok(range) = ByteRange::new(offset, len) else {
            return reply.done(Err(RequestError::Invalid));
        };
        // What is in the open frame is not in the overlay yet.
        self.seal_draft();
        self.run_node();
        let id = self.clients.reads.begin(reply);
        self.replica.read(id, volume, range);
    }

    /// A read is done. Nothing is shown once the right to serve has ended: another member may have
    /// answered newer writes by then. It is answered when this member has a lease again, in which
    /// the record names it still: then nobody has.
    pub(super) fn read_done(&mut self, now: Now, done: ReadDone) {
        let Some(reply) = self.clients.reads.end(done.id) else { return };
        match self.node.is_gate_shut_at(now) {
            true => self.clients.held_reads.push((reply, done)),
            false => {
                let asked = reply.when_asked();
                self.answer_read(reply, done);
                self.waited(now, asked);
            }
        }
    }

    /// A client was answered; what it had to wait for that a resync goes by.
    fn waited(&mut self, now: Now, asked: Option<Now>) {
        if let Some(asked) = asked {
            self.replica.client_waited(now, now.since(asked));
        }
    }

    fn answer_read(&self, reply: Reply, done: ReadDone) {
        match done.result {
            Ok(parts) => reply.data(parts),
            Err(error) => {
                tracing::error!(resource = %self.name, %error, "a read failed");
                reply.done(Err(RequestError::from(&error)));
            }
        }
    }

    /// Tells whoever pets the watchdog until when clients may be answered.
    pub(super) fn expose(&self) {
        let Some(marks) = &self.marks else { return };
        // Behind a gate that is shut nothing is answered, whatever clients still wait for.
        let serves = self.serving && !self.node.is_gate_shut();
        marks.expose(serves.then(|| self.node.lease_end().unwrap_or_default()));
    }

    fn status(&mut self, volume: VolumeIndex, offset: u64, len: u64, reply: Reply) {
        let Ok(range) = ByteRange::new(offset, len) else {
            return reply.done(Err(RequestError::Invalid));
        };
        self.seal_draft();
        self.run_node();
        // Whoever stood still past its lease learns that only now, and what it would show is of the
        // past.
        if self.holding {
            let change = Change::Status(offset, len);
            return self.clients.late.push_back(Late { volume, change, commit: false, reply });
        }
        let regions = self.replica.regions(volume, range, EXTENT_COUNT_MAX);
        let extent = |region: hadrian_blockdev::volume::Region| Extent {
            len: region.len,
            hole: region.hole,
            zero: region.zero,
        };
        reply.status(regions.into_iter().map(extent).collect());
    }

    /// A flush waits until everything that was answered before it is where the mode wants it.
    fn flush(&mut self, reply: Reply) {
        if self.clients.draft.is_some() {
            self.clients.waiting.push(Waiting { reply, commit: true });
        } else {
            let end = self.log_end();
            self.commit_at(end, reply);
        }
    }

    fn change(&mut self, late: Late) {
        self.clients.late.push_back(late);
        self.take_late();
    }

    /// Takes up what had to wait, in order, as far as there is room.
    pub(super) fn take_late(&mut self) {
        while let Some(late) = self.clients.late.front() {
            if !self.has_room(late.change.next_len()) {
                return;
            }
            if let Some(late) = self.clients.late.pop_front() {
                self.take(late);
            }
        }
    }

    fn take(&mut self, mut late: Late) {
        let nothing = Change::Zero(0, 0);
        match std::mem::replace(&mut late.change, nothing) {
            Change::Large(offset, pieces) => self.large(late, offset, pieces),
            Change::Small(offset, bytes) => {
                self.small(late.volume, offset, &bytes, late.commit, late.reply);
            }
            Change::Zero(offset, len) => self.mark(late, offset, len, Draft::zero),
            Change::Trim(offset, len) => self.mark(late, offset, len, Draft::trim),
            Change::Status(offset, len) => self.status(late.volume, offset, len, late.reply),
        }
    }

    fn small(
        &mut self,
        volume: VolumeIndex,
        offset: u64,
        bytes: &[u8],
        commit: bool,
        reply: Reply,
    ) {
        let Ok(range) = ByteRange::new(offset, bytes.len() as u64) else {
            return reply.done(Err(RequestError::Invalid));
        };
        if self.clients.draft.as_ref().is_some_and(|draft| !draft.has_room(bytes.len())) {
            self.clients.draft_len = (self.clients.draft_len * 2).min(DRAFT_LEN_MAX);
            self.seal_draft();
        }
        let added = self.draft(bytes.len()).write(volume, range, bytes);
        assert!(added.is_ok(), "a fresh frame has room for a small write");
        self.clients.waiting.push(Waiting { reply, commit });
    }

    /// Write-zeroes and trim are records without payload.
    fn mark(&mut self, late: Late, offset: u64, len: u64, add: AddRecord) {
        let Late { volume, commit, reply, .. } = late;
        let Ok(range) = ByteRange::new(offset, len) else {
            return reply.done(Err(RequestError::Invalid));
        };
        if add(self.draft(0), volume, range).is_err() {
            self.seal_draft();
            let added = add(self.draft(0), volume, range);
            assert!(added.is_ok(), "a fresh frame has room for one record");
        }
        self.clients.waiting.push(Waiting { reply, commit });
    }

    /// Each piece of a large payload is a frame of its own, in the memory that it came in. The
    /// rest waits at the front of the line; the last piece brings the answer.
    fn large(&mut self, mut late: Late, offset: u64, mut pieces: VecDeque<Piece>) {
        self.seal_draft();
        let Some(Piece { buf, len }) = pieces.pop_front() else {
            return late.reply.done(Err(RequestError::Invalid));
        };
        let Ok(range) = ByteRange::new(offset, len as u64) else {
            return late.reply.done(Err(RequestError::Invalid));
        };
        let mut draft = Draft::new(buf);
        let added = draft.write_in_place(late.volume, range, len);
        assert!(added.is_ok(), "a piece fits the buffer that it came in");
        let Some(end) = self.append(draft) else {
            return late.reply.done(Err(RequestError::Shutdown));
        };
        // The log's room is known only when the frame is in the log.
        self.run_node();
        if !pieces.is_empty() {
            late.change = Change::Large(range.end(), pieces);
            return self.clients.late.push_front(late);
        }
        if late.commit {
            self.commit_at(end, late.reply);
        } else {
            self.clients.writes.push_back((end, late.reply));
        }
    }

    fn draft(&mut self, len: usize) -> &mut Draft<IoBuf> {
        let clients = &mut self.clients;
        let body = clients.draft_len.max(DRAFT_LEN).max(len);
        clients.draft.get_or_insert_with(|| Draft::new(IoBuf::for_body(body)))
    }

    /// Closes the open frame and sends it on its way.
    pub(super) fn seal_draft(&mut self) {
        let Some(draft) = self.clients.draft.take() else { return };
        // The next frame is about as long as this one.
        let used = draft.body_len().next_power_of_two();
        if used < self.clients.draft_len / 2 {
            self.clients.draft_len /= 2;
        }
        let end = self.append(draft);
        for Waiting { reply, commit } in std::mem::take(&mut self.clients.waiting) {
            match end {
                Some(end) if commit => self.commit_at(end, reply),
                Some(end) => self.clients.writes.push_back((end, reply)),
                None => reply.done(Err(RequestError::Shutdown)),
            }
        }
        self.clients.draft_len = self.clients.draft_len.max(DRAFT_LEN);
    }

    fn commit_at(&mut self, end: Lsn, reply: Reply) {
        self.want_durable(end);
        self.clients.commits.push_back((end, reply));
    }

    /// Answers everything whose position has been reached.
    pub(super) fn answer(&mut self) {
        let answers = self.node.answers();
        while let Some(reply) = self.clients.next_due(answers) {
            let asked = reply.when_asked();
            reply.done(Ok(()));
            if asked.is_some() {
                let now = self.clock().now;
                self.waited(now, asked);
            }
        }
        self.tell_points(answers.flushes);
        if !self.clients.held_reads.is_empty() && !self.node.is_gate_shut() {
            let held = std::mem::take(&mut self.clients.held_reads);
            held.into_iter().for_each(|(reply, done)| self.answer_read(reply, done));
        }
        if !self.clients.wakers.is_empty() && self.takes_requests() {
            self.clients.wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// The resource serves nobody any more: what is unanswered stays so.
    pub(super) fn drop_clients(&mut self) {
        let mut reads = std::mem::take(&mut self.clients.reads);
        reads.drop_all();
        self.clients = Clients { reads, ..Clients::default() };
    }
}
