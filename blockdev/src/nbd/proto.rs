//! The NBD wire format: numbers, request headers and reply headers. No I/O, no state.
//!
//! Everything is big-endian. Decoding never indexes and never panics, whatever the bytes; encoding
//! goes into small fixed arrays, so that a reply needs no allocation. Source of every number: the
//! NBD protocol document (`doc/proto.md` of the reference implementation), including the extended
//! headers with 64-bit lengths.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

/// First eight bytes that a server says: `NBDMAGIC`.
pub const MAGIC_INIT: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`: second word of the greeting, and first word of every option.
pub const MAGIC_OPTION: u64 = 0x4948_4156_454f_5054;
/// First word of every reply to an option.
pub const MAGIC_OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// First word of a request with a compact (32-bit length) header.
pub const MAGIC_REQUEST: u32 = 0x2560_9513;
/// First word of a request with an extended (64-bit length) header.
pub const MAGIC_REQUEST_EXTENDED: u32 = 0x21e4_1c71;
/// First word of a simple reply.
pub const MAGIC_REPLY_SIMPLE: u32 = 0x6744_6698;
/// First word of a structured reply chunk.
pub const MAGIC_REPLY_STRUCTURED: u32 = 0x668e_33ef;
/// First word of a reply chunk with an extended header.
pub const MAGIC_REPLY_EXTENDED: u32 = 0x6e8a_278c;

/// Bytes of the server's greeting.
pub const GREETING_LEN: usize = 18;
/// Bytes of an option's header (magic, option, data length).
pub const OPTION_HEADER_LEN: usize = 16;
/// Bytes of a compact request header.
pub const REQUEST_LEN: usize = 28;
/// Bytes of an extended request header.
pub const REQUEST_LEN_EXTENDED: usize = 32;
/// Longest string of the protocol (export names, descriptions, queries), in bytes.
pub const STRING_LEN_MAX: usize = 4096;
/// Zeroes behind the answer to `EXPORT_NAME`, unless the client asked for none.
pub const EXPORT_NAME_ZEROES: usize = 124;

/// Handshake flags, server to client; the client's flags use the same two bits.
pub mod handshake {
    /// Fixed newstyle: every option but `EXPORT_NAME` is answered by replies.
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    /// No zeroes behind the answer to `EXPORT_NAME`.
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Option numbers of the negotiation.
pub mod option {
    /// Choose an export; cannot be refused except by closing.
    pub const EXPORT_NAME: u32 = 1;
    /// End the negotiation.
    pub const ABORT: u32 = 2;
    /// List the exports.
    pub const LIST: u32 = 3;
    /// Upgrade to TLS.
    pub const STARTTLS: u32 = 5;
    /// Ask for an export's details.
    pub const INFO: u32 = 6;
    /// Ask for an export's details and enter transmission.
    pub const GO: u32 = 7;
    /// Use structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// List metadata contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Choose metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
    /// Use headers with 64-bit lengths (implies structured replies).
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Types of replies to options. Errors have the top bit set.
pub mod option_reply {
    /// Done, nothing more to say.
    pub const ACK: u32 = 1;
    /// One export of a list.
    pub const SERVER: u32 = 2;
    /// One piece of information about an export.
    pub const INFO: u32 = 3;
    /// One metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// Option not known.
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    /// Option known, refused by policy.
    pub const ERR_POLICY: u32 = (1 << 31) + 2;
    /// Option malformed or out of place.
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    /// No such export.
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    /// The server, or this export, is going out of service.
    pub const ERR_SHUTDOWN: u32 = (1 << 31) + 7;
    /// Too much asked.
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
    /// Not possible after extended headers were agreed.
    pub const ERR_EXT_HEADER_REQD: u32 = (1 << 31) + 10;
}

/// Types of information in `INFO` and `GO`.
pub mod info {
    /// Size and transmission flags; always sent.
    pub const EXPORT: u16 = 0;
    /// Canonical name.
    pub const NAME: u16 = 1;
    /// Text for humans.
    pub const DESCRIPTION: u16 = 2;
    /// Minimum, preferred and maximum block size.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: what an export can do.
pub mod transmission {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// No writes.
    pub const READ_ONLY: u16 = 1 << 1;
    /// FLUSH is known.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// FUA is known.
    pub const SEND_FUA: u16 = 1 << 3;
    /// TRIM is known.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// WRITE_ZEROES is known.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// The DF flag of READ is known (structured replies only).
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush on one connection covers what was answered on every other.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// CACHE is known.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// FAST_ZERO is known.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Command numbers of requests.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; the payload follows the header.
    pub const WRITE: u16 = 1;
    /// Orderly end; not answered.
    pub const DISC: u16 = 2;
    /// Make answered writes durable.
    pub const FLUSH: u16 = 3;
    /// Discard a range.
    pub const TRIM: u16 = 4;
    /// Read ahead.
    pub const CACHE: u16 = 5;
    /// Write zeroes without sending them.
    pub const WRITE_ZEROES: u16 = 6;
    /// Ask for the allocation map.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of requests.
pub mod command_flag {
    /// Answer only when durable.
    pub const FUA: u16 = 1 << 0;
    /// WRITE_ZEROES: allocate, do not punch.
    pub const NO_HOLE: u16 = 1 << 1;
    /// READ: one chunk only.
    pub const DF: u16 = 1 << 2;
    /// BLOCK_STATUS: one extent only.
    pub const REQ_ONE: u16 = 1 << 3;
    /// WRITE_ZEROES: fail if not faster than writing.
    pub const FAST_ZERO: u16 = 1 << 4;
    /// Extended headers: the length is that of a payload behind the header.
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Flags and types of structured and extended reply chunks.
pub mod chunk {
    /// Flag: last chunk of the reply.
    pub const DONE: u16 = 1 << 0;
    /// No content; only ends a reply.
    pub const NONE: u16 = 0;
    /// Data at an offset.
    pub const OFFSET_DATA: u16 = 1;
    /// Extents with 32-bit lengths.
    pub const BLOCK_STATUS: u16 = 5;
    /// Extents with 64-bit lengths.
    pub const BLOCK_STATUS_EXT: u16 = 6;
    /// An error number and a text.
    pub const ERROR: u16 = (1 << 15) + 1;
}

/// Name of the one metadata context that is offered.
pub const CONTEXT_ALLOCATION: &str = "base:allocation";
/// Identifier by which [`CONTEXT_ALLOCATION`] is known within a connection.
pub const CONTEXT_ALLOCATION_ID: u32 = 1;
/// Extent flag of `base:allocation`: not allocated.
pub const STATE_HOLE: u32 = 1 << 0;
/// Extent flag of `base:allocation`: reads as zeroes.
pub const STATE_ZERO: u32 = 1 << 1;

/// The three dialects of the transmission phase, as agreed in the negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Headers {
    /// Compact requests, simple replies only.
    #[default]
    Simple,
    /// Compact requests, structured replies.
    Structured,
    /// Extended requests, extended replies.
    Extended,
}

impl Headers {
    /// Bytes of a request header in this dialect.
    #[must_use]
    pub const fn request_len(self) -> usize {
        match self {
            Headers::Simple | Headers::Structured => REQUEST_LEN,
            Headers::Extended => REQUEST_LEN_EXTENDED,
        }
    }
}

/// A request header as the client wrote it; nothing in it has been checked but the magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Bits of [`command_flag`].
    pub flags: u16,
    /// One of [`command`], or anything else.
    pub command: u16,
    /// Chosen by the client, returned in every reply.
    pub cookie: u64,
    /// In bytes.
    pub offset: u64,
    /// In bytes; of the payload or of the effect.
    pub len: u64,
}

/// The stream is not at a request header: it cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client sent {found:#010x} where a request begins with {expected:#010x}")]
pub struct BadMagic {
    /// What was there.
    pub found: u32,
    /// What the agreed dialect asks for.
    pub expected: u32,
}

impl RequestHeader {
    /// Reads a header from the front of `input`; `None` if it is not all there yet.
    ///
    /// # Errors
    /// [`BadMagic`] as soon as four bytes show that this is no request.
    pub fn decode(headers: Headers, input: &[u8]) -> Result<Option<Self>, BadMagic> {
        let mut reader = Reader::new(input);
        let Some(found) = reader.u32() else {
            return Ok(None);
        };
        let expected = request_magic(headers);
        if found != expected {
            return Err(BadMagic { found, expected });
        }
        Ok(Self::decode_fields(headers, &mut reader))
    }

    fn decode_fields(headers: Headers, reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            flags: reader.u16()?,
            command: reader.u16()?,
            cookie: reader.u64()?,
            offset: reader.u64()?,
            len: match headers {
                Headers::Simple | Headers::Structured => u64::from(reader.u32()?),
                Headers::Extended => reader.u64()?,
            },
        })
    }

    /// Writes the header as a client would; the server itself only needs it in tests.
    ///
    /// A length over 32 bits does not fit a compact header and is cut to its maximum.
    #[must_use]
    pub fn encode(&self, headers: Headers) -> Head {
        let mut head = Head::new();
        head.u32(request_magic(headers));
        head.u16(self.flags);
        head.u16(self.command);
        head.u64(self.cookie);
        head.u64(self.offset);
        match headers {
            Headers::Extended => head.u64(self.len),
            _ => head.u32(u32::try_from(self.len).unwrap_or(u32::MAX)),
        }
        head
    }
}

/// Bytes of the longest reply head: extended header, then the offset of a data chunk.
const HEAD_LEN_MAX: usize = 40;

/// The fixed front of a message, built in place: a reply needs no allocation for it.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; HEAD_LEN_MAX],
    len: usize,
}

impl Head {
    const fn new() -> Self {
        Self { bytes: [0; HEAD_LEN_MAX], len: 0 }
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    #[expect(clippy::expect_used, reason = "golden tests hold the layouts to the room")]
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        let room = self.bytes.get_mut(self.len..self.len + N);
        // The layouts below are constants that fit; the golden tests hold them to it.
        room.expect("a head has room for its own fields").copy_from_slice(&field);
        self.len += N;
    }

    fn u16(&mut self, value: u16) {
        self.put(value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(value.to_be_bytes());
    }
}

/// What a reply refers to: the request's cookie and offset (extended headers echo both).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// The dialect of the connection.
    pub headers: Headers,
    /// The request's cookie.
    pub cookie: u64,
    /// The request's offset, in bytes.
    pub offset: u64,
}

impl Echo {
    /// A success without payload.
    #[must_use]
    pub fn ok(self) -> Head {
        match self.headers {
            // Allowed, and four bytes shorter than a structured "none".
            Headers::Simple | Headers::Structured => self.simple(0),
            Headers::Extended => self.chunk(chunk::NONE, 0),
        }
    }

    /// A failure with the given (non-zero) NBD error number.
    #[must_use]
    pub fn error(self, number: u32) -> Head {
        match self.headers {
            Headers::Simple => self.simple(number),
            Headers::Structured | Headers::Extended => {
                let mut head = self.chunk(chunk::ERROR, 6);
                head.u32(number);
                head.u16(0);
                head
            }
        }
    }

    /// The front of the one chunk that carries all `len` bytes of a READ.
    #[must_use]
    pub fn data(self, len: u32) -> Head {
        match self.headers {
            Headers::Simple => self.simple(0),
            Headers::Structured | Headers::Extended => {
                let mut head = self.chunk(chunk::OFFSET_DATA, u64::from(len) + 8);
                head.u64(self.offset);
                head
            }
        }
    }

    /// The front of a block status chunk with `count` descriptors; each follows in
    /// [`Descriptor::encode`]'s layout. Simple replies cannot carry one.
    #[must_use]
    pub fn status(self, count: u32) -> Head {
        let mut head;
        if self.headers == Headers::Extended {
            head = self.chunk(chunk::BLOCK_STATUS_EXT, 8 + 16 * u64::from(count));
            head.u32(CONTEXT_ALLOCATION_ID);
            head.u32(count);
        } else {
            head = self.chunk(chunk::BLOCK_STATUS, 4 + 8 * u64::from(count));
            head.u32(CONTEXT_ALLOCATION_ID);
        }
        head
    }

    fn simple(self, number: u32) -> Head {
        let mut head = Head::new();
        head.u32(MAGIC_REPLY_SIMPLE);
        head.u32(number);
        head.u64(self.cookie);
        head
    }

    fn chunk(self, kind: u16, payload_len: u64) -> Head {
        let extended = self.headers == Headers::Extended;
        let mut head = Head::new();
        head.u32(if extended { MAGIC_REPLY_EXTENDED } else { MAGIC_REPLY_STRUCTURED });
        head.u16(chunk::DONE);
        head.u16(kind);
        head.u64(self.cookie);
        if extended {
            head.u64(self.offset);
            head.u64(payload_len);
        } else {
            // Payloads are bounded far below 4 GiB by the largest request.
            head.u32(u32::try_from(payload_len).unwrap_or(u32::MAX));
        }
        head
    }
}

/// One extent of a block status chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// In bytes, not zero.
    pub len: u64,
    /// Bits [`STATE_HOLE`] and [`STATE_ZERO`].
    pub state: u32,
}

impl Descriptor {
    /// Appends the descriptor; without extended headers a length over 32 bits is the caller's error
    /// and is cut.
    pub fn encode(self, headers: Headers, out: &mut Vec<u8>) {
        if headers == Headers::Extended {
            out.extend(self.len.to_be_bytes());
            out.extend(u64::from(self.state).to_be_bytes());
        } else {
            let len = u32::try_from(self.len).unwrap_or(u32::MAX);
            out.extend(len.to_be_bytes());
            out.extend(self.state.to_be_bytes());
        }
    }
}

/// Takes big-endian fields off the front of a byte slice; every step may find too little.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the front of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// Whether everything was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }
}

const fn request_magic(headers: Headers) -> u32 {
    match headers {
        Headers::Simple | Headers::Structured => MAGIC_REQUEST,
        Headers::Extended => MAGIC_REQUEST_EXTENDED,
    }
}
