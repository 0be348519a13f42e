//! A small NBD client of our own: it must know exactly which writes were answered.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hadrian_blockdev::nbd::proto::{MAGIC_REQUEST, command};

use crate::attach::export;

/// One connection to an export.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to `export` behind the unix socket `path`.
    ///
    /// # Errors
    /// As the system says, or the server's refusal.
    pub fn connect(path: &Path, export: &str) -> io::Result<Self> {
        let (stream, _) = export::connect(path, export).map_err(io::Error::other)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream })
    }

    /// From here on an answer that does not come in time is an error.
    ///
    /// # Errors
    /// The system's.
    pub fn wait_at_most(&mut self, time: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(time))
    }

    /// Writes and waits for the answer.
    ///
    /// # Errors
    /// The connection's, or the server's.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.request(command::WRITE, offset, data.len())?;
        self.stream.write_all(data)?;
        self.answer()
    }

    /// Makes what was answered a commit.
    ///
    /// # Errors
    /// The connection's, or the server's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.request(command::FLUSH, 0, 0)?;
        self.answer()
    }

    /// Reads `len` bytes.
    ///
    /// # Errors
    /// The connection's, or the server's.
    pub fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.ask_read(offset, len)?;
        self.take_read(len)
    }

    /// Asks for `len` bytes, and does not wait for them.
    ///
    /// # Errors
    /// The connection's.
    pub fn ask_read(&mut self, offset: u64, len: usize) -> io::Result<()> {
        self.request(command::READ, offset, len)
    }

    /// Waits for what was asked for.
    ///
    /// # Errors
    /// The connection's, or the server's.
    pub fn take_read(&mut self, len: usize) -> io::Result<Vec<u8>> {
        self.answer()?;
        let mut data = vec![0; len];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }

    fn request(&mut self, command: u16, offset: u64, len: usize) -> io::Result<()> {
        let mut header = MAGIC_REQUEST.to_be_bytes().to_vec();
        header.extend(0_u16.to_be_bytes());
        header.extend(command.to_be_bytes());
        header.extend(7_u64.to_be_bytes());
        header.extend(offset.to_be_bytes());
        header.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        self.stream.write_all(&header)
    }

    fn answer(&mut self) -> io::Result<()> {
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        match u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]]) {
            0 => Ok(()),
            number => Err(io::Error::other(format!("the server answers error {number}"))),
        }
    }
}
