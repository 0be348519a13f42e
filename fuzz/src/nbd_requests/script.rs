//! A client's behaviour, read from the input.

use arbitrary::{Result, Unstructured};
use hadrian_blockdev::nbd::proto::{RequestHeader, command, command_flag};
use hadrian_blockdev::nbd::{Headers, Limits, SKIP_LEN_MAX};

use super::backend::{CONTENT_LEN, content};

const REQUESTS_MAX: usize = 40;
/// Most bytes that the client really sends behind a header; where it announced more it leaves.
const PAYLOAD_MAX: u64 = CONTENT_LEN as u64 + 4096;

/// One request as it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) header: RequestHeader,
}

/// Everything that a run decides before it begins.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) headers: Headers,
    pub(super) allocation: bool,
    pub(super) read_only: bool,
    pub(super) fast_zero: bool,
    pub(super) block_size: u32,
    pub(super) size_bytes: u64,
    pub(super) limits: Limits,
    /// Bytes that the socket takes before somebody must read.
    pub(super) socket_len: usize,
    /// Requests that the backend takes before it holds back.
    pub(super) depth: usize,
    /// Decides the order in which the backend answers.
    pub(super) order: u64,
    pub(super) asked: Vec<Asked>,
    /// The request whose payload is not all there; an answer would be an error.
    pub(super) abandoned: Option<Asked>,
    /// All that the client sends behind the negotiation.
    pub(super) stream: Vec<u8>,
    /// Whether the connection must end in an error.
    pub(super) ends_in_error: bool,
}

impl Script {
    pub(super) fn read(bytes: &mut Unstructured<'_>) -> Result<Self> {
        let headers = [Headers::Simple, Headers::Structured, Headers::Extended];
        let headers = *bytes.choose(&headers)?;
        let limits = Limits {
            in_flight_count: bytes.int_in_range(1..=8)?,
            in_flight_bytes: 1 << bytes.int_in_range(12..=20)?,
            ..Limits::default()
        };
        let mut script = Self {
            headers,
            allocation: headers != Headers::Simple && bytes.arbitrary()?,
            read_only: bytes.ratio(1, 8)?,
            fast_zero: bytes.arbitrary()?,
            block_size: *bytes.choose(&[512, 1, 4096])?,
            size_bytes: CONTENT_LEN as u64 - u64::from(bytes.arbitrary::<u8>()?) * 512,
            limits,
            socket_len: 1 << bytes.int_in_range(8..=16)?,
            depth: bytes.int_in_range(1..=8)?,
            order: bytes.arbitrary()?,
            asked: Vec::new(),
            abandoned: None,
            stream: Vec::with_capacity(4096),
            ends_in_error: false,
        };
        while script.asked.len() < REQUESTS_MAX && script.request(bytes)? {}
        Ok(script)
    }

    /// Whether the client leaves without a goodbye, in the middle of a payload.
    pub(super) fn hangs_up(&self) -> bool {
        self.abandoned.is_some()
    }

    /// A last request, to be sent by a client that does not hang up; a second one does no harm.
    pub(super) fn goodbye(&self) -> Vec<u8> {
        let header =
            RequestHeader { flags: 0, command: command::DISC, cookie: 0, offset: 0, len: 0 };
        header.encode(self.headers).as_bytes().to_vec()
    }

    /// Adds a request; whether another one can follow.
    fn request(&mut self, bytes: &mut Unstructured<'_>) -> Result<bool> {
        if bytes.is_empty() {
            return Ok(false);
        }
        if bytes.ratio(1, 32)? {
            return self.lose_step(bytes);
        }
        let header = self.header(bytes)?;
        self.stream.extend(header.encode(self.headers).as_bytes());
        self.asked.push(Asked { header });
        if header.command == command::DISC {
            return Ok(false);
        }
        let payload_len = payload_len(&header, self.headers);
        if payload_len > SKIP_LEN_MAX {
            self.ends_in_error = true;
            return Ok(false);
        }
        let sent = payload_len.min(PAYLOAD_MAX);
        self.stream.extend((0..sent).map(|at| content(header.offset.wrapping_add(at))));
        if sent < payload_len {
            // The client leaves in the middle of a payload.
            self.abandoned = self.asked.pop();
        }
        Ok(sent == payload_len)
    }

    /// Whatever comes is no request, from its first four bytes on.
    fn lose_step(&mut self, bytes: &mut Unstructured<'_>) -> Result<bool> {
        let noise: [u8; 4] = bytes.arbitrary()?;
        let magic = RequestHeader { flags: 0, command: 0, cookie: 0, offset: 0, len: 0 };
        let magic = magic.encode(self.headers);
        self.ends_in_error = !magic.as_bytes().starts_with(&noise);
        if self.ends_in_error {
            self.stream.extend(noise);
        }
        Ok(false)
    }

    fn header(&self, bytes: &mut Unstructured<'_>) -> Result<RequestHeader> {
        let command = u16::from(bytes.arbitrary::<u8>()? % 10);
        let flags = if bytes.ratio(1, 4)? { bytes.arbitrary::<u16>()? & 0x7F } else { 0 };
        let (offset, len) = match (command, bytes.arbitrary::<u8>()?) {
            (command::FLUSH, 0..240) => (0, 0),
            (_, 250..) => (bytes.arbitrary()?, bytes.arbitrary()?),
            (_, 240..) => (self.size_bytes - 512, u64::from(bytes.arbitrary::<u16>()?)),
            (_, blocks) => {
                let block = u64::from(self.block_size.max(512));
                let offset = u64::from(bytes.arbitrary::<u8>()?) * block;
                (offset, (u64::from(blocks) % 100 + 1) * block)
            }
        };
        // A compact header has 32 bits for it.
        let len = if self.headers == Headers::Extended { len } else { len & 0xFFFF_FFFF };
        let extended_write = self.headers == Headers::Extended && command == command::WRITE;
        let flags = flags | if extended_write { command_flag::PAYLOAD_LEN } else { 0 };
        Ok(RequestHeader { flags, command, cookie: self.asked.len() as u64, offset, len })
    }
}

/// Bytes that the client sends behind a header.
fn payload_len(header: &RequestHeader, headers: Headers) -> u64 {
    let flagged = headers == Headers::Extended && header.flags & command_flag::PAYLOAD_LEN != 0;
    if header.command == command::WRITE || flagged { header.len } else { 0 }
}
