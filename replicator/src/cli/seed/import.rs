//! `hadrian seed import`: a replica made of a seed.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hadrian_blockdev::replica::{self, Import};
use hadrian_blockdev::superblock::Whose;
use hadrian_blockdev::volume::{base_of, check_store, create_store};
use hadrian_protocol::replica::{Base, ReplicaState, Role, VolumeGeometry, describe};

use super::super::args::Args;
use super::super::create::progress;
use super::super::{configuration, resource as resource_of};
use crate::config::{Member, Resource};
use crate::driver::of_configuration;
use crate::seed::{Piece, SeedReader};

/// Checks a seed to its end, and only then makes anything of it. The replica is begun before its
/// stores are filled, so a crash in between leaves one that says so; the next import begins again.
pub(super) fn import(args: &Args, name: &str, file: &Path) -> anyhow::Result<()> {
    let (config, me) = configuration(args)?;
    let resource = resource_of(&config, name)?;
    let shown = || file.display().to_string();
    let dir = me.replica_dir(resource);
    let begun = begun_of(&dir, name)?;
    let is_begun = begun.is_some();
    let state = check(resource, file, args.json).with_context(shown)?;
    if let Some(begun) = begun.filter(|begun| *begun != state.volumes) {
        bail!(
            "the replica in {} was begun for {}, and the seed is of {}: the volumes have grown \
             since; move that away, and import again",
            dir.display(),
            describe(&begun),
            describe(&state.volumes)
        );
    }
    let whose = Whose { resource: resource.id, label: config.label(&me)? };
    let stores = resource.stores(me.id);
    if !is_begun {
        begin((resource, &me), &whose, (&dir, &state.volumes), args.json)?;
    }
    let mut import = Import::open(&dir, &whose, &stores)?;
    if is_begun {
        clear(&mut import, resource, args.json)?;
    }
    fill(&mut import, &stores, file, args.json).with_context(shown)?;
    let state = ReplicaState { member: me.id, ..state };
    import.finish(&state)?;
    let lsn = state.checkpoint.lsn;
    if args.json {
        let said = serde_json::json!({ "resource": name, "dir": dir, "as_of": lsn,
            "begun_again": is_begun });
        say!("{said}");
    } else {
        say!(
            "{name}: replica made in {} with the image as of {lsn}; start hadriand, and it gets \
             what has changed since",
            dir.display()
        );
    }
    Ok(())
}

/// The volumes of a replica that is begun and no more, if there is one: an import of it was
/// interrupted, or it was created to be given another's content.
fn begun_of(dir: &Path, name: &str) -> anyhow::Result<Option<Vec<VolumeGeometry>>> {
    if !dir.join(hadrian_blockdev::superblock::FILE_NAME).exists() {
        return Ok(None);
    }
    let state = replica::read_state(dir)?.state;
    if !replica::is_begun(&state) {
        bail!(
            "{} holds a replica of {name} already; move it away first if the seed is to take its \
             place",
            dir.display()
        );
    }
    Ok(Some(state.volumes))
}

/// Makes a replica that has nothing yet, of stores that hold nothing.
fn begin(
    (resource, me): (&Resource, &Member),
    whose: &Whose,
    (dir, volumes): (&Path, &[VolumeGeometry]),
    json: bool,
) -> anyhow::Result<()> {
    let (stores, geometry) = (resource.stores(me.id), volumes.to_vec());
    for (path, geometry) in stores.iter().zip(&geometry) {
        create_store(path, geometry.size_bytes)?;
        check_store(path, *geometry)?;
    }
    refuse_data(&stores, &resource.name, json)?;
    let (role, mode) = (Role::Standby, resource.mode);
    let new = ReplicaState::created(resource.id, me.id, role, mode, Base::Zero, geometry);
    let (new, bytes) = (replica::begun(new), resource.log_size_bytes);
    let bar = progress("writing log", bytes, json);
    replica::create(dir, &whose.label, &new, bytes, |bytes| bar.set_position(bytes))?;
    bar.finish_and_clear();
    Ok(())
}

/// What an import that was interrupted has left is nobody's data, and would stand where the seed
/// names nothing.
fn clear(import: &mut Import, resource: &Resource, json: bool) -> anyhow::Result<()> {
    if !json {
        say!(
            "{}: the replica here was begun and never used; it is begun again, and what its \
             backing store holds is written over",
            resource.name
        );
    }
    let size = resource.geometry().iter().map(|volume| volume.size_bytes).sum();
    let bar = progress("clearing", size, json);
    import.clear(|bytes| bar.set_position(bytes)).context("the backing store")?;
    bar.finish_and_clear();
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
    let bar = progress("checking", len, json);
    while seed.next_piece()?.is_some() {
        bar.set_position(seed.at());
    }
    bar.finish_and_clear();
    let state = seed.state().cloned().context("it has no end")?;
    if !of_configuration(&state, &resource.geometry()) || found.volumes != state.volumes {
        bail!(
            "its volumes are {}, those of {name} in the configuration are {}; they must agree",
            describe(&found.volumes),
            describe(&resource.geometry())
        );
    }
    Ok(state)
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

/// Brings all of it into the stores.
fn fill(import: &mut Import, stores: &[PathBuf], file: &Path, json: bool) -> anyhow::Result<()> {
    let (mut seed, len) = open(file)?;
    let bar = progress("importing", len, json);
    let mut at = seed.at();
    while let Some(Piece { volume, offset, len: piece_len, data }) = seed.next_piece()? {
        at += data.map_or(0, |data| data.len() as u64);
        let data = data.map(Bytes::copy_from_slice);
        import.put(volume, (offset, piece_len), data).with_context(|| {
            let path = stores.get(usize::from(volume.index()));
            path.map_or_else(
                || "a volume that is not there".into(),
                |path| path.display().to_string(),
            )
        })?;
        bar.set_position(at.min(len));
    }
    bar.finish_and_clear();
    Ok(())
}
