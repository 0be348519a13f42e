//! The client's side of the NBD negotiation: a socket that is ready for requests, for the kernel.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hadrian_blockdev::nbd::proto::{
    GREETING_LEN, MAGIC_INIT, MAGIC_OPTION, MAGIC_OPTION_REPLY, handshake, info, option,
    option_reply,
};

/// Longest wait for one word of the server.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer to an option that makes sense here, in bytes.
const REPLY_MAX: usize = 64 << 10;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// Nobody listens, or the connection ended: the daemon is not there.
    #[error("the daemon does not answer: {0}")]
    Away(#[from] io::Error),
    /// The daemon is there and does not serve this volume.
    #[error("this member does not serve the volume: {0}")]
    NotServed(String),
    /// It is no server for newstyle negotiation.
    #[error("the other side of {0} is no NBD server")]
    Protocol(String),
}

/// What the server says of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    /// Size in bytes.
    pub(crate) size_bytes: u64,
    /// What it can do (`proto::transmission`).
    pub(crate) flags: u16,
    /// The unit of requests, in bytes.
    pub(crate) block_size: u32,
}

/// Connects to `export` behind the socket at `path`, up to the first request.
///
/// # Errors
/// [`ExportError`]
pub(crate) fn connect(path: &Path, export: &str) -> Result<(UnixStream, Facts), ExportError> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let foreign = || ExportError::Protocol(path.display().to_string());
    let mut greeting = [0; GREETING_LEN];
    stream.read_exact(&mut greeting)?;
    let (init, options) = (&greeting[..8], &greeting[8..16]);
    if init != MAGIC_INIT.to_be_bytes() || options != MAGIC_OPTION.to_be_bytes() {
        return Err(foreign());
    }
    stream.write_all(&hello(export))?;
    let mut facts = None;
    loop {
        let (kind, data) = read_reply(&mut stream)?.ok_or_else(foreign)?;
        match kind {
            option_reply::INFO => take_info(&mut facts, &data),
            option_reply::ACK => break,
            // Every error has the top bit.
            kind if kind >> 31 == 1 => {
                return Err(ExportError::NotServed(String::from_utf8_lossy(&data).into_owned()));
            }
            _ => {}
        }
    }
    // From here on it is the kernel's, which has limits of its own.
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    facts.map(|facts| (stream, facts)).ok_or_else(foreign)
}

/// The client's flags, and `GO` for the export, asking for its block size.
fn hello(export: &str) -> Vec<u8> {
    let flags = u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
    let name_len = u32::try_from(export.len()).unwrap_or(u32::MAX);
    let mut hello = flags.to_be_bytes().to_vec();
    hello.extend(MAGIC_OPTION.to_be_bytes());
    hello.extend(option::GO.to_be_bytes());
    hello.extend((4 + name_len + 2 + 2).to_be_bytes());
    hello.extend(name_len.to_be_bytes());
    hello.extend(export.as_bytes());
    hello.extend(1_u16.to_be_bytes());
    hello.extend(info::BLOCK_SIZE.to_be_bytes());
    hello
}

/// One reply to an option: its type and data; `None` if it is none.
fn read_reply(stream: &mut UnixStream) -> io::Result<Option<(u32, Vec<u8>)>> {
    let mut head = [0; 20];
    stream.read_exact(&mut head)?;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let len = word(16) as usize;
    if head[..8] != MAGIC_OPTION_REPLY.to_be_bytes() || len > REPLY_MAX {
        return Ok(None);
    }
    let mut data = vec![0; len];
    stream.read_exact(&mut data)?;
    Ok(Some((word(12), data)))
}

fn take_info(facts: &mut Option<Facts>, data: &[u8]) {
    let Some((kind, rest)) = data.split_first_chunk() else { return };
    let block_size = facts.map_or(512, |facts| facts.block_size);
    match u16::from_be_bytes(*kind) {
        info::EXPORT => {
            let Some((size, rest)) = rest.split_first_chunk() else { return };
            let Some(flags) = rest.first_chunk() else { return };
            let (size_bytes, flags) = (u64::from_be_bytes(*size), u16::from_be_bytes(*flags));
            *facts = Some(Facts { size_bytes, flags, block_size });
        }
        info::BLOCK_SIZE => {
            if let (Some(facts), Some(least)) = (facts, rest.first_chunk()) {
                facts.block_size = u32::from_be_bytes(*least);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_flags_and_block_are_taken_from_what_the_server_says() {
        let mut facts = None;
        let export = [&[0, 0][..], &(1_u64 << 30).to_be_bytes(), &[1, 13]].concat();
        take_info(&mut facts, &export);
        take_info(&mut facts, &[0, 3, 0, 0, 16, 0, 0, 0, 16, 0, 1, 0, 0, 0]);
        let expected = Facts { size_bytes: 1 << 30, flags: 0x010D, block_size: 4096 };
        assert_eq!(facts, Some(expected));
    }

    #[test]
    fn a_cut_answer_says_nothing() {
        let mut facts = None;
        for data in [&[][..], &[0], &[0, 0], &[0, 0, 1, 2, 3], &[0, 3, 0]] {
            take_info(&mut facts, data);
        }
        assert_eq!(facts, None);
    }
}
