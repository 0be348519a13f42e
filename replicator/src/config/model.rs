//! A configuration in order: what the rest of the program works with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hadrian_blockdev::history::Limits;
use hadrian_blockdev::superblock::{Label, LabelTooLong};
use hadrian_fencing::medium::{EtcdSource, Source};
use hadrian_fencing::watchdog::WatchdogSettings;
use hadrian_protocol::ids::{MemberId, ResourceId, VolumeIndex};
use hadrian_protocol::marks::lease::Timing;
use hadrian_protocol::node::{Home, OnLeaseEnd, OnWindowEnd, VerifyPlan};
use hadrian_protocol::replica::{Mode, VolumeGeometry};
use hadrian_protocol::resync::Takes;

use super::problem::Problem;
use crate::companions::Companions;
use crate::driver::{CompanionsStart, Compression};
use crate::hooks::Hook;
use crate::tls::Fingerprint;

/// A configuration that may be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// Most bytes that a daemon uses for the frames of all its resources.
    pub memory_bytes: u64,
    /// What keeps two members from being primary at the same time.
    pub fencing: Fencing,
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
    /// What may be used as it is written but should be known.
    pub warnings: Vec<Problem>,
}

/// What keeps two members from being primary at the same time (design §7).
#[derive(Clone, Debug)]
pub enum Fencing {
    /// Nothing but the members' own words.
    None {
        /// The file says so, and does not just say nothing.
        is_said: bool,
    },
    /// Ownership marks.
    Marks(Marks),
}

/// Ownership marks, and how leases on them are timed.
#[derive(Clone, Debug)]
pub struct Marks {
    /// The markers: one or three devices or files that all members reach; none where etcd takes
    /// their place.
    pub paths: Vec<PathBuf>,
    /// The etcd that takes the place of markers, if one does.
    pub etcd: Option<Box<EtcdSource>>,
    /// The times of each member's lease.
    pub timing: Timing,
    /// What resets a member's host where its clients cannot be held in time.
    pub watchdog: Option<WatchdogSettings>,
    /// What fences an owner by force.
    pub fence: Option<Hook>,
}

impl Fencing {
    /// The marks, if there are any.
    #[must_use]
    pub fn marks(&self) -> Option<&Marks> {
        match self {
            Self::None { .. } => None,
            Self::Marks(marks) => Some(marks),
        }
    }
}

impl Marks {
    /// The markers, whatever they are, in order.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        let files = self.paths.iter().cloned().map(Source::File);
        files.chain(self.etcd.clone().map(|etcd| Source::Etcd(*etcd))).collect()
    }
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
    /// What it does about slow, lost and late standbys.
    pub pace: Pace,
    /// How a standby is brought up that the log alone cannot bring up.
    pub resync: Resync,
    /// Bytes of log on each member.
    pub log_size_bytes: u64,
    /// Bytes of log that are kept for a standby that is away.
    pub log_retention_bytes: u64,
    /// Longest that the log stays unsynced.
    pub log_sync_interval: Duration,
    /// Most bytes of a recording of its events; none: it is not recorded.
    pub recording_bytes: Option<u64>,
    /// How much of the past each member keeps; none: nothing of it.
    pub history: Option<Limits>,
    /// The first primary.
    pub primary: MemberId,
    /// Whether an in-sync standby takes over by itself when the primary's lease is over.
    pub auto_takeover: bool,
    /// How often within an hour; zero: without limit.
    pub auto_takeover_limit: u32,
    /// What becomes of clients when a primary's right to serve ends.
    pub on_lease_end: OnLeaseEnd,
    /// What is told of events.
    pub on_event: Option<Hook>,
    /// Where it returns to by itself.
    pub home: Option<Home>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Files of the hosts that go where it goes, and the volume that carries them.
    pub companions: Option<Carrier>,
    /// Whether its volumes are block devices of the primary's kernel, and with how many queues, at
    /// most: the kernel makes no more than it has processors.
    pub ublk_queues: Option<u16>,
    /// NBD over TCP, by member.
    pub tcp: Vec<(MemberId, SocketAddr)>,
}

/// What a resource does about slow, lost and late standbys (design §4, §5).
#[derive(Clone, Debug)]
pub struct Pace {
    /// Who becomes principal standby, in order of preference.
    pub standbys: Vec<MemberId>,
    /// What becomes of held answers when the peer window ends.
    pub on_window_end: OnWindowEnd,
    /// Longest that one answer waits for a connected standby; zero: for ever.
    pub peer_wait_limit: Duration,
    /// How much later a standby applies.
    pub replay_delay: Duration,
    /// Most bytes that a standby has received and not applied.
    pub spool_limit_bytes: u64,
    /// Weaker modes for slow standbys.
    pub degrade: Vec<Mode>,
    /// An answer that waits so long asks for the next of them.
    pub degrade_after: Duration,
    /// A standby that keeps up for so long gives the stronger mode back.
    pub degrade_back: Duration,
}

/// How a standby is brought up that the log alone cannot bring up, and when it is looked at whether
/// it holds what it should (design §6.4, §8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resync {
    /// Beside its image, or into it.
    pub takes: Takes,
    /// A diverged replica returns to its primary by itself.
    pub rejoin_by_itself: bool,
    /// Most bytes that a primary reads for it in a second; none: no limit.
    pub rate: Option<u64>,
    /// When standbys are compared with their primary without being asked for it.
    pub verify: Option<VerifyPlan>,
}

/// The companion files of a resource.
#[derive(Clone, Debug)]
pub struct Carrier {
    /// Which files.
    pub paths: Vec<PathBuf>,
    /// The volume behind the others that no client sees.
    pub volume: Volume,
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

impl Config {
    /// What stands on the replicas of `member`.
    ///
    /// # Errors
    /// None: the names of a configuration are short enough.
    pub fn label(&self, member: &Member) -> Result<Label, LabelTooLong> {
        Label::new(&self.cluster, &member.name)
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
    /// Every volume, in order: those of the clients, and the one of the companion files.
    fn all_volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.iter().chain(self.companions.as_ref().map(|carrier| &carrier.volume))
    }

    /// The stores of `member`, in the order of the volumes.
    #[must_use]
    pub fn stores(&self, member: MemberId) -> Vec<PathBuf> {
        let index = usize::from(member.index());
        self.all_volumes().filter_map(|volume| volume.stores.get(index).cloned()).collect()
    }

    /// The sizes of the volumes.
    #[must_use]
    pub fn geometry(&self) -> Vec<VolumeGeometry> {
        self.all_volumes().map(|volume| volume.geometry).collect()
    }

    /// The companion files as `member` has them.
    #[must_use]
    pub fn companions_of(&self, member: &Member) -> Option<CompanionsStart> {
        let carrier = self.companions.as_ref()?;
        let volume = u16::try_from(self.volumes.len()).ok().and_then(VolumeIndex::new)?;
        let dir = member.replica_dir(self).join("companions");
        let companions = Companions { paths: carrier.paths.clone(), dir };
        Some(CompanionsStart { companions, volume })
    }

    /// Names under which the volumes are exported.
    #[must_use]
    pub fn exports(&self) -> Vec<String> {
        self.volumes.iter().map(|volume| format!("{}/{}", self.name, volume.name)).collect()
    }
}
