//! A connection to PostgreSQL that knows which statements were answered: what a driver hides, such
//! as a statement that is sent again, must not happen here.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Version 3.0 of its protocol.
const PROTOCOL: u32 = 3 << 16;
/// Longer than a standby may hold an answer before it is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Messages beyond this are none that the stories ask for.
const MESSAGE_MAX: usize = 64 << 20;

/// A connection of the superuser to the database `postgres`.
#[derive(Debug)]
pub struct Session(UnixStream);

impl Session {
    /// Connects to the server whose socket is in this folder.
    ///
    /// # Errors
    /// The system's, or what the server says: that it is still starting, for one.
    pub fn connect(folder: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(folder.join(".s.PGSQL.5432"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut hello = PROTOCOL.to_be_bytes().to_vec();
        hello.extend(b"user\0postgres\0database\0postgres\0\0");
        stream.write_all(&framed(&hello))?;
        let mut session = Self(stream);
        session.until_ready()?;
        Ok(session)
    }

    /// Runs one statement. Where it changes something, it is committed when this returns. The first
    /// column of its rows, as text.
    ///
    /// # Errors
    /// The connection's, or what the server says.
    pub fn ask(&mut self, sql: &str) -> io::Result<Vec<String>> {
        let text = [sql.as_bytes(), b"\0"].concat();
        self.0.write_all(&[b"Q", framed(&text).as_slice()].concat())?;
        self.until_ready()
    }

    /// Takes messages until the server waits for a statement.
    fn until_ready(&mut self) -> io::Result<Vec<String>> {
        let (mut rows, mut refused) = (Vec::new(), None);
        loop {
            let (kind, body) = match self.message() {
                Ok(message) => message,
                // Behind a fatal error there is nothing more.
                Err(error) => return Err(refused.unwrap_or(error)),
            };
            match kind {
                b'Z' => return refused.map_or(Ok(rows), Err),
                b'D' => rows.push(first_column(&body).ok_or(io::ErrorKind::InvalidData)?),
                b'E' => refused = Some(io::Error::other(fields_of(&body))),
                b'R' if body != [0; 4] => {
                    return Err(io::Error::other("the server wants a password"));
                }
                // Parameters, notices, and what the columns are called.
                _ => {}
            }
        }
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head)?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let len = len.checked_sub(4).filter(|len| *len <= MESSAGE_MAX);
        let mut body = vec![0; len.ok_or(io::ErrorKind::InvalidData)?];
        self.0.read_exact(&mut body)?;
        Ok((head[0], body))
    }
}

/// A body behind its length, which counts itself.
fn framed(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [len.to_be_bytes().as_slice(), body].concat()
}

fn first_column(body: &[u8]) -> Option<String> {
    let len = u32::from_be_bytes(*body.get(2..)?.first_chunk()?) as usize;
    // A length of -1 says that there is no value.
    let text = if len == u32::MAX as usize { &[] } else { body.get(6..6 + len)? };
    Some(String::from_utf8_lossy(text).into_owned())
}

/// What an error says to people: its fields, of which each begins with its kind.
fn fields_of(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0).filter(|field| matches!(field.first(), Some(b'M')));
    let texts = fields.map(|field| String::from_utf8_lossy(&field[1..]).into_owned());
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_errors_are_read_as_the_protocol_has_them() {
        assert_eq!(framed(b"ab"), [0, 0, 0, 6, b'a', b'b']);
        let row = [&[0, 1, 0, 0, 0, 2][..], b"42"].concat();
        assert_eq!(first_column(&row).as_deref(), Some("42"));
        assert_eq!(first_column(&[0, 1, 255, 255, 255, 255]).as_deref(), Some(""));
        assert_eq!(first_column(&row[..7]), None, "cut off");
        assert_eq!(fields_of(b"SFATAL\0Mno room\0\0"), "no room");
    }
}
