//! What is allowed. Every problem is collected with its place, so that one run of `hadrian check`
//! shows all of them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hadrian_protocol::ids::{MEMBERS_MAX, MemberId, ResourceId, VOLUMES_MAX};
use hadrian_protocol::replica::{Mode, VolumeGeometry};
use toml::Spanned;

use super::file;
use crate::driver::Compression;
use crate::tls::Fingerprint;

const NAME_MAX: usize = 48;
const LOG_SIZE_DEFAULT: u64 = 1 << 30;
const LOG_SIZE_MIN: u64 = 64 << 20;
const LOG_SIZE_MAX: u64 = 1 << 40;
const VOLUME_SIZE_MAX: u64 = 1 << 50;

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// Whether links go unprotected.
    pub plaintext: bool,
    /// Silence that ends a link.
    pub timeout: Duration,
    /// Whether frames are compressed on their way.
    pub compression: Compression,
    /// The members, in the order of the file, which is their index.
    pub members: Vec<Member>,
    /// The resources.
    pub resources: Vec<Resource>,
}

/// A host of the cluster.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its place in the file.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Where its links arrive, host:port.
    pub address: String,
    /// Its pinned certificate, unless links are plaintext.
    pub fingerprint: Option<Fingerprint>,
    /// Where it keeps superblocks and logs.
    pub state_dir: PathBuf,
    /// Where its sockets are.
    pub run_dir: PathBuf,
    /// Where its key pair is.
    pub key_dir: PathBuf,
}

/// A resource: volumes under one log.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its identity, the same on every member.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// When a write is answered.
    pub mode: Mode,
    /// Whether every write is a commit.
    pub commit_on_write: bool,
    /// How long answers are held for a lost standby.
    pub peer_window: Duration,
    /// Bytes of log on each member.
    pub log_size_bytes: u64,
    /// Longest that the log stays unsynced.
    pub log_sync_interval: Duration,
    /// The first primary.
    pub primary: MemberId,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// NBD over TCP, by member.
    pub tcp: Vec<(MemberId, SocketAddr)>,
}

/// One volume of a resource.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its name within the resource.
    pub name: String,
    /// Its size.
    pub geometry: VolumeGeometry,
    /// Its backing store on each member, by index.
    pub stores: Vec<PathBuf>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no TOML, or has keys that do not exist.
    #[error("{}: {source}", .path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// What is wrong and where.
        source: toml::de::Error,
    },
    /// It says what may not be said.
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
}

/// One thing that is wrong, where, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong and what to write instead.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.text)
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

impl Config {
    /// The member of this name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// The resource of this name.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }

    /// The name of a member, for people.
    #[must_use]
    pub fn name_of(&self, id: MemberId) -> &str {
        self.members.get(usize::from(id.index())).map_or("?", |member| &member.name)
    }
}

impl Member {
    /// Where this member keeps its replica of `resource`.
    #[must_use]
    pub fn replica_dir(&self, resource: &Resource) -> PathBuf {
        self.state_dir.join(&resource.name)
    }

    /// The control socket of its daemon.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join(format!("{}.control", self.name))
    }

    /// The NBD socket of `resource` on this member.
    #[must_use]
    pub fn nbd_socket(&self, resource: &Resource) -> PathBuf {
        self.run_dir.join(format!("{}.nbd", resource.name))
    }
}

impl Resource {
    /// The stores of `member`, in the order of the volumes.
    #[must_use]
    pub fn stores(&self, member: MemberId) -> Vec<PathBuf> {
        let index = usize::from(member.index());
        self.volumes.iter().filter_map(|volume| volume.stores.get(index).cloned()).collect()
    }

    /// The sizes of the volumes.
    #[must_use]
    pub fn geometry(&self) -> Vec<VolumeGeometry> {
        self.volumes.iter().map(|volume| volume.geometry).collect()
    }

    /// Names under which the volumes are exported.
    #[must_use]
    pub fn exports(&self) -> Vec<String> {
        self.volumes.iter().map(|volume| format!("{}/{}", self.name, volume.name)).collect()
    }
}

struct Checker<'a> {
    text: &'a str,
    path: &'a Path,
    problems: Vec<Problem>,
}

pub(super) fn check(raw: &file::File, text: &str, path: &Path) -> Result<Config, ConfigError> {
    let mut checker = Checker { text, path, problems: Vec::new() };
    let cluster = checker.name(&raw.cluster, "cluster");
    let timeout = checker.duration(raw.link.timeout.as_ref(), Duration::from_secs(10));
    let compression = checker.compression(raw.link.compression.as_ref());
    let members = checker.members(raw);
    let resources: Vec<_> = raw
        .resource
        .iter()
        .map(|resource| checker.resource(&cluster, &members, resource))
        .collect();
    checker.distinct(raw.resource.iter().map(|resource| &resource.name), "resource name");
    let stores = raw.resource.iter().flat_map(|r| &r.volume).flat_map(|v| &v.store);
    checker.distinct_stores(stores);
    if checker.problems.is_empty() {
        let resources = resources.into_iter().flatten().collect();
        let plaintext = raw.link.plaintext;
        Ok(Config { cluster, plaintext, timeout, compression, members, resources })
    } else {
        Err(ConfigError::Problems(checker.problems))
    }
}

impl Checker<'_> {
    fn problem<T>(&mut self, at: &Spanned<T>, text: String) {
        let before = self.text.get(..at.span().start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        self.problems.push(Problem { path: self.path.into(), line, column, text });
    }

    fn name(&mut self, name: &Spanned<String>, what: &str) -> String {
        let text = name.get_ref();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(plain) {
            let rule = format!("1 to {NAME_MAX} of a-z, 0-9 and -");
            self.problem(name, format!("{text:?} is no {what} name; write {rule}"));
        }
        text.clone()
    }

    fn duration(&mut self, text: Option<&Spanned<String>>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        humantime::parse_duration(text.get_ref()).unwrap_or_else(|error| {
            let wrong = text.get_ref();
            self.problem(text, format!("{wrong:?} is no duration ({error}); write 200ms or 10s"));
            default
        })
    }

    fn size(&mut self, text: &Spanned<String>) -> u64 {
        let parsed = text.get_ref().parse::<bytesize::ByteSize>();
        parsed.map(|size| size.as_u64()).unwrap_or_else(|error| {
            let wrong = text.get_ref();
            self.problem(text, format!("{wrong:?} is no size ({error}); write 64MiB or 1GiB"));
            0
        })
    }

    fn distinct<'a>(&mut self, names: impl Iterator<Item = &'a Spanned<String>>, what: &str) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name.get_ref().clone()) {
                let text = name.get_ref();
                self.problem(name, format!("{what} {text:?} is used twice; each must differ"));
            }
        }
    }

    fn distinct_stores<'a>(
        &mut self,
        stores: impl Iterator<Item = (&'a String, &'a Spanned<PathBuf>)>,
    ) {
        let mut seen = BTreeSet::new();
        for (member, path) in stores {
            let shown = path.get_ref().display();
            if !path.get_ref().is_absolute() {
                self.problem(path, format!("{shown} is not absolute; write the whole path"));
            }
            if !seen.insert((member.clone(), path.get_ref().clone())) {
                let text =
                    format!("store {shown} is used twice on {member}; each volume has its own");
                self.problem(path, text);
            }
        }
    }

    fn members(&mut self, raw: &file::File) -> Vec<Member> {
        let count = raw.member.len();
        if !(2..=usize::from(MEMBERS_MAX)).contains(&count) {
            let text = format!("{count} members; a cluster has 2 to {MEMBERS_MAX}");
            self.problem(&raw.cluster, text);
        }
        self.distinct(raw.member.iter().map(|member| &member.name), "member name");
        self.distinct(raw.member.iter().map(|member| &member.address), "address");
        let members = raw.member.iter().zip(0..MEMBERS_MAX).filter_map(|(member, index)| {
            Some(self.member(member, MemberId::new(index)?, raw.link.plaintext))
        });
        members.collect()
    }

    fn member(&mut self, raw: &file::Member, id: MemberId, plaintext: bool) -> Member {
        let name = self.name(&raw.name, "member");
        let address = raw.address.get_ref().clone();
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            let text =
                format!("{address:?} is no address; write HOST:PORT, for example 10.0.0.1:7400");
            self.problem(&raw.address, text);
        }
        let fingerprint = match &raw.fingerprint {
            Some(text) => Fingerprint::parse(text.get_ref())
                .map_err(|error| self.problem(text, error.to_string()))
                .ok(),
            None => {
                if !plaintext {
                    let hint =
                        format!("run `hadrian keygen --member {name}` there and paste its line");
                    self.problem(&raw.name, format!("member {name:?} has no fingerprint; {hint}"));
                }
                None
            }
        };
        let or = |path: &Option<PathBuf>, default: &str| {
            path.clone().unwrap_or_else(|| PathBuf::from(default))
        };
        Member {
            id,
            name,
            address,
            fingerprint,
            state_dir: or(&raw.state_dir, "/var/lib/hadrian"),
            run_dir: or(&raw.run_dir, "/run/hadrian"),
            key_dir: or(&raw.key_dir, "/etc/hadrian"),
        }
    }

    fn find(&mut self, members: &[Member], name: &Spanned<String>) -> Option<MemberId> {
        let found = members.iter().find(|member| member.name == *name.get_ref());
        if found.is_none() {
            let known: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
            let (wrong, known) = (name.get_ref(), known.join(", "));
            self.problem(name, format!("{wrong:?} is no member; write one of {known}"));
        }
        found.map(|member| member.id)
    }

    fn resource(
        &mut self,
        cluster: &str,
        members: &[Member],
        raw: &file::Resource,
    ) -> Option<Resource> {
        let name = self.name(&raw.name, "resource");
        let mode = self.mode(raw.mode.as_ref());
        let commit_on_write = match raw.commit.as_ref().map(|text| (text, text.get_ref().as_str()))
        {
            None | Some((_, "flush")) => false,
            Some((_, "write")) => true,
            Some((at, wrong)) => {
                self.problem(
                    at,
                    format!("{wrong:?} is no commit rule; write \"flush\" or \"write\""),
                );
                false
            }
        };
        let log_size_bytes = raw.log_size.as_ref().map_or(LOG_SIZE_DEFAULT, |text| {
            let size = self.size(text);
            if !(LOG_SIZE_MIN..=LOG_SIZE_MAX).contains(&size) {
                self.problem(text, "a log has 64MiB to 1TiB".into());
            }
            size
        });
        let primary = match &raw.primary {
            Some(name) => self.find(members, name),
            None => members.first().map(|member| member.id),
        };
        let tcp = self.tcp(members, raw);
        if raw.volume.is_empty() || raw.volume.len() > usize::from(VOLUMES_MAX) {
            self.problem(&raw.name, format!("a resource has 1 to {VOLUMES_MAX} volumes"));
        }
        self.distinct(raw.volume.iter().map(|volume| &volume.name), "volume name");
        let volumes = raw.volume.iter().map(|volume| self.volume(members, volume)).collect();
        Some(Resource {
            id: ResourceId::derive(cluster, &name),
            name,
            mode,
            commit_on_write,
            peer_window: self.duration(raw.peer_window.as_ref(), Duration::ZERO),
            log_size_bytes,
            log_sync_interval: self
                .duration(raw.log_sync_interval.as_ref(), Duration::from_millis(200)),
            primary: primary?,
            volumes,
            tcp,
        })
    }

    fn mode(&mut self, text: Option<&Spanned<String>>) -> Mode {
        let Some(text) = text else { return Mode::default() };
        let all = [Mode::Sync, Mode::Nearsync, Mode::Async, Mode::Superasync];
        all.into_iter().find(|mode| mode.name() == text.get_ref()).unwrap_or_else(|| {
            let wrong = text.get_ref();
            let known = "sync, nearsync, async or superasync";
            self.problem(text, format!("{wrong:?} is no mode; write {known}"));
            Mode::default()
        })
    }

    fn compression(&mut self, text: Option<&Spanned<String>>) -> Compression {
        match text.map(|text| (text, text.get_ref().as_str())) {
            None | Some((_, "none")) => Compression::None,
            Some((_, "zstd")) => Compression::Zstd,
            Some((at, wrong)) => {
                let ways = "write \"none\" or \"zstd\"";
                self.problem(at, format!("{wrong:?} is no kind of compression; {ways}"));
                Compression::None
            }
        }
    }

    fn tcp(&mut self, members: &[Member], raw: &file::Resource) -> Vec<(MemberId, SocketAddr)> {
        let mut tcp = Vec::new();
        for (name, address) in &raw.nbd {
            let member = members.iter().find(|member| member.name == *name);
            match (member, address.get_ref().parse()) {
                (Some(member), Ok(address)) => tcp.push((member.id, address)),
                (None, _) => self.problem(address, format!("{name:?} is no member")),
                (_, Err(_)) => {
                    let wrong = address.get_ref();
                    self.problem(address, format!("{wrong:?} is no address; write IP:PORT"));
                }
            }
        }
        tcp
    }

    fn volume(&mut self, members: &[Member], raw: &file::Volume) -> Volume {
        let name = self.name(&raw.name, "volume");
        let size_bytes = self.size(&raw.size);
        let block_size = raw.block_size.as_ref().map_or(512, |at| {
            let block_size = *at.get_ref();
            if block_size != 512 && block_size != 4096 {
                self.problem(at, format!("a block size of {block_size}; write 512 or 4096"));
            }
            block_size.max(1)
        });
        let whole = size_bytes.is_multiple_of(u64::from(block_size));
        if size_bytes == 0 || !whole || size_bytes > VOLUME_SIZE_MAX {
            let text = format!(
                "a volume of {size_bytes} bytes; write at most 1PiB in whole blocks of {block_size} bytes"
            );
            self.problem(&raw.size, text);
        }
        let mut stores = Vec::new();
        for member in members {
            match raw.store.get(&member.name) {
                Some(path) => stores.push(path.get_ref().clone()),
                None => {
                    let text = format!("volume {name:?} has no store on {}; add one", member.name);
                    self.problem(&raw.name, text);
                }
            }
        }
        for (unknown, at) in &raw.store {
            if !members.iter().any(|member| member.name == *unknown) {
                self.problem(at, format!("store for {unknown:?}, which is no member"));
            }
        }
        Volume { name, geometry: VolumeGeometry { size_bytes, block_size }, stores }
    }
}
