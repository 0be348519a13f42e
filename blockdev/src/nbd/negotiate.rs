//! The negotiation (fixed newstyle) as a state machine: bytes in, bytes and a decision out.
//!
//! [`Negotiation::step`] takes at most one message from the front of the input and appends what
//! is to be answered. It does no I/O and knows no time; the connection reads, writes, and keeps
//! the deadline. TLS on the client's side is not offered: `STARTTLS` is refused by policy.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use std::fmt;

use crate::export::ExportInfo;

use super::export::{Export, ExportTable, Found, block_sizes, transmission_flags};
use super::proto::{
    CONTEXT_ALLOCATION, CONTEXT_ALLOCATION_ID, EXPORT_NAME_ZEROES, GREETING_LEN, Headers,
    MAGIC_INIT, MAGIC_OPTION, MAGIC_OPTION_REPLY, OPTION_HEADER_LEN, Reader, STRING_LEN_MAX,
    handshake, info, option, option_reply as rep,
};
use super::request::Agreed;

/// Longest option data that is listened to, in bytes; a client that announces more is
/// disconnected. Two names of the longest kind and many queries fit.
pub const OPTION_DATA_LEN_MAX: usize = 64 << 10;

/// A client that cannot be talked to any further; the connection is closed without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// The first word after the greeting set bits that nobody offered.
    #[error("the client set unknown handshake flags {flags:#010x}")]
    UnknownFlags {
        /// As received.
        flags: u32,
    },
    /// The stream is not at an option.
    #[error("the client sent {found:#018x} where an option begins with IHAVEOPT")]
    BadMagic {
        /// As received.
        found: u64,
    },
    /// Over [`OPTION_DATA_LEN_MAX`].
    #[error("the client announced {len} bytes of data for option {option}; the limit is {max}")]
    OptionTooLong {
        /// Option number.
        option: u32,
        /// As announced.
        len: u32,
        /// The limit.
        max: usize,
    },
    /// Over [`Negotiation::new`]'s limit.
    #[error("the client sent more than {max} options without choosing an export")]
    TooManyOptions {
        /// The limit.
        max: u32,
    },
    /// `EXPORT_NAME` has no other way to say no.
    #[error("the client asked by EXPORT_NAME for an export that is not served")]
    NoSuchExport,
}

/// What one step did.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are used up.
    pub consumed: usize,
    /// What is next.
    pub next: Next,
}

/// What comes after a step. The output of the step is sent first, in every case.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The input holds no whole message yet; nothing was consumed.
    NeedMore,
    /// A message was answered; there may be another one in the input.
    Continue,
    /// The client chose an export; the rest of the input is requests.
    Transmit(Box<Transmission>),
    /// The client ended the negotiation.
    Abort,
}

/// The result of a negotiation.
pub struct Transmission {
    /// The chosen export's name in the table.
    pub name: String,
    /// The chosen export.
    pub export: Export,
    /// How it is spoken to.
    pub agreed: Agreed,
}

impl fmt::Debug for Transmission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transmission")
            .field("name", &self.name)
            .field("agreed", &self.agreed)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Transmission {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.agreed) == (&other.name, &other.agreed)
    }
}

impl Eq for Transmission {}

/// One client's negotiation.
#[derive(Debug)]
pub struct Negotiation {
    flags_seen: bool,
    fixed: bool,
    no_zeroes: bool,
    headers: Headers,
    /// Canonical name of the export for which `base:allocation` was set last.
    allocation_for: Option<String>,
    option_count: u32,
    option_count_max: u32,
}

impl Negotiation {
    /// A negotiation that ends in an error after `option_count_max` options.
    #[must_use]
    pub fn new(option_count_max: u32) -> Self {
        Self {
            flags_seen: false,
            fixed: false,
            no_zeroes: false,
            headers: Headers::Simple,
            allocation_for: None,
            option_count: 0,
            option_count_max,
        }
    }

    /// What the server says first.
    #[must_use]
    pub fn greeting() -> [u8; GREETING_LEN] {
        let flags = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
        let mut greeting = [0; GREETING_LEN];
        let fields =
            [&MAGIC_INIT.to_be_bytes()[..], &MAGIC_OPTION.to_be_bytes(), &flags.to_be_bytes()];
        for (byte, value) in greeting.iter_mut().zip(fields.concat()) {
            *byte = value;
        }
        greeting
    }

    /// Handles the next message of `input`, if it is all there; appends the answer to `output`.
    ///
    /// An input of [`OPTION_HEADER_LEN`] + [`OPTION_DATA_LEN_MAX`] bytes always holds a message.
    ///
    /// # Errors
    /// [`NegotiationError`]: close, sending nothing more.
    pub fn step(
        &mut self,
        table: &dyn ExportTable,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Step, NegotiationError> {
        let mut reader = Reader::new(input);
        if !self.flags_seen {
            return self.client_flags(&mut reader);
        }
        let Some((option, data)) = self.next_option(&mut reader)? else {
            return Ok(Step::need_more());
        };
        self.option_count += 1;
        if self.option_count > self.option_count_max {
            let max = self.option_count_max;
            return Err(NegotiationError::TooManyOptions { max });
        }
        let answer = Answer { option, output };
        let next = self.handle(table, option, data, answer)?;
        Ok(Step { consumed: OPTION_HEADER_LEN + data.len(), next })
    }

    fn client_flags(&mut self, reader: &mut Reader<'_>) -> Result<Step, NegotiationError> {
        let Some(flags) = reader.u32() else {
            return Ok(Step::need_more());
        };
        let has = |bit: u16| flags & u32::from(bit) != 0;
        self.fixed = has(handshake::FIXED_NEWSTYLE);
        self.no_zeroes = has(handshake::NO_ZEROES);
        if flags & !u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES) != 0 {
            return Err(NegotiationError::UnknownFlags { flags });
        }
        self.flags_seen = true;
        Ok(Step { consumed: 4, next: Next::Continue })
    }

    fn next_option<'a>(
        &self,
        reader: &mut Reader<'a>,
    ) -> Result<Option<(u32, &'a [u8])>, NegotiationError> {
        let Some(found) = reader.u64() else {
            return Ok(None);
        };
        if found != MAGIC_OPTION {
            return Err(NegotiationError::BadMagic { found });
        }
        let (Some(option), Some(len)) = (reader.u32(), reader.u32()) else {
            return Ok(None);
        };
        // Judged by the header alone: the data of a hostile option is never waited for.
        match usize::try_from(len) {
            Ok(wanted) if wanted <= OPTION_DATA_LEN_MAX => {
                Ok(reader.bytes(wanted).map(|data| (option, data)))
            }
            _ => Err(NegotiationError::OptionTooLong { option, len, max: OPTION_DATA_LEN_MAX }),
        }
    }

    fn handle(
        &mut self,
        table: &dyn ExportTable,
        option: u32,
        data: &[u8],
        mut answer: Answer<'_>,
    ) -> Result<Next, NegotiationError> {
        if !self.fixed && option != option::EXPORT_NAME {
            // Plain newstyle knows no replies to refuse with.
            return Ok(Next::Abort);
        }
        match option {
            option::EXPORT_NAME => return self.export_name(table, data, answer.output),
            option::GO => return Ok(self.go(table, data, &mut answer)),
            option::INFO => {
                self.describe(table, data, &mut answer);
            }
            option::ABORT => {
                answer.ack();
                return Ok(Next::Abort);
            }
            option::LIST if data.is_empty() => list(table, &mut answer),
            option::STRUCTURED_REPLY if data.is_empty() => self.structured_reply(&mut answer),
            option::EXTENDED_HEADERS if data.is_empty() => self.extended_headers(&mut answer),
            option::LIST_META_CONTEXT => self.meta_context(table, data, &mut answer, false),
            option::SET_META_CONTEXT => self.meta_context(table, data, &mut answer, true),
            option::STARTTLS if data.is_empty() => {
                answer.error(rep::ERR_POLICY, "TLS is not offered on this socket");
            }
            option::LIST
            | option::STRUCTURED_REPLY
            | option::EXTENDED_HEADERS
            | option::STARTTLS => answer.error(rep::ERR_INVALID, "this option takes no data"),
            _ => answer.error(rep::ERR_UNSUP, "unknown option"),
        }
        Ok(Next::Continue)
    }

    fn export_name(
        &self,
        table: &dyn ExportTable,
        name: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Next, NegotiationError> {
        let found = text(name).and_then(|name| table.find(name));
        let Some(found) = found.filter(|found| found.export.is_serving()) else {
            return Err(NegotiationError::NoSuchExport);
        };
        let transmission = self.transmission(found);
        let exported = &transmission.agreed.info;
        output.extend(exported.size_bytes.to_be_bytes());
        output.extend(self.flags(exported).to_be_bytes());
        if !self.no_zeroes {
            output.extend([0; EXPORT_NAME_ZEROES]);
        }
        Ok(Next::Transmit(Box::new(transmission)))
    }

    fn go(&self, table: &dyn ExportTable, data: &[u8], answer: &mut Answer<'_>) -> Next {
        match self.describe(table, data, answer) {
            Some(transmission) => Next::Transmit(Box::new(transmission)),
            None => Next::Continue,
        }
    }

    /// Answers `INFO` or `GO`; `None` if that was an error.
    fn describe(
        &self,
        table: &dyn ExportTable,
        data: &[u8],
        answer: &mut Answer<'_>,
    ) -> Option<Transmission> {
        let Some((name, wanted)) = info_request(data) else {
            answer.error(rep::ERR_INVALID, "malformed request for information");
            return None;
        };
        let transmission = self.transmission(look_up(table, name, answer)?);
        let exported = &transmission.agreed.info;
        let mut export = exported.size_bytes.to_be_bytes().to_vec();
        export.extend(self.flags(exported).to_be_bytes());
        answer.info(info::EXPORT, &export);
        // Also for those who did not ask: it does no harm, and requests are held to it.
        let (minimum, preferred, maximum) = block_sizes(exported);
        answer
            .info(info::BLOCK_SIZE, &[minimum, preferred, maximum].map(u32::to_be_bytes).concat());
        if wanted.contains(&info::NAME) {
            answer.info(info::NAME, transmission.name.as_bytes());
        }
        if wanted.contains(&info::DESCRIPTION) {
            answer.info(info::DESCRIPTION, clip(&exported.description).as_bytes());
        }
        answer.ack();
        Some(transmission)
    }

    fn structured_reply(&mut self, answer: &mut Answer<'_>) {
        match self.headers {
            Headers::Simple => {
                self.headers = Headers::Structured;
                answer.ack();
            }
            Headers::Structured => {
                answer.error(rep::ERR_INVALID, "structured replies are agreed already");
            }
            Headers::Extended => answer
                .error(rep::ERR_EXT_HEADER_REQD, "extended headers include structured replies"),
        }
    }

    fn extended_headers(&mut self, answer: &mut Answer<'_>) {
        if self.headers == Headers::Extended {
            return answer.error(rep::ERR_INVALID, "extended headers are agreed already");
        }
        self.headers = Headers::Extended;
        answer.ack();
    }

    fn meta_context(
        &mut self,
        table: &dyn ExportTable,
        data: &[u8],
        answer: &mut Answer<'_>,
        set: bool,
    ) {
        if set {
            // Also a failing attempt replaces what was set before.
            self.allocation_for = None;
        }
        if self.headers == Headers::Simple {
            return answer.error(rep::ERR_INVALID, "agree on structured replies first");
        }
        let Some((name, queries)) = meta_request(data) else {
            return answer.error(rep::ERR_INVALID, "malformed request for contexts");
        };
        let Some(found) = look_up(table, name, answer) else {
            return;
        };
        let matches = |query: &&[u8]| {
            **query == *CONTEXT_ALLOCATION.as_bytes() || (!set && **query == *b"base:")
        };
        let listed_all = !set && queries.is_empty();
        if listed_all || queries.iter().any(matches) {
            let id = if set { CONTEXT_ALLOCATION_ID } else { 0 };
            let context = [&id.to_be_bytes()[..], CONTEXT_ALLOCATION.as_bytes()];
            answer.reply(rep::META_CONTEXT, &context);
            if set {
                self.allocation_for = Some(found.name);
            }
        }
        answer.ack();
    }

    fn transmission(&self, found: Found) -> Transmission {
        let agreed = Agreed {
            headers: self.headers,
            allocation: self.allocation_for.as_ref() == Some(&found.name),
            info: found.export.backend().info(),
        };
        Transmission { name: found.name, export: found.export, agreed }
    }

    fn flags(&self, exported: &ExportInfo) -> u16 {
        transmission_flags(exported, self.headers != Headers::Simple)
    }
}

impl Step {
    const fn need_more() -> Self {
        Self { consumed: 0, next: Next::NeedMore }
    }
}

/// Writes replies to one option.
struct Answer<'a> {
    option: u32,
    output: &'a mut Vec<u8>,
}

impl Answer<'_> {
    #[expect(clippy::expect_used, reason = "everything in a reply was clipped")]
    fn reply(&mut self, kind: u32, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let len = u32::try_from(len).expect("names and descriptions are clipped");
        self.output.extend(MAGIC_OPTION_REPLY.to_be_bytes());
        for field in [self.option, kind, len] {
            self.output.extend(field.to_be_bytes());
        }
        for part in parts {
            self.output.extend(*part);
        }
    }

    fn ack(&mut self) {
        self.reply(rep::ACK, &[]);
    }

    fn error(&mut self, kind: u32, text: &str) {
        self.reply(kind, &[text.as_bytes()]);
    }

    fn info(&mut self, kind: u16, payload: &[u8]) {
        self.reply(rep::INFO, &[&kind.to_be_bytes(), payload]);
    }
}

fn list(table: &dyn ExportTable, answer: &mut Answer<'_>) {
    for line in table.list() {
        let name = line.name.as_bytes();
        // A name that the protocol cannot carry could not be asked for either.
        if let Ok(len) = u32::try_from(name.len())
            && name.len() <= STRING_LEN_MAX
        {
            let description = clip(&line.description).as_bytes();
            answer.reply(rep::SERVER, &[&len.to_be_bytes(), name, description]);
        }
    }
    answer.ack();
}

/// The export, or an error reply and `None`.
fn look_up(table: &dyn ExportTable, name: &[u8], answer: &mut Answer<'_>) -> Option<Found> {
    let Some(name) = text(name) else {
        answer.error(rep::ERR_INVALID, "an export name is UTF-8 without NUL, at most 4096 bytes");
        return None;
    };
    match table.find(name) {
        Some(found) if found.export.is_serving() => Some(found),
        Some(_) => {
            answer.error(rep::ERR_SHUTDOWN, "the resource is not serving");
            None
        }
        None => {
            answer.error(rep::ERR_UNKNOWN, "no export has this name");
            None
        }
    }
}

/// Name and wanted kinds of information of `INFO` and `GO`.
fn info_request(data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let mut reader = Reader::new(data);
    let name = prefixed(&mut reader)?;
    let count = reader.u16()?;
    let mut wanted = Vec::new();
    for _ in 0..count {
        wanted.push(reader.u16()?);
    }
    reader.is_empty().then_some((name, wanted))
}

/// Export name and queries of the two metadata options.
fn meta_request(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut reader = Reader::new(data);
    let name = prefixed(&mut reader)?;
    let count = reader.u32()?;
    let mut queries = Vec::new();
    for _ in 0..count {
        // Each takes four bytes at least, so that the data's length bounds the loop.
        queries.push(prefixed(&mut reader)?);
    }
    reader.is_empty().then_some((name, queries))
}

fn prefixed<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = usize::try_from(reader.u32()?).ok()?;
    reader.bytes(len)
}

/// A protocol string, if it is one.
fn text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (text.len() <= STRING_LEN_MAX && !text.contains('\0')).then_some(text)
}

/// At most [`STRING_LEN_MAX`] bytes of `text`, cut between characters.
fn clip(text: &str) -> &str {
    text.get(..text.floor_char_boundary(STRING_LEN_MAX)).unwrap_or(text)
}
