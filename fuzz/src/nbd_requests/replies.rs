//! The replies of a server, taken apart and held against what was asked.

use std::collections::BTreeMap;

use hadrian_blockdev::nbd::Headers;
use hadrian_blockdev::nbd::proto::{
    CONTEXT_ALLOCATION_ID, MAGIC_REPLY_EXTENDED, MAGIC_REPLY_SIMPLE, MAGIC_REPLY_STRUCTURED,
    RequestHeader, chunk, command,
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::backend::{CONTENT_LEN, content};
use super::script::Script;

/// Numbers of errors that the NBD document has.
const ERRORS: [u32; 8] = [1, 5, 12, 22, 28, 75, 95, 108];

/// The requests that were not answered yet.
pub(super) struct Expected {
    headers: Headers,
    open: BTreeMap<u64, RequestHeader>,
}

/// The head of a reply, whichever form it has.
struct Head {
    cookie: u64,
    /// Of a simple reply: the error, zero for none.
    error: u32,
    /// Of a chunk: its type, and the length of its payload.
    chunk: Option<(u16, u64)>,
}

impl Expected {
    pub(super) fn new(script: &Script) -> Self {
        let asked = script.asked.iter().chain(&script.abandoned);
        let asked = asked.map(|asked| (asked.header.cookie, asked.header));
        let open = asked.filter(|(_, header)| header.command != command::DISC).collect();
        Self { headers: script.headers, open }
    }

    /// Reads replies until the server closes; it closes between two of them, unless in an error.
    pub(super) async fn read_all<S: AsyncRead + Unpin>(&mut self, receive: &mut S) {
        let mut magic = [0; 4];
        while receive.read_exact(&mut magic).await.is_ok() {
            if self.read_one(receive, u32::from_be_bytes(magic)).await.is_err() {
                return;
            }
        }
    }

    pub(super) fn assert_all_answered(self) {
        assert!(self.open.is_empty(), "without an answer: {:?}", self.open);
    }

    async fn read_one<S: AsyncRead + Unpin>(
        &mut self,
        receive: &mut S,
        magic: u32,
    ) -> std::io::Result<()> {
        let head = self.read_head(receive, magic).await?;
        let header = self.open.remove(&head.cookie);
        let header = header.unwrap_or_else(|| panic!("nobody asked for {}", head.cookie));
        let needs_chunk = matches!(header.command, command::READ | command::BLOCK_STATUS);
        match head.chunk {
            None if head.error != 0 => {
                assert_eq!(self.headers, Headers::Simple, "an error without a chunk");
                assert!(ERRORS.contains(&head.error), "error {}", head.error);
                Ok(())
            }
            None if header.command == command::READ => {
                assert_eq!(self.headers, Headers::Simple, "data without a chunk");
                read_content(receive, header.offset, header.len).await
            }
            None => {
                assert!(!needs_chunk, "success without what was asked for");
                Ok(())
            }
            Some(chunk) => self.read_payload(receive, &header, chunk).await,
        }
    }

    async fn read_head<S: AsyncRead + Unpin>(
        &self,
        receive: &mut S,
        magic: u32,
    ) -> std::io::Result<Head> {
        if magic == MAGIC_REPLY_SIMPLE && self.headers != Headers::Extended {
            let error = receive.read_u32().await?;
            return Ok(Head { cookie: receive.read_u64().await?, error, chunk: None });
        }
        let expected = match self.headers {
            Headers::Simple => MAGIC_REPLY_SIMPLE,
            Headers::Structured => MAGIC_REPLY_STRUCTURED,
            Headers::Extended => MAGIC_REPLY_EXTENDED,
        };
        assert_eq!(magic, expected, "a reply of another dialect");
        assert_eq!(receive.read_u16().await?, chunk::DONE, "every reply is one chunk");
        let kind = receive.read_u16().await?;
        let cookie = receive.read_u64().await?;
        if self.headers == Headers::Structured {
            let len = u64::from(receive.read_u32().await?);
            return Ok(Head { cookie, error: 0, chunk: Some((kind, len)) });
        }
        let offset = receive.read_u64().await?;
        assert_eq!(self.open.get(&cookie).map(|asked| asked.offset), Some(offset));
        let len = receive.read_u64().await?;
        Ok(Head { cookie, error: 0, chunk: Some((kind, len)) })
    }

    async fn read_payload<S: AsyncRead + Unpin>(
        &self,
        receive: &mut S,
        asked: &RequestHeader,
        (kind, len): (u16, u64),
    ) -> std::io::Result<()> {
        match (asked.command, kind) {
            (_, chunk::ERROR) => {
                assert_eq!(len, 6);
                let number = receive.read_u32().await?;
                assert!(ERRORS.contains(&number), "error {number}");
                assert_eq!(receive.read_u16().await?, 0, "a text");
            }
            (command::READ, chunk::OFFSET_DATA) => {
                assert_eq!(len, asked.len + 8);
                assert_eq!(receive.read_u64().await?, asked.offset);
                read_content(receive, asked.offset, asked.len).await?;
            }
            (command::BLOCK_STATUS, chunk::BLOCK_STATUS | chunk::BLOCK_STATUS_EXT) => {
                self.read_status(receive, asked, (kind, len)).await?;
            }
            (command::READ | command::BLOCK_STATUS, _) => panic!("chunk {kind} for {asked:?}"),
            (_, kind) => assert_eq!((kind, len), (chunk::NONE, 0), "{asked:?}"),
        }
        Ok(())
    }

    async fn read_status<S: AsyncRead + Unpin>(
        &self,
        receive: &mut S,
        asked: &RequestHeader,
        (kind, len): (u16, u64),
    ) -> std::io::Result<()> {
        let extended = kind == chunk::BLOCK_STATUS_EXT;
        assert_eq!(extended, self.headers == Headers::Extended);
        assert_eq!(receive.read_u32().await?, CONTEXT_ALLOCATION_ID);
        let (front, each) = if extended { (8, 16) } else { (4, 8) };
        let count = (len - front) / each;
        assert_eq!(front + count * each, len);
        if extended {
            assert_eq!(u64::from(receive.read_u32().await?), count);
        }
        let mut total: u64 = 0;
        for _ in 0..count {
            let (len, state) = if extended {
                (receive.read_u64().await?, receive.read_u64().await?)
            } else {
                (u64::from(receive.read_u32().await?), u64::from(receive.read_u32().await?))
            };
            assert!(len > 0 && state < 4);
            total += len;
        }
        assert!(count > 0 && total <= asked.len, "extents of {total} for {asked:?}");
        Ok(())
    }
}

/// Reads `len` bytes of the volume from `offset` on.
async fn read_content<S: AsyncRead + Unpin>(
    receive: &mut S,
    offset: u64,
    len: u64,
) -> std::io::Result<()> {
    assert!(len <= CONTENT_LEN as u64);
    let mut data = vec![0; len as usize];
    receive.read_exact(&mut data).await?;
    assert!((offset..).zip(&data).all(|(at, byte)| *byte == content(at)), "bytes of another place");
    Ok(())
}
