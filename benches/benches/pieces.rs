//! The pieces of the data path by themselves, so that a slower one is seen before the whole is
//! measured: `cargo bench -p hadrian-benches`. Files lie where `TMPDIR` says.

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hadrian_blockdev::buffer::IoBuf;
use hadrian_blockdev::engine::{AnyEngine, Engine as _, EngineChoice, TokenSpace};
use hadrian_blockdev::journal::{Journal, JournalEvent, NewLog, OpenLog, create};
use hadrian_blockdev::nbd::proto::RequestHeader;
use hadrian_blockdev::nbd::{Headers, proto};
use hadrian_blockdev::volume::{Store, Volumes, VolumesEvent, create_store};
use hadrian_protocol::checksum::crc32c;
use hadrian_protocol::frame::{Draft, Frame, HEAD_LEN, LogPosition, SealAs};
use hadrian_protocol::ids::{Epoch, Lsn, MemberId, ResourceId, VolumeIndex};
use hadrian_protocol::range::ByteRange;
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::time::WallTime;

const KIB: usize = 1024;
const MIB: u64 = 1 << 20;
const SEGMENT_LEN: u64 = 64 * MIB;
const SEGMENTS: u64 = 8;
const STORE_BYTES: u64 = 1 << 30;
const JOURNAL: TokenSpace = TokenSpace::new(1);
const VOLUMES: TokenSpace = TokenSpace::new(2);

fn resource() -> ResourceId {
    ResourceId::derive("bench", "db")
}

fn first_volume() -> VolumeIndex {
    VolumeIndex::new(0).unwrap()
}

/// A frame behind `before` of `count` writes of `len` bytes each, spread over the store.
fn frame(before: LogPosition, count: usize, len: usize) -> Frame {
    let mut draft = Draft::new(IoBuf::for_body(count * len));
    let payload = vec![7; len];
    for index in 0..count {
        let place = (before.lsn.get() + (index * len) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let start = place % (STORE_BYTES / len as u64) * len as u64;
        let range = ByteRange::new(start, len as u64).unwrap();
        draft.write(first_volume(), range, &payload).unwrap();
    }
    draft.seal(SealAs {
        resource: resource(),
        epoch: Epoch::new(1),
        lsn: before.lsn,
        durable: before.lsn,
        wall: WallTime::from_micros(1),
        author: MemberId::new(0).unwrap(),
        before: before.chain,
    })
}

/// Requests and frames, without files.
fn codec(criterion: &mut Criterion) {
    let mut request = proto::MAGIC_REQUEST.to_be_bytes().to_vec();
    request.extend([0; 24]);
    criterion.bench_function("nbd request header", |bench| {
        bench.iter(|| RequestHeader::decode(Headers::Simple, std::hint::black_box(&request)));
    });
    let mut group = criterion.benchmark_group("frame");
    for (count, len) in [(1, 4 * KIB), (16, 4 * KIB), (1, 64 * KIB), (1, 1024 * KIB)] {
        let name = format!("{count}x{}k", len / KIB);
        let genesis = LogPosition::genesis(resource());
        group.throughput(Throughput::Bytes((count * len) as u64));
        group.bench_function(BenchmarkId::new("build and seal", &name), |bench| {
            bench.iter(|| frame(genesis, count, len));
        });
        let whole = frame(genesis, count, len);
        group.bench_function(BenchmarkId::new("copy and check", &name), |bench| {
            bench.iter(|| over_the_wire(&whole));
        });
    }
    group.finish();
}

/// As a link reads it.
fn over_the_wire(frame: &Frame) -> Frame {
    let (head, body) = frame.wire_parts();
    let mut buffer = IoBuf::for_body(body.len());
    buffer[..head.len()].copy_from_slice(&head);
    buffer[HEAD_LEN..HEAD_LEN + body.len()].copy_from_slice(&body);
    Frame::receive(buffer, resource(), Lsn::START).unwrap()
}

fn hashing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash");
    for len in [4 * KIB, 64 * KIB, 1024 * KIB] {
        let data = vec![7; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("crc32c", len / KIB), |bench| {
            bench.iter(|| crc32c(std::hint::black_box(&data)));
        });
        group.bench_function(BenchmarkId::new("blake3", len / KIB), |bench| {
            bench.iter(|| blake3::hash(std::hint::black_box(&data)));
        });
    }
    group.finish();
}

/// A log on a real file system.
struct Log {
    engine: AnyEngine,
    journal: Journal,
    done: Vec<hadrian_blockdev::engine::Completion>,
}

impl Log {
    fn create(dir: &Path) -> Self {
        let mut engine = AnyEngine::choose(EngineChoice::Auto, 256).unwrap();
        let new = NewLog {
            resource: resource(),
            start: Lsn::START,
            segment_len: SEGMENT_LEN,
            segment_count: SEGMENTS,
        };
        create(&mut engine, dir, &new, &mut |_, _| {}).unwrap();
        Self::open(dir, &mut |_| {})
    }

    fn open(dir: &Path, visit: &mut dyn FnMut(&Frame)) -> Self {
        let mut engine = AnyEngine::choose(EngineChoice::Auto, 256).unwrap();
        let log = OpenLog {
            replica_dir: dir,
            resource: resource(),
            checkpoint: LogPosition::genesis(resource()),
            known_durable: None,
            tokens: JOURNAL,
        };
        let (journal, _) = Journal::open(&mut engine, &log, visit).unwrap();
        Self { engine, journal, done: Vec::new() }
    }

    /// Appends frames until `bytes` of them are in the log, durable every `every` bytes.
    fn fill(&mut self, bytes: u64, (count, len): (usize, usize), every: u64) {
        let mut synced = self.journal.end().lsn;
        let target = synced.get() + bytes;
        while self.journal.end().lsn.get() < target {
            let next = frame(self.journal.end(), count, len);
            self.journal.append(&mut self.engine, &next).unwrap();
            if self.journal.end().lsn.since(synced) >= every {
                synced = self.journal.request_sync(&mut self.engine);
                self.until_durable(synced);
            }
        }
        let end = self.journal.request_sync(&mut self.engine);
        self.until_durable(end);
    }

    fn until_durable(&mut self, lsn: Lsn) {
        while self.journal.durable() < lsn {
            self.engine.kick();
            self.engine.wait().unwrap();
            self.engine.reap(&mut self.done);
            for completion in self.done.drain(..) {
                self.journal.complete(&mut self.engine, completion);
            }
            while let Some(event) = self.journal.poll_event() {
                assert!(!matches!(event, JournalEvent::Failed(_)), "{event:?}");
            }
        }
    }
}

fn journal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    group.sample_size(10);
    for (name, shape, bytes) in [
        ("append 4k, sync each", (1, 4 * KIB), MIB),
        ("append 16x4k, sync each", (16, 4 * KIB), 16 * MIB),
        ("append 64k, sync at 4M", (1, 64 * KIB), 128 * MIB),
        ("append 1M, sync at 16M", (1, 1024 * KIB), 256 * MIB),
    ] {
        let every = if bytes <= 16 * MIB { 1 } else { bytes / 32 };
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(name, |bench| {
            bench.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let dir = tempfile::tempdir().unwrap();
                    let mut log = Log::create(dir.path());
                    let began = Instant::now();
                    log.fill(bytes, shape, every);
                    spent += began.elapsed();
                }
                spent
            });
        });
    }
    for (name, shape) in
        [("recovery scan of 4k", (1, 4 * KIB)), ("recovery scan of 64k", (1, 64 * KIB))]
    {
        let dir = tempfile::tempdir().unwrap();
        let bytes = 384 * MIB;
        Log::create(dir.path()).fill(bytes, shape, 32 * MIB);
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let mut frames = 0;
                Log::open(dir.path(), &mut |_| frames += 1);
                frames
            });
        });
    }
    group.finish();
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.sample_size(10);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    create_store(&path, STORE_BYTES).unwrap();
    let geometry = VolumeGeometry { size_bytes: STORE_BYTES, block_size: 4096 };
    for (name, count, len) in [("16x4k", 16, 4 * KIB), ("64k", 1, 64 * KIB), ("1M", 1, 1024 * KIB)]
    {
        let bytes = 64 * MIB;
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(name, |bench| {
            bench.iter_custom(|rounds| {
                let mut engine = AnyEngine::choose(EngineChoice::Auto, 256).unwrap();
                let store = Store::open(&mut engine, &path, geometry).unwrap();
                let mut end = LogPosition::genesis(resource());
                let mut volumes = Volumes::new(vec![store], end, VOLUMES.token(0, 0).0);
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let mut pushed = 0;
                    while pushed < bytes {
                        let next = frame(end, count, len);
                        end = next.position_after();
                        pushed += (count * len) as u64;
                        volumes.push(&next);
                    }
                    let began = Instant::now();
                    apply_all(&mut engine, &mut volumes, end.lsn);
                    spent += began.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

fn apply_all(engine: &mut AnyEngine, volumes: &mut Volumes, end: Lsn) {
    volumes.apply_to(engine, end);
    let mut done = Vec::new();
    while volumes.applied().lsn < end {
        engine.kick();
        engine.wait().unwrap();
        engine.reap(&mut done);
        for completion in done.drain(..) {
            let event = volumes.complete(engine, completion);
            assert!(!matches!(event, VolumesEvent::Failed(_)), "{event:?}");
        }
    }
}

criterion_group!(pieces, codec, hashing, journal, apply);
criterion_main!(pieces);
