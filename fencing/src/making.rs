//! Making markers: a blank device or file becomes one, and resources get their places.
//!
//! Nothing foreign is ever written: whatever stands in the first blocks decides. A making that was
//! interrupted left no marker, because the first block is written last.

use std::io;

use hadrian_protocol::ids::ClusterId;
use hadrian_protocol::marks::block::Void;
use hadrian_protocol::marks::header::{Header, Label};
use hadrian_protocol::marks::layout::{BLOCK_LEN, BlockIndex, Place, Run, marker_len};
use hadrian_protocol::marks::making;
use hadrian_protocol::time::WallTime;

use crate::medium::{Medium, OpenError, Source};

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
    /// The markers, in the order of the configuration.
    pub markers: Vec<Source>,
}

/// What was done to a marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Made {
    /// Which.
    pub place: String,
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
    Open(#[from] OpenError),
    /// The system refuses a read or write.
    #[error("{place}: {source}; see that it answers, and ask again")]
    Io {
        /// Which marker.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// It holds something.
    #[error(
        "{place} is not blank: {why} (block {block}); it was not written. If nobody needs what is \
         there, blank it first: {way_out}"
    )]
    NotBlank {
        /// Which marker.
        place: String,
        /// The first block that holds something.
        block: u64,
        /// What.
        why: Void,
        /// The command that blanks it.
        way_out: String,
    },
    /// It is none.
    #[error(
        "{place} is no marker of this cluster: {why}; make it one with: hadrian mark format, or \
         correct fencing in the configuration"
    )]
    NoMarker {
        /// Which.
        place: String,
        /// What stands there.
        why: Void,
    },
    /// It is too small.
    #[error(
        "{place} has {has} bytes, a marker for so many resources needs {needs}; take a larger one"
    )]
    TooSmall {
        /// Which marker.
        place: String,
        /// Its size.
        has: u64,
        /// What is needed.
        needs: u64,
    },
    /// One that is a marker already does not go with the configuration.
    #[error("{place} is a marker already, and {what}; it was not written")]
    Differs {
        /// Which marker.
        place: String,
        /// In which respect.
        what: String,
    },
    /// All places are taken.
    #[error("{place} has {places} places and all are taken; make a new set of markers with more")]
    Full {
        /// Which marker.
        place: String,
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
    for (index, source) in wanted.markers.iter().enumerate() {
        let mut marker = source.open(&wanted.cluster)?;
        let found = look(marker.as_mut(), wanted, index)?;
        if let Found::Ours(header) = &found {
            set = set.or(Some(header.set));
        }
        markers.push((marker, found));
    }
    let set = set.unwrap_or(wanted.set);
    let mut all = Vec::new();
    for (index, (mut marker, found)) in markers.into_iter().enumerate() {
        let place = marker.to_string();
        let io = |source| MakeError::Io { place: place.clone(), source };
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
        let added = add_places(marker.as_mut(), (cluster, &header), &wanted.labels)?;
        all.push(Made { place, is_new, added });
    }
    Ok(all)
}

fn header(wanted: &Wanted, set: [u8; 16], index: usize) -> Header {
    Header {
        set,
        marker: u8::try_from(index).unwrap_or(u8::MAX),
        markers: u8::try_from(wanted.markers.len()).unwrap_or(u8::MAX),
        members: wanted.members,
        places: wanted.places,
        made: wanted.made,
        cluster_name: wanted.cluster.clone(),
    }
}

fn look(marker: &mut dyn Medium, wanted: &Wanted, index: usize) -> Result<Found, MakeError> {
    let place = marker.to_string();
    let io = |source| MakeError::Io { place: place.clone(), source };
    let cluster = ClusterId::derive(&wanted.cluster);
    let needs = marker_len(wanted.places);
    if let Some(has) = marker.size_bytes().map_err(io)?.filter(|has| *has < needs) {
        return Err(MakeError::TooSmall { place, has, needs });
    }
    let blocks = Run { first: BlockIndex::new(0), count: BLANK_BLOCKS };
    let bytes = &marker.read(blocks).map_err(io)?;
    let [first, _] = BlockIndex::HEADERS;
    if let Ok(header) = Header::open(bytes, cluster, first) {
        let ours = self::header(wanted, header.set, index);
        return match difference(&header, &ours) {
            None => Ok(Found::Ours(header)),
            Some(what) => Err(MakeError::Differs { place, what }),
        };
    }
    for (block, at) in bytes.chunks(BLOCK_LEN).zip(blocks.blocks()) {
        let is_part = at != first && is_own(block, cluster, at);
        if block.iter().any(|byte| *byte != 0) && !is_part {
            let why = Header::open(block, cluster, at).err().unwrap_or(Void::Magic);
            let way_out = marker.how_to_blank(BLANK_BLOCKS);
            return Err(MakeError::NotBlank { place, block: at.get(), why, way_out });
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
    marker: &mut dyn Medium,
    (cluster, header): (ClusterId, &Header),
    labels: &[Label],
) -> Result<Vec<String>, MakeError> {
    let place = marker.to_string();
    let io = |source| MakeError::Io { place: place.clone(), source };
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
            return Err(MakeError::Full { place, places: header.places });
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
    marker: &mut dyn Medium,
    (cluster, header): (ClusterId, &Header),
) -> io::Result<Vec<(Place, Label)>> {
    let all: Vec<_> = (0..header.places).filter_map(Place::new).collect();
    let runs: Vec<_> = all.iter().map(|place| Run { first: place.label(), count: 1 }).collect();
    let mut found = Vec::new();
    for (place, bytes) in all.into_iter().zip(marker.read_each(&runs)?) {
        match Label::open(&bytes, cluster, place) {
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
pub fn header_of(source: &Source, cluster: &str) -> Result<(Box<dyn Medium>, Header), MakeError> {
    let mut marker = source.open(cluster)?;
    let place = || source.to_string();
    let io = |source| MakeError::Io { place: place(), source };
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
        Err(why) => Err(MakeError::NoMarker { place: place(), why }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt as _;
    use std::path::{Path, PathBuf};

    use hadrian_protocol::ids::ResourceId;
    use tempfile::TempDir;

    use super::*;

    fn paths(dir: &TempDir, markers: usize) -> Vec<PathBuf> {
        (0..markers).map(|index| dir.path().join(format!("marker-{index}"))).collect()
    }

    fn wanted(dir: &TempDir, markers: usize, names: &[&str]) -> Wanted {
        let label = |name: &&str| Label {
            resource: ResourceId::derive("orders", name),
            name: (*name).into(),
        };
        let wanted = Wanted {
            cluster: "orders".into(),
            members: 2,
            places: 2,
            labels: names.iter().map(label).collect(),
            set: [7; 16],
            made: WallTime::default(),
            markers: paths(dir, markers).into_iter().map(Source::File).collect(),
        };
        for path in paths(dir, markers) {
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
            let path = &paths(&dir, 1)[0];
            stamp(path, at);
            let before = std::fs::read(path).unwrap();
            let error = make(&wanted).unwrap_err();
            assert!(matches!(error, MakeError::NotBlank { .. }), "{at}: {error}");
            assert!(error.to_string().contains("dd if=/dev/zero"), "the way out");
            assert!(std::fs::read(path).unwrap() == before);
        }
    }

    #[test]
    fn one_foreign_marker_keeps_all_from_being_made() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = wanted(&dir, 3, &["db"]);
        stamp(&paths(&dir, 3)[2], 0);
        assert!(make(&wanted).is_err());
        let first = std::fs::read(&paths(&dir, 3)[0]).unwrap();
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
        assert!(header_of(&ours.markers[0], "stock").is_err());
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
        let mut marker = wanted.markers[0].open("orders").unwrap();
        for (index, block) in blocks.iter().take(blocks.len() - 1) {
            marker.write(*index, block).unwrap();
        }
        assert!(header_of(&wanted.markers[0], "orders").is_err(), "the second copy alone is there");
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
