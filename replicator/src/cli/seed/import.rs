//! `hadrian seed import`: a replica made of a seed.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hadrian_blockdev::replica;
use hadrian_blockdev::volume::{base_of, check_store, create_store};
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::replica::{Base, ReplicaState, describe};

use super::super::args::Args;
use super::super::create::progress;
use super::super::{configuration, resource as resource_of};
use crate::config::Resource;
use crate::seed::{Piece, SeedReader};

/// Bytes of zeroes that are written at a time.
const ZEROES: usize = 1 << 20;

/// Checks a seed to its end, and only then makes anything of it: the image first, the replica that
/// says what it is last. A crash in between leaves no replica.
pub(super) fn import(args: &Args, name: &str, file: &Path) -> anyhow::Result<()> {
    let (config, me) = configuration(args)?;
    let resource = resource_of(&config, name)?;
    let shown = || file.display().to_string();
    let dir = me.replica_dir(resource);
    if dir.join(hadrian_blockdev::superblock::FILE_NAME).exists() {
        bail!(
            "{} holds a replica of {name} already; move it away first if the seed is to take its \
             place",
            dir.display()
        );
    }
    let state = check(resource, file, args.json).with_context(shown)?;
    let stores = resource.stores(me.id);
    for (path, geometry) in stores.iter().zip(resource.geometry()) {
        create_store(path, geometry.size_bytes)?;
        check_store(path, geometry)?;
    }
    refuse_data(&stores, name, args.json)?;
    fill(&stores, file, args.json).with_context(shown)?;
    let state = ReplicaState { member: me.id, ..state };
    let label = config.label(&me)?;
    let bar = progress("writing log", resource.log_size_bytes, args.json);
    let bytes = resource.log_size_bytes;
    replica::create(&dir, &label, &state, bytes, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    let lsn = state.checkpoint.lsn;
    if args.json {
        say!("{}", serde_json::json!({ "resource": name, "dir": dir, "as_of": lsn }));
    } else {
        say!(
            "{name}: replica made in {} with the image as of {lsn}; start hadriand, and it gets \
             what has changed since",
            dir.display()
        );
    }
    Ok(())
}

fn open(file: &Path) -> anyhow::Result<(SeedReader<BufReader<File>>, u64)> {
    let source = File::open(file)?;
    let len = source.metadata()?.len();
    Ok((SeedReader::open(BufReader::with_capacity(1 << 20, source))?, len))
}

/// Reads all of it; the state of a replica with its image.
fn check(resource: &Resource, file: &Path, json: bool) -> anyhow::Result<ReplicaState> {
    let (mut seed, len) = open(file)?;
    let (found, name) = (seed.header().clone(), &resource.name);
    if found.resource != resource.id {
        bail!(
            "it is of another resource ({}) than {name} of this cluster ({}); import it where it \
             belongs",
            found.resource,
            resource.id
        );
    }
    if found.volumes != resource.geometry() {
        bail!(
            "its volumes are {}, those of {name} in the configuration are {}; they must agree",
            describe(&found.volumes),
            describe(&resource.geometry())
        );
    }
    let bar = progress("checking", len, json);
    while seed.next_piece()?.is_some() {
        bar.set_position(seed.at());
    }
    bar.finish_and_clear();
    seed.state().cloned().context("it has no end")
}

/// What the seed does not name has to be zero.
fn refuse_data(stores: &[PathBuf], name: &str, json: bool) -> anyhow::Result<()> {
    let size = stores.iter().filter_map(|path| File::open(path).ok()?.metadata().ok());
    let bar = progress("reading", size.map(|found| found.len()).sum(), json);
    let base = base_of(stores, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    if base != Base::Zero {
        bail!(
            "the backing store of {name} holds data, and a seed goes into an empty one. If nobody \
             needs it, remove the file or empty the device (blkdiscard -z), and import again; or \
             let the primary's content take its place over the link: hadrian create {name} --copy"
        );
    }
    Ok(())
}

/// Brings all of it into the stores, durably.
fn fill(stores: &[PathBuf], file: &Path, json: bool) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for path in stores {
        let store = File::options().write(true).open(path);
        files.push((path, store.with_context(|| path.display().to_string())?));
    }
    let (mut seed, len) = open(file)?;
    let bar = progress("importing", len, json);
    let mut at = seed.at();
    while let Some(piece) = seed.next_piece()? {
        let (path, store) = store_of(&files, piece.volume)?;
        put(store, &piece).with_context(|| path.display().to_string())?;
        at += piece.data.map_or(0, |data| data.len() as u64);
        bar.set_position(at.min(len));
    }
    for (path, store) in &files {
        store.sync_all().with_context(|| path.display().to_string())?;
    }
    bar.finish_and_clear();
    Ok(())
}

fn store_of<'a>(
    files: &'a [(&'a PathBuf, File)],
    volume: VolumeIndex,
) -> anyhow::Result<(&'a Path, &'a File)> {
    let found = files.get(usize::from(volume.index()));
    let (path, store) = found.context("it names a volume that is not there")?;
    Ok((path, store))
}

fn put(store: &File, piece: &Piece<'_>) -> std::io::Result<()> {
    if let Some(data) = piece.data {
        return store.write_all_at(data, piece.offset);
    }
    let zeroes = vec![0; ZEROES];
    let (mut at, end) = (piece.offset, piece.offset + piece.len);
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(ZEROES).min(ZEROES);
        store.write_all_at(zeroes.get(..len).unwrap_or_default(), at)?;
        at += len as u64;
    }
    Ok(())
}
