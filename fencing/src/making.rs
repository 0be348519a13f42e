//! Making markers: a blank device or file becomes one, and resources get their places.
//!
//! Nothing foreign is ever written: whatever stands in the first blocks decides. A making that was
//! interrupted left no marker, because the first block is written last.

use std::io;
use std::path::{Path, PathBuf};

use hadrian_protocol::ids::ClusterId;
use hadrian_protocol::marks::block::Void;
use hadrian_protocol::marks::header::{Header, Label};
use hadrian_protocol::marks::layout::{BLOCK_LEN, BlockIndex, Place, Run, marker_len};
use hadrian_protocol::marks::making;
use hadrian_protocol::time::WallTime;

use crate::marker::{Marker, MarkerError};

/// How much of a device must be blank before it is taken, in blocks: file systems, partition
/// tables and the superblocks of other systems begin there.
const BLANK_BLOCKS: u64 = 32;

/// What markers are made for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The cluster's name.
    pub cluster: String,
    /// How many members it has.
    pub members: u8,
    /// How many resources there is to be room for.
    pub places: u16,
    /// The resources now.
    pub labels: Vec<Label>,
    /// The identity of the set, drawn at random.
    pub set: [u8; 16],
    /// Now, for people.
    pub made: WallTime,
    /// The devices or files, in the order of the configuration.
    pub paths: Vec<PathBuf>,
}

/// What was done to a marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Made {
    /// Which.
    pub path: PathBuf,
    /// It was blank before.
    pub is_new: bool,
    /// The resources that got a place.
    pub added: Vec<String>,
}

/// Why no marker was made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The marker itself.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// The system refuses a read or write.
    #[error("{path}: {source}; see that the device answers, and ask again")]
    Io {
        /// Which marker.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds something.
    #[error(
        "{path} is not blank: {why} (block {block}); it was not written. If nobody needs it, blank \
         it first: dd if=/dev/zero of={path} bs=4096 count={BLANK_BLOCKS}"
    )]
    NotBlank {
        /// Which marker.
        path: PathBuf,
        /// The first block that holds something.
        block: u64,
        /// What.
        why: Void,
    },
    /// It is none.
    #[error(
        "{path} is no marker of this cluster: {why}; make it one with: hadrian mark format, or \
         correct fencing.marks in the configuration"
    )]
    NoMarker {
        /// Which.
        path: PathBuf,
        /// What stands there.
        why: Void,
    },
    /// It is too small.
    #[error(
        "{path} has {has} bytes, a marker for so many resources needs {needs}; take a larger one"
    )]
    TooSmall {
        /// Which marker.
        path: PathBuf,
        /// Its size.
        has: u64,
        /// What is needed.
        needs: u64,
    },
    /// One that is a marker already does not go with the configuration.
    #[error("{path} is a marker already, and {what}; it was not written")]
    Differs {
        /// Which marker.
        path: PathBuf,
        /// In which respect.
        what: String,
    },
    /// All places are taken.
    #[error("{path} has {places} places and all are taken; make a new set of markers with more")]
    Full {
        /// Which marker.
        path: PathBuf,
        /// How many places.
        places: u16,
    },
}

/// What stands where a header belongs.
enum Found {
    Blank,
    Ours(Header),
}

/// Makes every marker that is blank, and gives places to resources that have none. What is a
/// marker of this cluster already stays as it is.
///
/// # Errors
/// [`MakeError`]; markers before the one that it names may have been made.
pub fn make(wanted: &Wanted) -> Result<Vec<Made>, MakeError> {
    let cluster = ClusterId::derive(&wanted.cluster);
    let mut markers = Vec::new();
    let mut set = None;
    // All are looked at before any is written.
    for (index, path) in wanted.paths.iter().enumerate() {
        let mut marker = Marker::open(path)?;
        let found = look(&mut marker, wanted, index)?;
        if let Found::Ours(header) = &found {
            set = set.or(Some(header.set));
        }
        markers.push((marker, found));
    }
    let set = set.unwrap_or(wanted.set);
    let mut all = Vec::new();
    for (index, (mut marker, found)) in markers.into_iter().enumerate() {
        let path = marker.path().to_owned();
        let io = |source| MakeError::Io { path: path.clone(), source };
        let is_new = matches!(found, Found::Blank);
        let header = match found {
            Found::Ours(header) => header,
            Found::Blank => header(wanted, set, index),
        };
        if is_new {
            for (index, block) in making::marker(cluster, &header) {
                marker.write(index, &block).map_err(io)?;
            }
            marker.sync().map_err(io)?;
        }
        let added = add_places(&mut marker, (cluster, &header), &wanted.labels)?;
        all.push(Made { path, is_new, added });
    }
    Ok(all)
}

fn header(wanted: &Wanted, set: [u8; 16], index: usize) -> Header {
    Header {
        set,
        marker: u8::try_from(index).unwrap_or(u8::MAX),
        markers: u8::try_from(wanted.paths.len()).unwrap_or(u8::MAX),
        members: wanted.members,
        places: wanted.places,
        made: wanted.made,
        cluster_name: wanted.cluster.clone(),
    }
}

fn look(marker: &mut Marker, wanted: &Wanted, index: usize) -> Result<Found, MakeError> {
    let path = marker.path().to_owned();
    let io = |source| MakeError::Io { path: path.clone(), source };
    let cluster = ClusterId::derive(&wanted.cluster);
    let (has, needs) = (marker.size().map_err(io)?, marker_len(wanted.places));
    if has < needs {
        return Err(MakeError::TooSmall { path, has, needs });
    }
    let blocks = Run { first: BlockIndex::new(0), count: BLANK_BLOCKS };
    let bytes = marker.read(blocks).map_err(io)?;
    let [first, _] = BlockIndex::HEADERS;
    if let Ok(header) = Header::open(bytes, cluster, first) {
        let ours = self::header(wanted, header.set, index);
        return match difference(&header, &ours) {
            None => Ok(Found::Ours(header)),
            Some(what) => Err(MakeError::Differs { path, what }),
        };
    }
    for (block, at) in bytes.chunks(BLOCK_LEN).zip(blocks.blocks()) {
        let is_part = at != first && is_own(block, cluster, at);
        if block.iter().any(|byte| *byte != 0) && !is_part {
            let why = Header::open(block, cluster, at).err().unwrap_or(Void::Magic);
            return Err(MakeError::NotBlank { path, block: at.get(), why });
        }
    }
    Ok(Found::Blank)
}

/// Whether an interrupted making of this cluster left it there.
fn is_own(block: &[u8], cluster: ClusterId, at: BlockIndex) -> bool {
    !matches!(
        Header::open(block, cluster, at),
        Err(Void::Blank | Void::Magic | Void::Checksum | Void::Foreign { .. } | Void::Newer { .. })
    )
}

fn difference(found: &Header, ours: &Header) -> Option<String> {
    let differs = |what: &str, found: u16, ours: u16| {
        (found != ours).then(|| format!("its {what} is {found}, not {ours}"))
    };
    differs("number", found.marker.into(), ours.marker.into())
        .or_else(|| differs("count of markers", found.markers.into(), ours.markers.into()))
        .or_else(|| differs("count of members", found.members.into(), ours.members.into()))
}

fn add_places(
    marker: &mut Marker,
    (cluster, header): (ClusterId, &Header),
    labels: &[Label],
) -> Result<Vec<String>, MakeError> {
    let path = marker.path().to_owned();
    let io = |source| MakeError::Io { path: path.clone(), source };
    let taken = places(marker, (cluster, header)).map_err(io)?;
    let mut free = (0..header.places)
        .filter_map(Place::new)
        .filter(|place| !taken.iter().any(|(taken, _)| taken == place));
    let mut added = Vec::new();
    for label in labels {
        if taken.iter().any(|(_, known)| known.resource == label.resource) {
            continue;
        }
        let Some(place) = free.next() else {
            return Err(MakeError::Full { path: path.clone(), places: header.places });
        };
        for (index, block) in making::place(cluster, (place, label), header.members) {
            marker.write(index, &block).map_err(io)?;
        }
        marker.sync().map_err(io)?;
        added.push(label.name.clone());
    }
    Ok(added)
}

/// The resources that have places on a marker.
///
/// # Errors
/// The system's.
pub fn places(
    marker: &mut Marker,
    (cluster, header): (ClusterId, &Header),
) -> io::Result<Vec<(Place, Label)>> {
    let mut found = Vec::new();
    for place in (0..header.places).filter_map(Place::new) {
        let bytes = marker.read(Run { first: place.label(), count: 1 })?;
        match Label::open(bytes, cluster, place) {
            Ok(label) => found.push((place, label)),
            Err(Void::Blank) => {}
            Err(why) => return Err(io::Error::other(format!("{}: {why}", place.label()))),
        }
    }
    Ok(found)
}

/// Reads the header of a marker of `cluster`.
///
/// # Errors
/// [`MakeError::NoMarker`] where something else stands there, or the system's.
pub fn header_of(path: &Path, cluster: &str) -> Result<(Marker, Header), MakeError> {
    let mut marker = Marker::open(path)?;
    let io = |source| MakeError::Io { path: path.into(), source };
    let cluster = ClusterId::derive(cluster);
    let [first, second] = BlockIndex::HEADERS;
    let bytes = marker.read(Run { first, count: 2 }).map_err(io)?;
    let (front, back) = bytes.split_at(BLOCK_LEN);
    let header = match Header::open(front, cluster, first) {
        // Nothing was ever written there: the making was interrupted, or there was none.
        Err(why @ Void::Blank) => Err(why),
        Err(why) => Header::open(back, cluster, second).map_err(|_| why),
        header => header,
    };
    match header {
        Ok(header) => Ok((marker, header)),
        Err(why) => Err(MakeError::NoMarker { path: path.into(), why }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt as _;

    use hadrian_protocol::ids::ResourceId;
    use tempfile::TempDir;

    use super::*;

    fn wanted(dir: &TempDir, markers: usize, names: &[&str]) -> Wanted {
        let label = |name: &&str| Label {
            resource: ResourceId::derive("orders", name),
            name: (*name).into(),
        };
        let paths = (0..markers).map(|index| dir.path().join(format!("marker-{index}")));
        let wanted = Wanted {
            cluster: "orders".into(),
            members: 2,
            places: 2,
            labels: names.iter().map(label).collect(),
            set: [7; 16],
            made: WallTime::default(),
            paths: paths.collect(),
        };
        for path in &wanted.paths {
            let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.set_len(marker_len(2)).unwrap();
        }
        wanted
    }

    fn stamp(path: &Path, at: u64) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(b"somebody's", at).unwrap();
    }

    #[test]
    fn blank_files_become_markers_and_stay_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let first = make(&wanted(&dir, 3, &["db"])).unwrap();
        assert!(first.iter().all(|made| made.is_new && made.added == ["db"]));
        let again = make(&wanted(&dir, 3, &["db", "log"])).unwrap();
        assert!(again.iter().all(|made| !made.is_new && made.added == ["log"]));
        let full = make(&wanted(&dir, 3, &["db", "log", "more"])).unwrap_err();
        assert!(matches!(full, MakeError::Full { places: 2, .. }), "{full}");
    }

    #[test]
    fn what_somebody_else_has_written_is_never_touched() {
        for at in [0, 510, 65_536, 131_000] {
            let dir = tempfile::tempdir().unwrap();
            let wanted = wanted(&dir, 1, &["db"]);
            stamp(&wanted.paths[0], at);
            let before = std::fs::read(&wanted.paths[0]).unwrap();
            let error = make(&wanted).unwrap_err();
            assert!(matches!(error, MakeError::NotBlank { .. }), "{at}: {error}");
            assert!(error.to_string().contains("dd if=/dev/zero"), "the way out");
            assert!(std::fs::read(&wanted.paths[0]).unwrap() == before);
        }
    }

    #[test]
    fn one_foreign_marker_keeps_all_from_being_made() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = wanted(&dir, 3, &["db"]);
        stamp(&wanted.paths[2], 0);
        assert!(make(&wanted).is_err());
        let first = std::fs::read(&wanted.paths[0]).unwrap();
        assert!(first.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_marker_of_another_cluster_or_set_is_refused_with_what_differs() {
        let dir = tempfile::tempdir().unwrap();
        let ours = wanted(&dir, 1, &["db"]);
        make(&ours).unwrap();
        let other = Wanted { cluster: "stock".into(), ..ours.clone() };
        let error = make(&other).unwrap_err();
        assert!(error.to_string().contains("another cluster"), "{error}");
        assert!(header_of(&ours.paths[0], "stock").is_err());
        let larger = Wanted { members: 3, ..ours };
        let error = make(&larger).unwrap_err().to_string();
        assert!(error.contains("count of members is 2, not 3"), "{error}");
    }

    #[test]
    fn a_making_that_was_interrupted_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = wanted(&dir, 1, &["db"]);
        let cluster = ClusterId::derive("orders");
        let blocks = making::marker(cluster, &header(&wanted, [7; 16], 0));
        let mut marker = Marker::open(&wanted.paths[0]).unwrap();
        for (index, block) in blocks.iter().take(blocks.len() - 1) {
            marker.write(*index, block).unwrap();
        }
        assert!(header_of(&wanted.paths[0], "orders").is_err(), "the second copy alone is there");
        let made = make(&wanted).unwrap();
        assert!(made[0].is_new);
    }

    #[test]
    fn a_file_that_is_too_small_is_refused_with_both_sizes() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = Wanted { places: 3, ..wanted(&dir, 1, &["db"]) };
        let error = make(&wanted).unwrap_err();
        assert!(matches!(error, MakeError::TooSmall { .. }), "{error}");
    }
}
