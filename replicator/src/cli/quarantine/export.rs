//! `hadrian quarantine export`: a volume as it was, as a file or over NBD, read-only.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use hadrian_blockdev::engine::{AnyEngine, Engine as _, FileId, OpenAs};
use hadrian_blockdev::export::{BLOCK_SIZE_MAX, Close, CloseHandle};
use hadrian_blockdev::nbd::{Export, Exports, Limits, serve_unix};
use hadrian_blockdev::quarantine::{Ending, Kind, View, ViewBackend, Walk};
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::replica::VolumeGeometry;
use rustix::fs::FlockOperation;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use super::super::args::QuarantineExport;
use super::super::words;
use super::remove::hold;
use super::{Place, engine};
use crate::config::Member;

/// Bytes that are copied at a time.
const COPIED: u64 = 1 << 20;
/// What of them is left out where it is zero, in bytes.
const HOLE_MIN: usize = 4096;
/// Clients of the socket at a time.
const CLIENTS_MAX: usize = 16;

/// A view, and what it is of.
struct Made {
    view: View,
    volume: String,
    geometry: VolumeGeometry,
    /// The files that are in it.
    names: Vec<String>,
    /// They are not removed as long as these are there.
    _held: Vec<File>,
}

pub(super) fn export(
    place: &Place<'_>,
    me: &Member,
    wish: &QuarantineExport,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut engine = engine()?;
    let made = make(&mut engine, place, me, wish)?;
    let (files, bytes) = (made.names.join(", "), words::bytes(made.view.quarantined_bytes()));
    eprintln!("{bytes} of {} come from {files}", made.volume);
    match wish.blocks_only {
        true => eprintln!("everything else is a hole, and reads as zeroes"),
        false => eprintln!(
            "everything else is what the backing store holds now: this is the volume as it was \
             only where nothing else has changed since"
        ),
    }
    match (&wish.out, &wish.socket) {
        (Some(out), _) => to_file(&mut engine, &made, place, out, as_json),
        (None, Some(socket)) => serve(engine, made, place, socket, as_json),
        (None, None) => bail!("say where it goes: --out FILE, or --socket PATH"),
    }
}

/// Which volume is meant.
fn volume(place: &Place<'_>, wanted: Option<&str>) -> anyhow::Result<usize> {
    let volumes = &place.resource.volumes;
    let names = || volumes.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, volumes.len()) {
        (None, 1) => Ok(0),
        (None, _) => bail!("say which volume with --volume, one of {}", names()),
        (Some(wanted), _) => volumes
            .iter()
            .position(|volume| volume.name == wanted)
            .with_context(|| format!("no volume {wanted:?}; there are {}", names())),
    }
}

fn make(
    engine: &mut AnyEngine,
    place: &Place<'_>,
    me: &Member,
    wish: &QuarantineExport,
) -> anyhow::Result<Made> {
    let number = volume(place, wish.volume.as_deref())?;
    let index = u16::try_from(number).ok().and_then(VolumeIndex::new);
    let (Some(index), Some(volume)) = (index, place.resource.volumes.get(number)) else {
        bail!("volume {number} is beyond the limit");
    };
    let first = place.open(engine, &place.path(&wish.name)?)?;
    // The file knows what the volume was like then.
    let geometry = match &first.volumes {
        None => volume.geometry,
        Some(volumes) => *volumes.get(number).with_context(|| {
            format!("{} holds no volume {:?}: it was added later", wish.name, volume.name)
        })?,
    };
    let beneath = match wish.blocks_only {
        true => None,
        false => Some(store(engine, &volume.stores, me, geometry)?),
    };
    let mut made = Made {
        view: View::new(geometry.size_bytes, beneath),
        volume: format!("{}/{}", place.resource.name, volume.name),
        geometry,
        names: Vec::new(),
        _held: Vec::new(),
    };
    for (name, mut walk) in together(engine, place, (&wish.name, first), wish.no_frames)? {
        let held = hold(&place.dir.join(&name), FlockOperation::NonBlockingLockShared)?;
        made._held.push(held.with_context(|| format!("{name} is being removed"))?);
        let added = made.view.add(engine, &mut walk, index);
        let ending = added.with_context(|| format!("{name} cannot be exported"))?;
        if ending != Ending::Whole {
            eprintln!("{name}: {ending}, and is in the export");
        }
        made.names.push(name);
    }
    Ok(made)
}

/// The files that make one picture, in the order in which they are laid over one another: of one
/// rejoin all files of blocks, each begun where a crash ended the one before; then its frames.
fn together(
    engine: &mut AnyEngine,
    place: &Place<'_>,
    (name, first): (&str, Walk),
    no_frames: bool,
) -> anyhow::Result<Vec<(String, Walk)>> {
    if first.kind == Kind::Frames || Kind::of_name(name).is_none_or(|(_, is_part)| is_part) {
        return Ok(vec![(name.to_owned(), first)]);
    }
    let (from, end) = (first.from, first.end);
    first.close(engine);
    let mut names = place.names()?;
    // A further file of the same positions has a number behind them: ten comes after two.
    names.sort_by_key(|name| (name.len(), name.clone()));
    let (mut blocks, mut frames) = (Vec::new(), Vec::new());
    for name in names {
        let kind = match Kind::of_name(&name) {
            Some((kind, false)) if kind == Kind::Blocks || !no_frames => kind,
            _ => continue,
        };
        // What cannot be used is no reason to give nothing of the others; the one that was asked
        // for could be opened just now.
        let walk = match place.open(engine, &place.dir.join(&name)) {
            Ok(walk) => walk,
            Err(error) => {
                eprintln!("left out: {error:#}");
                continue;
            }
        };
        // The frames begin later than the blocks say where the log no longer had the first.
        match kind {
            Kind::Blocks if (walk.from, walk.end) == (from, end) => blocks.push((name, walk)),
            Kind::Frames if walk.from >= from && walk.end == end => frames.push((name, walk)),
            _ => walk.close(engine),
        }
    }
    // A second file of the same frames says the same.
    frames.truncate(1);
    blocks.append(&mut frames);
    Ok(blocks)
}

/// The backing store as it is now.
fn store(
    engine: &mut AnyEngine,
    stores: &[std::path::PathBuf],
    me: &Member,
    geometry: VolumeGeometry,
) -> anyhow::Result<FileId> {
    let path = stores.get(usize::from(me.id.index()));
    let path = path.with_context(|| format!("{} has no store of this volume", me.name))?;
    let way_out = "; --blocks-only goes without it";
    let cannot = || format!("{} cannot be read{way_out}", path.display());
    let file = engine.open(path, OpenAs::ReadOnly).with_context(cannot)?;
    let (found, wanted) = (engine.size(file).with_context(cannot)?, geometry.size_bytes);
    if found < wanted {
        bail!("{} has {found} bytes, and the volume had {wanted}{way_out}", path.display());
    }
    Ok(file)
}

fn to_file(
    engine: &mut AnyEngine,
    made: &Made,
    place: &Place<'_>,
    out: &Path,
    as_json: bool,
) -> anyhow::Result<()> {
    // Not here: what is in quarantine is not added to, and an unknown file in it helps nobody.
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = fs::canonicalize(parent.unwrap_or(Path::new(".")));
    if parent.is_ok_and(|parent| fs::canonicalize(&place.dir).is_ok_and(|dir| dir == parent)) {
        bail!("{} is in the quarantine itself; write it elsewhere", out.display());
    }
    let file =
        File::options().write(true).create_new(true).mode(0o600).open(out).with_context(|| {
            format!("{} cannot be made; a file that is there is not replaced", out.display())
        })?;
    if let Err(error) = copy(engine, &made.view, &file) {
        // Half an image would be taken for a whole one.
        let _ = fs::remove_file(out);
        return Err(error.context(format!("{} cannot be written, and is gone", out.display())));
    }
    let (size, from) = (made.view.size(), made.view.quarantined_bytes());
    if as_json {
        let value = json!({ "volume": made.volume, "file": out, "bytes": size,
            "quarantined_bytes": from, "names": made.names });
        say!("{value}");
    } else {
        say!("{} is in {}: {size} bytes, a raw image", made.volume, out.display());
    }
    Ok(())
}

fn copy(engine: &mut AnyEngine, view: &View, file: &File) -> anyhow::Result<()> {
    file.set_len(view.size())?;
    let mut at = 0;
    while at < view.size() {
        let extents = view.extents(engine, (at, view.size() - at), 1);
        let Some(extent) = extents.first() else { break };
        let end = at + extent.len;
        while at < end && !extent.zero {
            let len = usize::try_from((end - at).min(COPIED))?;
            let bytes = view.read(engine, at, len).with_context(|| format!("reading at {at}"))?;
            for (block, offset) in bytes.chunks(HOLE_MIN).zip((at..).step_by(HOLE_MIN)) {
                if block.iter().any(|byte| *byte != 0) {
                    file.write_all_at(block, offset)?;
                }
            }
            at += len as u64;
        }
        at = end;
    }
    file.sync_all()?;
    Ok(())
}

fn serve(
    engine: AnyEngine,
    made: Made,
    place: &Place<'_>,
    socket: &Path,
    as_json: bool,
) -> anyhow::Result<()> {
    let block_size = made.geometry.block_size;
    if !block_size.is_power_of_two() || block_size > BLOCK_SIZE_MAX {
        bail!("a volume with blocks of {block_size} bytes cannot be served; use --out");
    }
    let description = format!("{} as {} has it", made.volume, made.names.join(", "));
    let backend = ViewBackend::new(made.view, engine, block_size, description);
    let mut table = Exports::new();
    table.insert(made.volume.clone(), Export::new(Rc::new(backend)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let served = local.block_on(&runtime, async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let listener = listen(socket)?;
        let uri = format!("nbd+unix:///{}?socket={}", made.volume, socket.display());
        match as_json {
            true => say!("{}", json!({ "event": "serving", "volume": made.volume, "uri": uri })),
            false => say!("{} is served read-only at {uri} until this is stopped", made.volume),
        }
        let (ending, slots) = (CloseHandle::new(), Arc::new(Semaphore::new(CLIENTS_MAX)));
        let serving =
            serve_unix(listener, Rc::new(table), ending.clone(), slots, Limits::default());
        tokio::select! {
            () = serving => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        // What is under way is answered; whoever takes no answer is not waited for long.
        ending.close(Close::Drain);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), ending.ended()).await;
        anyhow::Ok(fs::remove_file(socket))
    });
    let removed = served.with_context(|| format!("serving {}", place.resource.name))?;
    removed.with_context(|| format!("{} stays behind", socket.display()))
}

/// Listens where nobody does. A socket that a killed server left is replaced, as no one answers
/// there; anything else stays as it is.
fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(socket).is_ok_and(|found| found.file_type().is_socket());
    if is_socket
        && let Err(error) = std::os::unix::net::UnixStream::connect(socket)
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        fs::remove_file(socket)?;
    }
    UnixListener::bind(socket).with_context(|| {
        format!("{} cannot be listened on; choose a path that is free", socket.display())
    })
}
