//! etcd as one marker: each block is a key, and a block of zeroes is a key that is not there.
//!
//! Reads are linearizable. A write whose answer was lost may land at any later time, and nobody
//! says when it no longer can; so each write is a transaction that puts the block only where the
//! key's revision is the one that this process knows. One writer has the key: once a later write
//! has landed, and so changed the revision, none that was sent before can. What a former life has
//! sent ends with the first write of this one, for the same reason.
//!
//! A write that is refused finds one of three things:
//!
//! - an earlier try of this life, whose answer was lost: its revision is the one to write over;
//! - before this life has written the block, a late write of a former one: the order has failed,
//!   and the next one compares with what was read since;
//! - after that, something that nobody but this life could have put there: another daemon runs in
//!   this member's name, or etcd has gone back in time. Then nothing is written any more.

mod health;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::Path;

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, Identity, KeyValue,
    TlsOptions, Txn, TxnOp, TxnOpResponse,
};
use hadrian_protocol::marks::block::{Block, life_of};
use hadrian_protocol::marks::layout::{BLOCK_LEN, BlockIndex, Run};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout_at};

use crate::medium::{Concern, EtcdSource, Medium, OpenError, Source};

/// Most runs that are read in one transaction; etcd takes 128 unless it is told otherwise.
const RUNS_MAX: usize = 64;
/// How often one order writes: again over each earlier try that turns out to have landed, of which
/// one may have come by another member of etcd in this very order.
const WRITES_MAX: usize = 3;

/// An etcd that is reached, or was.
pub struct Etcd {
    source: EtcdSource,
    /// What all keys of the cluster's blocks begin with.
    prefix: String,
    tls: Option<TlsOptions>,
    runtime: Runtime,
    /// Name and password.
    login: Option<(String, String)>,
    client: Option<Client>,
    /// The member of etcd that is asked, until it fails.
    turn: usize,
    /// Blocks that this process has looked at to write them, or has written.
    known: BTreeMap<BlockIndex, Known>,
    /// Why nothing is written any more.
    spoilt: Option<String>,
}

/// What this process knows of a key.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The revision that changed it last; 0: it was not there.
    revision: i64,
    /// This process has written it.
    is_own: bool,
}

/// What came of a write.
enum Wrote {
    /// It has this revision, and these are the keys of the run.
    Done(i64, Vec<KeyValue>),
    /// Nothing was written; this stands there, if anything does.
    Refused(Option<KeyValue>),
}

/// What to do about a write that was refused.
enum Verdict {
    /// Write over this revision, which is an earlier try.
    Adopt(i64),
    /// Look at it before it is written again.
    Moved,
    /// Write nothing any more.
    Foreign,
}

impl Etcd {
    /// Makes ready to reach the blocks of the cluster of this name; the first call connects.
    ///
    /// # Errors
    /// [`OpenError`]: of the files that are named, or where the system has no runtime for it.
    pub fn open(source: &EtcdSource, cluster: &str) -> Result<Self, OpenError> {
        let place = Source::Etcd(source.clone()).to_string();
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            prefix: format!("hadrian/{cluster}/"),
            tls: tls_of(source)?,
            login: login_of(source)?,
            runtime: runtime.map_err(|source| OpenError::Io { place, source })?,
            source: source.clone(),
            client: None,
            turn: 0,
            known: BTreeMap::new(),
            spoilt: None,
        })
    }

    /// The key of a block.
    #[must_use]
    pub fn key(&self, index: BlockIndex) -> String {
        format!("{}block/{:010}", self.prefix, index.get())
    }

    fn range(&self, run: Run) -> (String, GetOptions) {
        let end = BlockIndex::new(run.first.get().saturating_add(run.count));
        (self.key(run.first), GetOptions::new().with_range(self.key(end)))
    }

    fn until(&self) -> Instant {
        Instant::now() + self.source.limit
    }

    /// Asks one member of etcd after the other until one answers. What is asked may be done more
    /// than once.
    fn ask<T>(
        &mut self,
        until: Instant,
        question: impl AsyncFn(&mut Client) -> Result<T, Error>,
    ) -> io::Result<T> {
        let count = self.source.endpoints.len().max(1);
        let share = self.source.limit / u32::try_from(count).unwrap_or(1);
        let mut failed = io::Error::from(io::ErrorKind::TimedOut);
        let mut left = count;
        while left > 0 {
            let forgotten = self.client.is_some() && self.login.is_some();
            match self.ask_one(until.min(Instant::now() + share), &question) {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = error,
            }
            // A new connection is sure not to wait behind what an old one has under way.
            self.client = None;
            // An etcd that was started again does not know who this was: it is told once more.
            if !forgotten {
                self.turn = (self.turn + 1) % count;
                left -= 1;
            }
            if Instant::now() >= until {
                break;
            }
        }
        Err(failed)
    }

    fn ask_one<T>(
        &mut self,
        until: Instant,
        question: &impl AsyncFn(&mut Client) -> Result<T, Error>,
    ) -> io::Result<T> {
        let endpoint = self.source.endpoints.get(self.turn).cloned().unwrap_or_default();
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.source.limit)
            // One that is cut off from the others says so instead of waiting for them.
            .with_require_leader(true);
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.clone());
        }
        if let Some((name, password)) = &self.login {
            options = options.with_user(name, password);
        }
        let client = &mut self.client;
        let answer = async {
            let client = match client {
                Some(client) => client,
                None => client.insert(Client::connect([&endpoint], Some(options)).await?),
            };
            question(client).await
        };
        match self.runtime.block_on(async { timeout_at(until, answer).await }) {
            Ok(answer) => answer.map_err(|error| said(&endpoint, &error)),
            Err(_) => {
                let text = format!("{endpoint} does not answer in time");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }

    /// The revision of a key that nothing is known of.
    fn look(&mut self, until: Instant, index: BlockIndex) -> io::Result<Known> {
        let key = self.key(index);
        let found = self.ask(until, async |kv| kv.get(key.as_str(), None).await)?;
        let revision = found.kvs().first().map_or(0, KeyValue::mod_revision);
        Ok(Known { revision, is_own: false })
    }

    /// Puts a block where its key has this revision, and reads in the same transaction.
    fn put(
        &mut self,
        until: Instant,
        (index, block, revision): (BlockIndex, &Block, i64),
        run: Run,
    ) -> io::Result<Wrote> {
        let (key, range) = (self.key(index), self.range(run));
        let value = trimmed(block.as_bytes());
        let question = async |kv: &mut Client| {
            let txn = Txn::new()
                .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, revision)])
                .and_then([
                    TxnOp::put(key.as_str(), value, None),
                    TxnOp::get(range.0.as_str(), Some(range.1.clone())),
                ])
                .or_else([TxnOp::get(key.as_str(), None)]);
            kv.txn(txn).await
        };
        let answer = self.ask(until, question)?;
        let read = answer.op_responses().into_iter().find_map(keys_of);
        let read = read.ok_or_else(|| io::Error::other("etcd has left out what was to be read"))?;
        if !answer.succeeded() {
            return Ok(Wrote::Refused(read.into_iter().next()));
        }
        let revision = answer.header().map(etcd_client::ResponseHeader::revision);
        let revision = revision.ok_or_else(|| io::Error::other("etcd names no revision"))?;
        Ok(Wrote::Done(revision, read))
    }

    fn write_and_read(
        &mut self,
        until: Instant,
        (index, block): (BlockIndex, &Block),
        run: Run,
    ) -> io::Result<Vec<u8>> {
        if let Some(why) = &self.spoilt {
            return Err(io::Error::other(why.clone()));
        }
        for _ in 0..WRITES_MAX {
            let known = match self.known.get(&index) {
                Some(known) => *known,
                None => self.look(until, index)?,
            };
            self.known.insert(index, known);
            let found = match self.put(until, (index, block, known.revision), run)? {
                Wrote::Done(revision, read) => {
                    self.known.insert(index, Known { revision, is_own: true });
                    return self.take(run, &read);
                }
                Wrote::Refused(found) => found,
            };
            match judge(found.as_ref(), block, known) {
                Verdict::Adopt(revision) => {
                    self.known.insert(index, Known { revision, is_own: true });
                }
                Verdict::Moved => {
                    self.known.remove(&index);
                    break;
                }
                Verdict::Foreign => return Err(self.spoil(index)),
            }
        }
        Err(io::Error::other(format!("{index} has just been changed by another writer")))
    }

    fn spoil(&mut self, index: BlockIndex) -> io::Error {
        let why = format!(
            "{index} does not stand as this daemon has written it: another one runs in this \
             member's name, or etcd has lost what it had confirmed; nothing is written to it until \
             hadriand is started again"
        );
        self.spoilt = Some(why.clone());
        io::Error::other(why)
    }

    /// The bytes of a run, of the keys that are there. Their revisions are what a later write
    /// compares with, so that it fails if what it was decided by has changed.
    fn take(&mut self, run: Run, keys: &[KeyValue]) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; run.len()];
        let mut revisions: BTreeMap<_, _> = run.blocks().map(|index| (index, 0)).collect();
        for found in keys {
            let index = self.index_of(found.key());
            let at = index.and_then(|index| run.blocks().position(|block| block == index));
            let block = at.and_then(|at| bytes.chunks_mut(BLOCK_LEN).nth(at));
            let block = block.and_then(|block| block.get_mut(..found.value().len()));
            let (Some(index), Some(block)) = (index, block) else {
                let key = String::from_utf8_lossy(found.key());
                let text = format!("the key {key} holds no block; see whose it is, and delete it");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            };
            block.copy_from_slice(found.value());
            revisions.insert(index, found.mod_revision());
        }
        for (index, revision) in revisions {
            let known = self.known.entry(index).or_insert(Known { revision, is_own: false });
            if !known.is_own {
                known.revision = revision;
            }
        }
        Ok(bytes)
    }

    fn index_of(&self, key: &[u8]) -> Option<BlockIndex> {
        let key = std::str::from_utf8(key).ok()?;
        let number = key.strip_prefix(&self.prefix)?.strip_prefix("block/")?;
        let index = BlockIndex::new(number.parse().ok()?);
        (self.key(index) == key).then_some(index)
    }
}

impl Medium for Etcd {
    fn read(&mut self, run: Run) -> io::Result<Vec<u8>> {
        let (until, (key, options)) = (self.until(), self.range(run));
        let question = async |kv: &mut Client| kv.get(key.as_str(), Some(options.clone())).await;
        let found = self.ask(until, question)?;
        self.take(run, found.kvs())
    }

    fn write(&mut self, index: BlockIndex, block: &Block) -> io::Result<()> {
        let run = Run { first: index, count: 1 };
        self.write_and_read(self.until(), (index, block), run).map(drop)
    }

    /// In one transaction: one trip instead of two.
    fn order(&mut self, write: Option<&(BlockIndex, Block)>, read: Run) -> io::Result<Vec<u8>> {
        match write {
            Some((index, block)) => self.write_and_read(self.until(), (*index, block), read),
            None => self.read(read),
        }
    }

    fn read_each(&mut self, runs: &[Run]) -> io::Result<Vec<Vec<u8>>> {
        let mut all = Vec::with_capacity(runs.len());
        for runs in runs.chunks(RUNS_MAX) {
            let until = self.until();
            let ranges: Vec<_> = runs.iter().map(|run| self.range(*run)).collect();
            let question = async |kv: &mut Client| {
                let get = |(key, options): &(String, GetOptions)| {
                    TxnOp::get(key.as_str(), Some(options.clone()))
                };
                kv.txn(Txn::new().and_then(ranges.iter().map(get).collect::<Vec<_>>())).await
            };
            let answer = self.ask(until, question)?;
            let found = answer.op_responses().into_iter().filter_map(keys_of);
            for (run, keys) in runs.iter().zip(found) {
                all.push(self.take(*run, &keys)?);
            }
        }
        match all.len() == runs.len() {
            true => Ok(all),
            false => Err(io::Error::other("etcd has left out what was to be read")),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        // What etcd has confirmed is on the disks of a majority of its members.
        Ok(())
    }

    fn size_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn reopen(&mut self) -> Result<(), OpenError> {
        // A failed call has left no connection behind. What is known of the keys stays: what was
        // tried may still land.
        Ok(())
    }

    fn try_write(&mut self) -> Option<io::Result<()>> {
        Some(self.write_beside())
    }

    fn concerns(&mut self) -> io::Result<Vec<Concern>> {
        self.look_for_concerns()
    }

    fn how_to_blank(&self, _blocks: u64) -> String {
        format!("etcdctl del --prefix {}", self.prefix)
    }
}

impl fmt::Display for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Source::Etcd(self.source.clone()).fmt(f)
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Etcd({self})")
    }
}

/// What a write over `known` was refused for.
fn judge(found: Option<&KeyValue>, block: &Block, known: Known) -> Verdict {
    let revision = found.map_or(0, KeyValue::mod_revision);
    let value = found.map_or(&[][..], KeyValue::value);
    // An older one was brought back, and is no earlier try.
    let is_later = revision > known.revision;
    if is_later && (value == trimmed(block.as_bytes()) || is_one_life(value, block)) {
        return Verdict::Adopt(revision);
    }
    if known.is_own { Verdict::Foreign } else { Verdict::Moved }
}

/// Whether both were written by one life of one member.
fn is_one_life(value: &[u8], block: &Block) -> bool {
    let mut whole = [0; BLOCK_LEN];
    whole.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
    life_of(&whole).is_some_and(|life| life_of(block.as_bytes()) == Some(life))
}

/// A block without the zeroes at its end.
fn trimmed(block: &[u8; BLOCK_LEN]) -> &[u8] {
    let len = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    block.get(..len).unwrap_or_default()
}

fn keys_of(answer: TxnOpResponse) -> Option<Vec<KeyValue>> {
    match answer {
        TxnOpResponse::Get(mut found) => Some(found.take_kvs()),
        _ => None,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, OpenError> {
    let place = || path.display().to_string();
    std::fs::read(path).map_err(|source| OpenError::Io { place: place(), source })
}

/// The name, and what the file of the password holds without the end of its line.
fn login_of(source: &EtcdSource) -> Result<Option<(String, String)>, OpenError> {
    let Some((name, path)) = &source.login else { return Ok(None) };
    let password = String::from_utf8_lossy(&read(path)?).trim_end().to_owned();
    Ok(Some((name.clone(), password)))
}

fn tls_of(source: &EtcdSource) -> Result<Option<TlsOptions>, OpenError> {
    let Some(ca) = &source.ca else { return Ok(None) };
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?));
    if let Some((certificate, key)) = &source.identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(Some(tls))
}

/// An error of the client, and what it comes from in the end.
fn said(endpoint: &str, error: &Error) -> io::Error {
    let (text, mut source) = match error {
        Error::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        Error::TransportError(error) => (error.to_string(), error.source()),
        error => (error.to_string(), None),
    };
    let mut cause = String::new();
    while let Some(error) = source {
        cause = format!(": {error}");
        source = error.source();
    }
    io::Error::other(format!("{endpoint}: {text}{cause}"))
}
