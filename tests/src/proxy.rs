//! A way to a server over which what is asked can be held back, and what is answered lost.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// What every client of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Head of a frame of HTTP/2: three bytes of length, one of kind.
const FRAME_HEAD_LEN: usize = 9;
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of what comes over the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It goes on.
    Open,
    /// What is asked is held back, until the way is open again.
    Held,
    /// What is answered is lost, for good.
    Deaf,
}

/// A listener and all connections that came to it.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug)]
struct State {
    way: Way,
    lines: Vec<Line>,
}

/// One connection.
#[derive(Debug)]
struct Line {
    server: TcpStream,
    /// What is held back.
    asked: Vec<u8>,
    /// What the server has said that was lost.
    answered: Vec<u8>,
    /// Nothing that the client still says goes on.
    is_cut: bool,
    /// It hears nothing any more.
    is_deaf: bool,
}

/// A question that its asker has given up, and that may still arrive.
#[derive(Debug)]
pub struct Late {
    shared: Arc<Shared>,
    line: usize,
}

impl Proxy {
    /// Passes on what comes to `listener`.
    ///
    /// # Errors
    /// As the system says.
    pub fn new(listener: TcpListener, server: SocketAddr) -> io::Result<Self> {
        let state = Mutex::new(State { way: Way::Open, lines: Vec::new() });
        let shared = Arc::new(Shared { state, news: Condvar::new() });
        let proxy = Self { listener: listener.try_clone()?, shared: shared.clone() };
        thread::spawn(move || {
            // It ends when the listener is shut down.
            while let Ok((client, _)) = listener.accept() {
                // Without a server the client is turned away.
                let _ =
                    TcpStream::connect(server).and_then(|server| carry(&shared, client, server));
            }
        });
        Ok(proxy)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// From now on the way is like this. What was held back goes on when it opens.
    pub fn set(&self, way: Way) {
        let mut state = self.shared.lock();
        state.way = way;
        for line in &mut state.lines {
            match way {
                // What was taken arrives when whoever has it says so.
                Way::Open if !line.is_cut => line.go_on(),
                Way::Open => {}
                Way::Held => {}
                Way::Deaf => line.is_deaf = true,
            }
        }
    }

    /// Takes the question that is held back: it has all been said, and its asker hears nothing any
    /// more.
    ///
    /// # Errors
    /// If none comes.
    pub fn take(&self) -> anyhow::Result<Late> {
        let is_asked = |line: &Line| !line.is_cut && has_data(&line.asked);
        let line = self.shared.find(is_asked).context("nothing is asked")?;
        if let Some(line) = self.shared.lock().lines.get_mut(line) {
            (line.is_cut, line.is_deaf) = (true, true);
        }
        Ok(Late { shared: self.shared.clone(), line })
    }

    /// Waits until an answer was lost.
    ///
    /// # Errors
    /// If none is.
    pub fn await_loss(&self) -> anyhow::Result<()> {
        let is_lost = |line: &Line| has_data(&line.answered);
        self.shared.find(is_lost).map(drop).context("nothing is answered")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // What is closed already needs no closing.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for line in &self.shared.lock().lines {
            let _ = line.server.shutdown(Shutdown::Both);
        }
    }
}

impl Late {
    /// Lets it arrive, and waits until the server has answered.
    ///
    /// # Errors
    /// If it does not.
    pub fn arrive(self) -> anyhow::Result<()> {
        if let Some(line) = self.shared.lock().lines.get_mut(self.line) {
            line.go_on();
        }
        let shared = &self.shared;
        let is_answered = |at: usize, line: &Line| at == self.line && has_data(&line.answered);
        shared.find_at(is_answered).map(drop).context("the late question is not answered")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until something has changed, or a moment.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.news.wait_timeout(state, Duration::from_secs(1));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn find(&self, is_so: impl Fn(&Line) -> bool) -> Option<usize> {
        self.find_at(|_, line| is_so(line))
    }

    /// The first line that is like this, once there is one.
    fn find_at(&self, is_so: impl Fn(usize, &Line) -> bool) -> Option<usize> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        loop {
            let mut lines = state.lines.iter().enumerate();
            let found = lines.position(|(at, line)| is_so(at, line));
            if found.is_some() || Instant::now() > deadline {
                return found;
            }
            state = self.wait(state);
        }
    }
}

impl Line {
    fn go_on(&mut self) {
        // A server that is gone has nothing to hear.
        let _ = self.server.write_all(&std::mem::take(&mut self.asked));
    }
}

/// Two threads for a connection, one for each direction.
fn carry(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (asks, answers) = (client.try_clone()?, server.try_clone()?);
    let mut state = shared.lock();
    let (index, is_deaf) = (state.lines.len(), state.way == Way::Deaf);
    let (asked, answered) = (Vec::new(), Vec::new());
    state.lines.push(Line { server, asked, answered, is_cut: false, is_deaf });
    drop(state);
    let both = shared.clone();
    thread::spawn(move || carry_asked(&both, index, asks));
    let both = shared.clone();
    thread::spawn(move || carry_answers(&both, index, answers, client));
    Ok(())
}

fn carry_asked(shared: &Shared, index: usize, mut client: TcpStream) {
    let mut bytes = [0; 16_384];
    loop {
        let read = client.read(&mut bytes).unwrap_or(0);
        let mut state = shared.lock();
        let is_held = state.way == Way::Held;
        let Some(line) = state.lines.get_mut(index) else { return };
        if read == 0 {
            // Its asker has gone; what it has asked may still have to arrive, and be done.
            if !line.is_deaf && line.asked.is_empty() {
                let _ = line.server.shutdown(Shutdown::Write);
            }
            return;
        }
        if !line.is_cut {
            line.asked.extend_from_slice(&bytes[..read]);
            if !is_held {
                line.go_on();
            }
        }
        drop(state);
        shared.news.notify_all();
    }
}

fn carry_answers(shared: &Shared, index: usize, mut server: TcpStream, mut client: TcpStream) {
    let mut bytes = [0; 16_384];
    loop {
        let read = server.read(&mut bytes).unwrap_or(0);
        let mut state = shared.lock();
        let Some(line) = state.lines.get_mut(index) else { return };
        let is_deaf = line.is_deaf;
        if is_deaf {
            line.answered.extend_from_slice(&bytes[..read]);
        }
        drop(state);
        shared.news.notify_all();
        if read == 0 {
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
        if !is_deaf {
            // One that has gone is not told.
            let _ = client.write_all(&bytes[..read]);
        }
    }
}

/// Whether these frames of HTTP/2 hold one with data: a question, or an answer.
fn has_data(frames: &[u8]) -> bool {
    let mut rest = frames.strip_prefix(PREFACE).unwrap_or(frames);
    while let Some(head) = rest.first_chunk::<FRAME_HEAD_LEN>() {
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some(after) = rest.get(FRAME_HEAD_LEN + len..) else { return false };
        if head[3] == 0 {
            return true;
        }
        rest = after;
    }
    false
}
