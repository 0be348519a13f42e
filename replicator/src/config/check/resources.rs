//! Resources and their volumes.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hadrian_protocol::ids::{MemberId, ResourceId, VOLUMES_MAX};
use hadrian_protocol::node::OnLeaseEnd;
use hadrian_protocol::replica::{Mode, VolumeGeometry};
use toml::Spanned;

use super::Checker;
use crate::companions;
use crate::config::file;
use crate::config::model::{Carrier, Member, Resource, Volume};

/// Takeovers by itself within an hour.
const TAKEOVERS_DEFAULT: u32 = 4;
const TAKEOVERS_MAX: u32 = 1000;
const LOG_SIZE_DEFAULT: u64 = 1 << 30;
const LOG_SIZE_MIN: u64 = 64 << 20;
const LOG_SIZE_MAX: u64 = 1 << 40;
const VOLUME_SIZE_MAX: u64 = 1 << 50;
const PEER_WINDOW: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const SYNC_DEFAULT: Duration = Duration::from_millis(200);
/// One thread serves all of them.
const UBLK_QUEUES_DEFAULT: u16 = 4;
const UBLK_QUEUES_MAX: u16 = 16;
const RECORDING_MIN: u64 = 1 << 20;
const SYNC_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);

impl Checker<'_> {
    pub(super) fn resource(
        &mut self,
        cluster: &str,
        members: &[Member],
        (file, raw): (&file::File, &file::Resource),
    ) -> Option<Resource> {
        let name = self.name(&raw.name, "resource");
        let mode = self.mode(raw.mode.as_ref());
        let commit_on_write = self.commit(raw.commit.as_ref());
        let log_size_bytes = self.log_size(raw.log_size.as_ref());
        let log_retention_bytes = self.log_retention(raw.log_retention.as_ref(), log_size_bytes);
        let primary = match &raw.primary {
            Some(name) => self.find(members, name),
            None => members.first().map(|member| member.id),
        };
        let auto_takeover_limit = self.takeover_limit(raw.auto_takeover_limit.as_ref());
        let (tcp, sync) = (self.tcp(members, raw), raw.log_sync_interval.as_ref());
        if raw.volume.is_empty() || raw.volume.len() > usize::from(VOLUMES_MAX) {
            self.problem(&raw.name, format!("a resource has 1 to {VOLUMES_MAX} volumes"));
        }
        self.distinct(raw.volume.iter().map(|volume| &volume.name), "volume name");
        let volumes: Vec<_> =
            raw.volume.iter().map(|volume| self.volume(members, volume)).collect();
        let companions = self.companions(members, &name, raw);
        Some(Resource {
            id: ResourceId::derive(cluster, &name),
            name,
            mode,
            commit_on_write,
            peer_window: self.duration(raw.peer_window.as_ref(), Duration::ZERO, PEER_WINDOW),
            log_size_bytes,
            log_retention_bytes,
            log_sync_interval: self.duration(sync, SYNC_DEFAULT, SYNC_INTERVAL),
            ublk_queues: self.ublk_queues(raw),
            history: self.history(raw, &volumes),
            recording_bytes: self.recording(raw.recording.as_ref()),
            pace: self.pace(members, raw, mode),
            resync: self.resync(raw),
            primary: primary?,
            auto_takeover_limit,
            on_event: self.on_event(file, raw),
            home: self.home(members, raw, primary?, auto_takeover_limit),
            on_lease_end: self.on_lease_end(raw.on_lease_end.as_ref()),
            auto_takeover: raw.auto_takeover.as_ref().is_some_and(|takes| *takes.get_ref()),
            volumes,
            companions,
            tcp,
        })
    }

    fn on_lease_end(&mut self, text: Option<&Spanned<String>>) -> OnLeaseEnd {
        match text.map(|text| (text, text.get_ref().as_str())) {
            None | Some((_, "hold")) => OnLeaseEnd::Hold,
            Some((_, "fail")) => OnLeaseEnd::Fail,
            Some((at, wrong)) => {
                let ways = "write \"hold\" or \"fail\"";
                self.problem(at, format!("{wrong:?} is no rule for the end of a lease; {ways}"));
                OnLeaseEnd::Hold
            }
        }
    }

    fn takeover_limit(&mut self, limit: Option<&Spanned<u32>>) -> u32 {
        let Some(limit) = limit else { return TAKEOVERS_DEFAULT };
        if *limit.get_ref() > TAKEOVERS_MAX {
            let text = format!("write 0, for no limit, to {TAKEOVERS_MAX} takeovers an hour");
            self.problem(limit, text);
        }
        *limit.get_ref()
    }

    fn commit(&mut self, text: Option<&Spanned<String>>) -> bool {
        match text.map(|text| (text, text.get_ref().as_str())) {
            None | Some((_, "flush")) => false,
            Some((_, "write")) => true,
            Some((at, wrong)) => {
                let ways = "write \"flush\" or \"write\"";
                self.problem(at, format!("{wrong:?} is no commit rule; {ways}"));
                false
            }
        }
    }

    fn log_size(&mut self, text: Option<&Spanned<String>>) -> u64 {
        let Some(text) = text else { return LOG_SIZE_DEFAULT };
        let size = self.size(text);
        if !(LOG_SIZE_MIN..=LOG_SIZE_MAX).contains(&size) {
            self.problem(text, "a log has 64MiB to 1TiB".into());
        }
        size
    }

    /// The rest of the log is for what is not in the backing store yet.
    fn log_retention(&mut self, text: Option<&Spanned<String>>, log_size_bytes: u64) -> u64 {
        let most = log_size_bytes / 2;
        let Some(text) = text else { return most };
        let size = self.size(text);
        if size > most {
            let most = bytesize::ByteSize(most);
            self.problem(text, format!("more than half of the log; write at most {most}"));
        }
        size
    }

    fn recording(&mut self, text: Option<&Spanned<String>>) -> Option<u64> {
        let text = text?;
        let size = self.size(text);
        if size < RECORDING_MIN {
            self.problem(text, "a recording has at least 1MiB".into());
        }
        Some(size)
    }

    /// Those of each device; `None` where there is none.
    fn ublk_queues(&mut self, raw: &file::Resource) -> Option<u16> {
        let queues = raw.ublk_queues.as_ref().map_or(UBLK_QUEUES_DEFAULT, |at| {
            let queues = *at.get_ref();
            if !(1..=UBLK_QUEUES_MAX).contains(&queues) {
                self.problem(at, format!("a device has 1 to {UBLK_QUEUES_MAX} queues"));
            }
            queues
        });
        raw.ublk.then_some(queues)
    }

    pub(super) fn mode(&mut self, text: Option<&Spanned<String>>) -> Mode {
        let Some(text) = text else { return Mode::default() };
        let all = [Mode::Sync, Mode::Nearsync, Mode::Async, Mode::Superasync];
        all.into_iter().find(|mode| mode.name() == text.get_ref()).unwrap_or_else(|| {
            let wrong = text.get_ref();
            let known = "sync, nearsync, async or superasync";
            self.problem(text, format!("{wrong:?} is no mode; write {known}"));
            Mode::default()
        })
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

    /// Files that go where the resource goes, in a volume of their own beside its log.
    fn companions(
        &mut self,
        members: &[Member],
        name: &str,
        raw: &file::Resource,
    ) -> Option<Carrier> {
        let first = raw.companions.first()?;
        if raw.companions.len() > companions::FILE_COUNT_MAX {
            let most = companions::FILE_COUNT_MAX;
            self.problem(first, format!("a resource has at most {most} companion files"));
        }
        if raw.volume.len() >= usize::from(VOLUMES_MAX) {
            let text = format!("companions take one of the {VOLUMES_MAX} volumes of a resource");
            self.problem(first, text);
        }
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in &raw.companions {
            self.absolute(path);
            if paths.contains(path.get_ref()) {
                self.problem(path, "this file is named twice".into());
            }
            paths.push(path.get_ref().clone());
        }
        let store = |member: &Member| member.state_dir.join(name).join(companions::STORE_NAME);
        let geometry = VolumeGeometry { size_bytes: companions::VOLUME_BYTES, block_size: 4096 };
        let stores = members.iter().map(store).collect();
        let volume = Volume { name: "companions".into(), geometry, stores };
        Some(Carrier { paths, volume })
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
                "a volume of {size_bytes} bytes; write at most 1PiB in whole blocks of \
                 {block_size} bytes"
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
