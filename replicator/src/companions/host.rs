//! The files of the host: looking at them, and putting those of a set in their place.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, fchown};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{Choice, Digest, File, FileSet, Known, Owner, SET_BYTES_MAX, choose};

/// Kept copies of files that were replaced; at this number nothing is replaced that would need one.
const KEPT_MAX: usize = 1000;
const KNOWN_NAME: &str = "known.json";
const KEPT_NAME: &str = "kept";
const BEING_WRITTEN: &str = "is just being written; it is read again";
const MODE_BITS: u32 = 0o7777;

/// The companion files of one resource on this host.
#[derive(Clone, Debug)]
pub struct Companions {
    /// Which files.
    pub paths: Vec<PathBuf>,
    /// Where this member notes what it has last seen of them, and keeps what it had to replace.
    pub dir: PathBuf,
}

/// What tells that a file was changed, without reading it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Look(Vec<Option<[i64; 7]>>);

/// A file as it is on this host.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which.
    pub path: PathBuf,
    /// Its content; `None`: it is not there.
    pub file: Result<Option<File>, Trouble>,
}

/// What cannot be done for a file, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {why}", .path.display())]
pub struct Trouble {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong, and the way out.
    pub why: String,
}

/// A file that was replaced or removed, and where it is now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Which file.
    pub path: PathBuf,
    /// What this host had in its place.
    pub copy: PathBuf,
}

/// What a member that becomes primary has done.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BroughtOut {
    /// Files that were replaced or removed.
    pub placed: Vec<PathBuf>,
    /// Those among them that had been changed here, too, or are gone now.
    pub kept: Vec<Kept>,
    /// What could not be done.
    pub troubles: Vec<Trouble>,
}

type KnownFiles = BTreeMap<PathBuf, Known>;

impl Trouble {
    fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into() }
    }

    /// Whether it ends by itself in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.why == BEING_WRITTEN
    }

    fn io(path: &Path, doing: &str, error: &io::Error) -> Self {
        Self::new(path, format!("cannot be {doing}: {error}"))
    }
}

impl Companions {
    /// Whether any of them may have been changed since an earlier look.
    #[must_use]
    pub fn look(&self) -> Look {
        let sign = |path: &PathBuf| {
            let found = fs::symlink_metadata(path).ok()?;
            let (inode, size) = (found.ino().cast_signed(), found.size().cast_signed());
            let changed = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
            let [a, b, c, d] = changed;
            Some([found.dev().cast_signed(), inode, size, a, b, c, d])
        };
        Look(self.paths.iter().map(sign).collect())
    }

    /// All of them as they are now.
    #[must_use]
    pub fn find(&self) -> Vec<Found> {
        let found = |path: &PathBuf| Found { path: path.clone(), file: read(path) };
        self.paths.iter().map(found).collect()
    }

    /// The set that is to follow `set`, if a file of this host is not what was last known of it.
    #[must_use]
    pub fn next_set(&self, set: &FileSet, found: &[Found]) -> Option<FileSet> {
        let known = self.known();
        let mut changed = set.files.iter().any(|(path, _)| !self.paths.contains(path));
        let mut files = Vec::with_capacity(found.len());
        for Found { path, file } in found {
            let before = set.get(path);
            let file = match (file, before) {
                (Ok(file), None) => {
                    changed = true;
                    file.clone()
                }
                (Ok(file), Some(before)) => {
                    let (host, held) = (Digest::of(file.as_ref()), Digest::of(before));
                    let in_step = Some(Known { set: held, host });
                    match host == held || known.get(path).copied() == in_step {
                        // As the set has it: an owner that this host does not know stays in it.
                        true => before.cloned(),
                        false => {
                            changed = true;
                            file.clone()
                        }
                    }
                }
                (Err(_), Some(before)) => before.cloned(),
                // Nothing is said of it until it can be read.
                (Err(_), None) => continue,
            };
            files.push((path.clone(), file));
        }
        changed.then(|| FileSet { generation: set.generation + 1, files })
    }

    /// A set that was made of this host's files is in the log, as safe as an answered flush.
    ///
    /// # Errors
    /// If it cannot be noted; then a later change elsewhere may seem to meet one here.
    pub fn was_written(&self, set: &FileSet, found: &[Found]) -> io::Result<()> {
        let mut known = self.known();
        for Found { path, file } in found {
            if let (Ok(host), Some(held)) = (file, set.get(path)) {
                let (set, host) = (Digest::of(held), Digest::of(host.as_ref()));
                known.insert(path.clone(), Known { set, host });
            }
        }
        self.remember(known)
    }

    /// Puts the files of a set in their places.
    #[must_use]
    pub fn bring_out(&self, set: &FileSet) -> BroughtOut {
        let mut done = BroughtOut::default();
        let mut known = self.known();
        for path in &self.paths {
            let Some(wanted) = set.get(path) else { continue };
            match self.bring_one(path, wanted, known.get(path).copied(), &mut done) {
                Ok(Some(now)) => drop(known.insert(path.clone(), now)),
                Ok(None) => {}
                Err(trouble) => done.troubles.push(trouble),
            }
        }
        if let Err(error) = self.remember(known) {
            done.troubles.push(Trouble::io(&self.dir.join(KNOWN_NAME), "written", &error));
        }
        done
    }

    fn bring_one(
        &self,
        path: &Path,
        wanted: Option<&File>,
        known: Option<Known>,
        done: &mut BroughtOut,
    ) -> Result<Option<Known>, Trouble> {
        let own = read(path)?;
        let (set, host) = (Digest::of(wanted), Digest::of(own.as_ref()));
        let choice = choose(known, set, host);
        match choice {
            Choice::InStep => return Ok(Some(Known { set, host })),
            Choice::Mine => return Ok(None),
            Choice::StaysHere => {
                let why = "was changed on this host and taken away on another; it stays, and goes \
                           to the others: remove it here if nobody needs it";
                return Err(Trouble::new(path, why));
            }
            Choice::Theirs | Choice::Both => {}
        }
        // Before anything is lost: what was changed here, and what nobody has any more.
        if let Some(own) = &own
            && (choice == Choice::Both || wanted.is_none())
        {
            let copy = self.keep(path, own)?;
            done.kept.push(Kept { path: path.into(), copy });
        }
        match wanted {
            Some(file) => done.troubles.extend(place(path, file)?),
            None => remove(path)?,
        }
        done.placed.push(path.into());
        let host = Digest::of(read(path)?.as_ref());
        Ok(Some(Known { set, host }))
    }

    /// Copies what this host had to where nothing is ever changed.
    fn keep(&self, path: &Path, own: &File) -> Result<PathBuf, Trouble> {
        let dir = self.dir.join(KEPT_NAME);
        let failed = |error: io::Error| Trouble::io(path, "kept, and is not replaced", &error);
        fs::create_dir_all(&dir).map_err(failed)?;
        for number in 1..=KEPT_MAX {
            let mut name = path.file_name().map(OsString::from).unwrap_or_default();
            name.push(format!(".{number}"));
            let copy = dir.join(name);
            match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy) {
                Ok(mut file) => {
                    file.write_all(&own.content).map_err(failed)?;
                    file.sync_all().and_then(|()| sync_dir(&dir)).map_err(failed)?;
                    return Ok(copy);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let why = format!(
            "was changed here and elsewhere, and {} holds {KEPT_MAX} copies of it already; remove \
             those that nobody needs",
            dir.display()
        );
        Err(Trouble::new(path, why))
    }

    /// What was last seen of each file. Nothing, if that cannot be read: then a file that differs
    /// is kept before it is replaced.
    fn known(&self) -> KnownFiles {
        let text = fs::read(self.dir.join(KNOWN_NAME)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn remember(&self, mut known: KnownFiles) -> io::Result<()> {
        known.retain(|path, _| self.paths.contains(path));
        fs::create_dir_all(&self.dir)?;
        let mut file = NamedTempFile::new_in(&self.dir)?;
        serde_json::to_writer(&mut file, &known)?;
        file.as_file().sync_all()?;
        file.persist(self.dir.join(KNOWN_NAME))?;
        sync_dir(&self.dir)
    }
}

/// Reads a file as it is at one moment.
fn read(path: &Path) -> Result<Option<File>, Trouble> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let mut file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(Trouble::new(path, "is a link; name the file that it leads to"));
        }
        Err(error) => return Err(Trouble::io(path, "read", &error)),
    };
    let failed = |error: io::Error| Trouble::io(path, "read", &error);
    let before = file.metadata().map_err(failed)?;
    if !before.is_file() {
        return Err(Trouble::new(path, "is no plain file; only those go with a resource"));
    }
    let mut content = Vec::new();
    let limit = SET_BYTES_MAX as u64 + 1;
    (&mut file).take(limit).read_to_end(&mut content).map_err(failed)?;
    if content.len() > SET_BYTES_MAX {
        let why = format!("is over {SET_BYTES_MAX} bytes; such a file belongs on a volume");
        return Err(Trouble::new(path, why));
    }
    let after = file.metadata().map_err(failed)?;
    let moment = |at: &fs::Metadata| (at.mtime(), at.mtime_nsec(), at.size());
    if moment(&before) != moment(&after) || after.size() != content.len() as u64 {
        return Err(Trouble::new(path, BEING_WRITTEN));
    }
    let (user, group) = (Uid::from_raw(after.uid()), Gid::from_raw(after.gid()));
    let user_name = User::from_uid(user).ok().flatten().map(|user| user.name);
    let group_name = Group::from_gid(group).ok().flatten().map(|group| group.name);
    let owner = |id, name: Option<String>| Owner { id, name: name.unwrap_or_default() };
    Ok(Some(File {
        mode: after.mode() & MODE_BITS,
        user: owner(after.uid(), user_name),
        group: owner(after.gid(), group_name),
        content,
    }))
}

/// Puts a file in its place: whoever opens the path finds the old one or the new one, whole, with
/// its owner and mode, whenever the power fails. A trouble that is returned did not prevent that.
fn place(path: &Path, file: &File) -> Result<Option<Trouble>, Trouble> {
    let failed = |error: io::Error| Trouble::io(path, "put in place", &error);
    let Some(dir) = path.parent() else { return Err(Trouble::new(path, "is a folder")) };
    if !dir.is_dir() {
        let why = format!("has no place: make the folder {}", dir.display());
        return Err(Trouble::new(path, why));
    }
    // Nobody but its owner can read it before it has its mode.
    let mut part = tempfile::Builder::new().prefix(".hadrian-").tempfile_in(dir).map_err(failed)?;
    part.write_all(&file.content).map_err(failed)?;
    let (user, group) = (user_of(&file.user), group_of(&file.group));
    let owned = fchown(part.as_file(), Some(user), Some(group)).err();
    // After the owner: changing that clears bits.
    part.as_file().set_permissions(fs::Permissions::from_mode(file.mode)).map_err(failed)?;
    part.as_file().sync_all().map_err(failed)?;
    part.persist(path).map_err(|error| failed(error.error))?;
    sync_dir(dir).map_err(failed)?;
    Ok(owned.map(|error| {
        let why = format!("is in place, and could not be given to {user}:{group}: {error}");
        Trouble::new(path, why)
    }))
}

fn remove(path: &Path) -> Result<(), Trouble> {
    let gone = fs::remove_file(path).and_then(|()| sync_dir(path.parent().unwrap_or(path)));
    gone.map_err(|error| Trouble::io(path, "removed", &error))
}

fn user_of(owner: &Owner) -> Uid {
    let named = User::from_name(&owner.name).ok().flatten();
    named.map_or(Uid::from_raw(owner.id), |user| user.uid)
}

fn group_of(owner: &Owner) -> Gid {
    let named = Group::from_name(&owner.name).ok().flatten();
    named.map_or(Gid::from_raw(owner.id), |group| group.gid)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A host: a folder with files, and what its member knows of them.
    struct Host {
        dir: tempfile::TempDir,
        companions: Companions,
    }

    impl Host {
        fn new(names: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let paths = names.iter().map(|name| dir.path().join(name)).collect();
            let companions = Companions { paths, dir: dir.path().join("known") };
            Self { dir, companions }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn write(&self, name: &str, content: &str) {
            fs::write(self.path(name), content).unwrap();
        }

        fn text(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.path(name)).ok()
        }

        /// The set that this host makes of `set`, as a primary.
        fn write_out(&self, set: &FileSet) -> Option<FileSet> {
            let found = self.companions.find();
            let next = self.companions.next_set(set, &found)?;
            self.companions.was_written(&next, &found).unwrap();
            Some(next)
        }

        /// The set as it is when it has come to this host, whose files lie elsewhere.
        fn here(&self, other: &Self, set: &FileSet) -> FileSet {
            let moved =
                |path: &PathBuf| self.dir.path().join(path.strip_prefix(other.dir.path()).unwrap());
            let files = set.files.iter().map(|(path, file)| (moved(path), file.clone()));
            FileSet { generation: set.generation, files: files.collect() }
        }
    }

    fn pair(names: &[&str]) -> (Host, Host) {
        (Host::new(names), Host::new(names))
    }

    #[test]
    fn files_go_where_the_role_goes_with_mode_and_owner() {
        let (alpha, beta) = pair(&["key", "hosts"]);
        alpha.write("key", "secret");
        let mode = fs::Permissions::from_mode(0o400);
        fs::set_permissions(alpha.path("key"), mode).unwrap();
        alpha.write("hosts", "10.0.0.1 db");
        let set = alpha.write_out(&FileSet::default()).unwrap();
        assert_eq!(alpha.write_out(&set), None, "nothing has changed");
        let done = beta.companions.bring_out(&beta.here(&alpha, &set));
        assert_eq!((done.placed.len(), done.kept, done.troubles), (2, vec![], vec![]));
        assert_eq!(beta.text("key").as_deref(), Some("secret"));
        let (from, to) = (fs::metadata(alpha.path("key")), fs::metadata(beta.path("key")));
        let (from, to) = (from.unwrap(), to.unwrap());
        assert_eq!((to.mode(), to.uid(), to.gid()), (from.mode(), from.uid(), from.gid()));
    }

    #[test]
    fn a_file_that_was_changed_on_both_sides_is_replaced_and_kept() {
        let (alpha, beta) = pair(&["key"]);
        beta.write("key", "mine");
        alpha.write("key", "theirs");
        let set = alpha.write_out(&FileSet::default()).unwrap();
        let done = beta.companions.bring_out(&beta.here(&alpha, &set));
        assert_eq!(beta.text("key").as_deref(), Some("theirs"));
        assert_eq!(fs::read_to_string(&done.kept[0].copy).unwrap(), "mine");
    }

    #[test]
    fn a_file_that_only_this_host_has_changed_stays_and_goes_to_the_others() {
        let (alpha, beta) = pair(&["key"]);
        alpha.write("key", "one");
        let set = beta.here(&alpha, &alpha.write_out(&FileSet::default()).unwrap());
        drop(beta.companions.bring_out(&set));
        beta.write("key", "two");
        assert_eq!(beta.companions.bring_out(&set), BroughtOut::default());
        let next = beta.write_out(&set).unwrap();
        assert_eq!(next.get(&beta.path("key")).unwrap().unwrap().content, b"two");
        assert_eq!(next.generation, set.generation + 1);
    }

    #[test]
    fn a_file_that_is_gone_elsewhere_goes_here_and_a_copy_stays() {
        let (alpha, beta) = pair(&["key"]);
        alpha.write("key", "one");
        let first = alpha.write_out(&FileSet::default()).unwrap();
        drop(beta.companions.bring_out(&beta.here(&alpha, &first)));
        fs::remove_file(alpha.path("key")).unwrap();
        let second = alpha.write_out(&first).unwrap();
        let done = beta.companions.bring_out(&beta.here(&alpha, &second));
        assert_eq!(beta.text("key"), None);
        assert_eq!(fs::read_to_string(&done.kept[0].copy).unwrap(), "one");
    }

    #[test]
    fn a_file_that_is_not_there_anywhere_else_is_not_removed() {
        let (alpha, beta) = pair(&["key"]);
        beta.write("key", "mine");
        let set = alpha.write_out(&FileSet::default()).unwrap();
        let done = beta.companions.bring_out(&beta.here(&alpha, &set));
        assert_eq!(beta.text("key").as_deref(), Some("mine"));
        assert!(done.troubles[0].why.contains("taken away on another"), "{done:?}");
    }

    #[test]
    fn links_folders_and_large_files_are_told_of_and_keep_what_the_set_has() {
        let host = Host::new(&["key", "link", "dir", "large"]);
        host.write("key", "one");
        let first = host.write_out(&FileSet::default()).unwrap();
        symlink("key", host.path("link")).unwrap();
        fs::create_dir(host.path("dir")).unwrap();
        fs::write(host.path("large"), vec![0; SET_BYTES_MAX + 1]).unwrap();
        let whys: Vec<_> =
            host.companions.find().into_iter().filter_map(|f| f.file.err()).collect();
        let said = ["is a link", "is no plain file", "is over"];
        for (trouble, said) in whys.iter().zip(said) {
            assert!(trouble.why.starts_with(said), "{trouble}");
        }
        assert_eq!((whys.len(), host.write_out(&first)), (3, None));
        let done = host.companions.bring_out(&first);
        assert_eq!(done.troubles.len(), 3, "none of them is replaced: {done:?}");
    }

    #[test]
    fn a_place_that_does_not_exist_is_told_of() {
        let (alpha, beta) = pair(&["sub/key"]);
        fs::create_dir(alpha.path("sub")).unwrap();
        alpha.write("sub/key", "one");
        let set = alpha.write_out(&FileSet::default()).unwrap();
        let done = beta.companions.bring_out(&beta.here(&alpha, &set));
        assert!(done.troubles[0].why.contains("make the folder"), "{done:?}");
    }

    #[test]
    fn a_changed_file_looks_changed() {
        let host = Host::new(&["key", "other"]);
        let nothing = host.companions.look();
        host.write("key", "one");
        let one = host.companions.look();
        assert_ne!(nothing, one);
        assert_eq!(one, host.companions.look());
        let mode = fs::Permissions::from_mode(0o400);
        fs::set_permissions(host.path("key"), mode).unwrap();
        assert_ne!(one, host.companions.look());
    }
}
