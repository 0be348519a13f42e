//! What a replica remembers over a crash: the content of its superblock.

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Put, Reader};
use crate::frame::LogPosition;
use crate::history::History;
use crate::ids::{Epoch, Incarnate, Incarnation, Lsn, MEMBERS_MAX, MemberId, ResourceId};
pub use crate::sizes::{Sizes, VOLUME_BYTES_MAX, VolumeGeometry, describe};
use crate::sizes::{get_growths, get_volumes, put_growths, put_volumes};

/// When a client's write is answered (design §3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A flush is answered when it is durable on both.
    Sync,
    /// A flush is answered when it is durable here and received there.
    #[default]
    Nearsync,
    /// An answer waits until the frame was handed to the connection.
    Async,
    /// Shipping never holds a client back.
    Superasync,
}

impl Mode {
    /// Whether the standby is part of the in-sync set in this mode.
    #[must_use]
    pub const fn waits_for_standby(self) -> bool {
        matches!(self, Self::Sync | Self::Nearsync)
    }

    /// The code of it in messages and superblocks.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Sync => 1,
            Self::Nearsync => 2,
            Self::Async => 3,
            Self::Superasync => 4,
        }
    }

    /// The mode that `code` names.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Sync,
            2 => Self::Nearsync,
            3 => Self::Async,
            4 => Self::Superasync,
            _ => return None,
        })
    }

    /// As configuration and status write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Nearsync => "nearsync",
            Self::Async => "async",
            Self::Superasync => "superasync",
        }
    }

    /// The mode of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sync, Self::Nearsync, Self::Async, Self::Superasync]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

/// The role that a replica has, or takes up again when it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves writes; after a start only behind the start gate (design §6.3).
    Primary,
    /// Receives the log.
    Standby,
}

/// Content of a replica's volumes at the start of its history: two replicas may follow one log
/// only if they began alike (design §8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// Every byte is zero.
    Zero,
    /// The blake3 digest over all volumes in their order.
    Digest([u8; 32]),
}

/// What a replica's image is at the moment (design §8.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Image {
    /// A point of its history: the checkpoint, and what is applied of the log behind it.
    #[default]
    Whole,
    /// No point of any history: a copy that is being completed in place, or was begun elsewhere
    /// and put here. It cannot be taken over.
    Incomplete,
    /// About to be the checkpoint: what is staged beside it belongs into it, and the log begins
    /// anew at the checkpoint. Opening the replica finishes that.
    Switching,
}

impl Image {
    const fn code(self) -> u8 {
        match self {
            Self::Whole => 1,
            Self::Incomplete => 2,
            Self::Switching => 3,
        }
    }
}

pub(crate) fn put_image(out: &mut Vec<u8>, image: Image) {
    out.put_u8(image.code());
}

pub(crate) fn get_image(reader: &mut Reader<'_>) -> Result<Image, CodecError> {
    match reader.u8("state of the image")? {
        1 => Ok(Image::Whole),
        2 => Ok(Image::Incomplete),
        3 => Ok(Image::Switching),
        other => Err(CodecError::Value { field: "state of the image", value: u64::from(other) }),
    }
}

/// The word of a primary to a standby that it is in the in-sync set (design §5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InSetOf {
    /// The epoch in which it was given; of no worth in any other.
    pub epoch: Epoch,
    /// The life of the standby to which it was given.
    pub incarnation: Incarnation,
}

/// An old primary's durable note that it handed over (design §6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Release {
    /// To whom.
    pub to: MemberId,
    /// The epoch that the other may begin.
    pub epoch: Epoch,
    /// The end of the log at the handover.
    pub lsn: Lsn,
}

/// When a member's image was last compared with that of this primary, and what came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// With whose.
    pub member: MemberId,
    /// When that began, in microseconds since 1970 by the primary's wall clock; where nothing was
    /// found out yet, from when on the next one is counted.
    pub began_us: u64,
    /// What came of it; none: there was none yet.
    pub found: Option<Found>,
}

/// What a comparison that came to its end has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Found {
    /// When it ended, in microseconds since 1970.
    pub ended_us: u64,
    /// Bytes that differed, in whole leaves.
    pub differs: u64,
    /// Bytes of these that were repaired.
    pub repaired: u64,
}

/// A replica was taken back to a point of its own history, to lead from there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WentBack {
    /// The point.
    pub to: LogPosition,
    /// The end of the log before: what was between the two is in quarantine.
    pub from: Lsn,
}

/// All that a replica must not forget. It is written whole, atomically, and before anything that
/// rests on it is said or done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaState {
    /// Which resource.
    pub resource: ResourceId,
    /// Whose replica.
    pub member: MemberId,
    /// Its life; one more at each start.
    pub incarnation: Incarnation,
    /// The role to take up.
    pub role: Role,
    /// It accepts no session of a lower epoch (I7).
    pub promised: Epoch,
    /// The newest epoch that it began itself and owned.
    pub owned: Epoch,
    /// The mode of the resource when it was last primary, or as its primary told.
    pub mode: Mode,
    /// As primary: the replicas without which no write may be answered, itself among them.
    pub in_sync: Vec<Incarnate>,
    /// As standby: the primary's word.
    pub in_set_of: Option<InSetOf>,
    /// Set when this replica handed over and has not followed the new epoch yet.
    pub release: Option<Release>,
    /// The epochs of its log.
    pub history: History,
    /// Frames that end at or before this may be in the image; beyond it none is (design §2.5).
    pub apply_limit: Lsn,
    /// How far its log was durable when this was written (design §2.3).
    pub durable: Lsn,
    /// How often its log had been cut when this was written: a cut ends what was known before.
    pub truncations: u64,
    /// The image holds everything before this, durably; replay begins here.
    pub checkpoint: LogPosition,
    /// Whether its image is that.
    pub image: Image,
    /// An operator wants it back with its primary, whatever it holds of its own (design §6.4).
    pub rejoin: bool,
    /// As primary: when the images of the others were compared with this one.
    pub verified: Vec<Verified>,
    /// It went back, and has led nobody since. Until it does, or an operator gives that up, it
    /// follows nobody (design §6.2).
    pub went_back: Option<WentBack>,
    /// Content at the start of the history.
    pub base: Base,
    /// Its volumes.
    pub volumes: Vec<VolumeGeometry>,
    /// How often one of them was grown since the creation.
    pub growths: u32,
}

/// Version 1: the first.
const VERSION: u16 = 1;

impl ReplicaState {
    /// The state of a replica that was just created.
    #[must_use]
    pub fn created(
        resource: ResourceId,
        member: MemberId,
        role: Role,
        mode: Mode,
        base: Base,
        volumes: Vec<VolumeGeometry>,
    ) -> Self {
        Self {
            resource,
            member,
            incarnation: Incarnation::default(),
            role,
            promised: Epoch::NONE_YET,
            owned: Epoch::NONE_YET,
            mode,
            in_sync: Vec::new(),
            in_set_of: None,
            release: None,
            history: History::default(),
            apply_limit: Lsn::START,
            durable: Lsn::START,
            truncations: 0,
            checkpoint: LogPosition::genesis(resource),
            image: Image::Whole,
            rejoin: false,
            verified: Vec::new(),
            went_back: None,
            base,
            volumes,
            growths: 0,
        }
    }

    /// Its volumes as others compare them with theirs.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes { growths: self.growths, volumes: self.volumes.clone() }
    }

    /// This life of this replica.
    #[must_use]
    pub fn life(&self) -> Incarnate {
        Incarnate { member: self.member, incarnation: self.incarnation }
    }

    /// The state of a replica that has nothing but the image that this one had at `at`, a position
    /// that it had in its image: of a copy that is carried to another host (design §8.1).
    #[must_use]
    pub fn seeded_at(&self, at: LogPosition) -> Self {
        let mut history = self.history.clone();
        history.truncate(at.lsn);
        let (base, volumes) = (self.base, self.volumes.clone());
        let (resource, member, mode) = (self.resource, self.member, self.mode);
        let new = Self::created(resource, member, Role::Standby, mode, base, volumes);
        let (promised, durable, growths) = (history.epoch(), at.lsn, self.growths);
        Self { history, promised, durable, apply_limit: at.lsn, checkpoint: at, growths, ..new }
    }

    /// The bytes that the superblock holds.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.put_u16_le(VERSION);
        out.put_slice(self.resource.as_bytes());
        out.put_incarnate(self.life());
        out.put_u8(match self.role {
            Role::Primary => 1,
            Role::Standby => 2,
        });
        out.put_epoch(self.promised);
        out.put_epoch(self.owned);
        out.put_u8(self.mode.code());
        out.put_list(&self.in_sync, |out, life| out.put_incarnate(*life));
        out.put_option(self.in_set_of, |out, word| {
            out.put_epoch(word.epoch);
            out.put_u64_le(word.incarnation.get());
        });
        out.put_option(self.release, put_release);
        self.history.put(&mut out);
        out.put_lsn(self.apply_limit);
        out.put_lsn(self.durable);
        out.put_u64_le(self.truncations);
        out.put_position(self.checkpoint);
        put_image(&mut out, self.image);
        out.put_flag(self.rejoin);
        put_base(&mut out, self.base);
        put_volumes(&mut out, &self.volumes);
        // Added later, so it stands at the end, and only where there is something: superblocks
        // without it stay as they were.
        let (went_back, grown) = (self.went_back, self.growths > 0);
        if !self.verified.is_empty() || went_back.is_some() || grown {
            out.put_list(&self.verified, put_verified);
        }
        if went_back.is_some() || grown {
            out.put_option(went_back, put_went_back);
        }
        put_growths(&mut out, self.growths);
        out
    }

    /// Reads what [`ReplicaState::encode`] wrote.
    ///
    /// # Errors
    /// [`CodecError`]; version numbers above this program's are reported as a wrong value of
    /// "superblock version".
    pub fn decode(body: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let version = reader.u16("superblock version")?;
        if version != VERSION {
            let value = u64::from(version);
            return Err(CodecError::Value { field: "superblock version", value });
        }
        let resource = reader.resource("resource")?;
        let life = reader.incarnate("member")?;
        let state = Self {
            resource,
            member: life.member,
            incarnation: life.incarnation,
            role: get_role(&mut reader)?,
            promised: reader.epoch("promised epoch")?,
            owned: reader.epoch("owned epoch")?,
            mode: get_mode(&mut reader)?,
            in_sync: reader
                .list("in-sync set", usize::from(MEMBERS_MAX), |r| r.incarnate("in-sync set"))?,
            in_set_of: reader.option("in-sync word", |r| {
                let epoch = r.epoch("in-sync word")?;
                Ok(InSetOf { epoch, incarnation: r.incarnation("in-sync word")? })
            })?,
            release: reader.option("release", get_release)?,
            history: History::get(&mut reader)?,
            apply_limit: reader.lsn("apply limit")?,
            durable: reader.lsn("durable position")?,
            truncations: reader.u64("truncations")?,
            checkpoint: reader.position("checkpoint")?,
            image: get_image(&mut reader)?,
            rejoin: reader.flag("rejoin")?,
            base: get_base(&mut reader)?,
            volumes: get_volumes(&mut reader)?,
            verified: match reader.is_empty() {
                true => Vec::new(),
                false => reader.list("comparisons", usize::from(MEMBERS_MAX), get_verified)?,
            },
            went_back: match reader.is_empty() {
                true => None,
                false => reader.option("going back", get_went_back)?,
            },
            growths: get_growths(&mut reader)?,
        };
        reader.finish()?;
        Ok(state)
    }
}

pub(crate) fn get_role(reader: &mut Reader<'_>) -> Result<Role, CodecError> {
    match reader.u8("role")? {
        1 => Ok(Role::Primary),
        2 => Ok(Role::Standby),
        other => Err(CodecError::Value { field: "role", value: u64::from(other) }),
    }
}

pub(crate) fn put_role(out: &mut Vec<u8>, role: Role) {
    out.put_u8(if role == Role::Primary { 1 } else { 2 });
}

pub(crate) fn get_mode(reader: &mut Reader<'_>) -> Result<Mode, CodecError> {
    let code = reader.u8("mode")?;
    Mode::from_code(code).ok_or(CodecError::Value { field: "mode", value: u64::from(code) })
}

pub(crate) fn put_release(out: &mut Vec<u8>, release: Release) {
    out.put_u8(release.to.index());
    out.put_epoch(release.epoch);
    out.put_lsn(release.lsn);
}

pub(crate) fn get_release(reader: &mut Reader<'_>) -> Result<Release, CodecError> {
    let to = reader.member("release")?;
    Ok(Release { to, epoch: reader.epoch("release")?, lsn: reader.lsn("release")? })
}

fn put_went_back(out: &mut Vec<u8>, went: WentBack) {
    out.put_position(went.to);
    out.put_lsn(went.from);
}

fn get_went_back(reader: &mut Reader<'_>) -> Result<WentBack, CodecError> {
    let to = reader.position("going back")?;
    Ok(WentBack { to, from: reader.lsn("going back")? })
}

fn put_verified(out: &mut Vec<u8>, verified: &Verified) {
    out.put_u8(verified.member.index());
    out.put_u64_le(verified.began_us);
    out.put_option(verified.found, |out, found| {
        out.put_u64_le(found.ended_us);
        out.put_u64_le(found.differs);
        out.put_u64_le(found.repaired);
    });
}

fn get_verified(reader: &mut Reader<'_>) -> Result<Verified, CodecError> {
    Ok(Verified {
        member: reader.member("comparison")?,
        began_us: reader.u64("comparison")?,
        found: reader.option("comparison", |r| {
            let (ended_us, differs) = (r.u64("comparison")?, r.u64("comparison")?);
            Ok(Found { ended_us, differs, repaired: r.u64("comparison")? })
        })?,
    })
}

pub(crate) fn put_base(out: &mut Vec<u8>, base: Base) {
    let digest = match base {
        Base::Zero => None,
        Base::Digest(digest) => Some(digest),
    };
    out.put_option(digest, |out, digest| out.put_slice(&digest));
}

pub(crate) fn get_base(reader: &mut Reader<'_>) -> Result<Base, CodecError> {
    let digest = reader.option("base", |r| r.hash("base"))?;
    Ok(digest.map_or(Base::Zero, Base::Digest))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::frame::{Began, ChainHash};
    use crate::history::EpochEntry;
    use proptest::prelude::*;

    /// A replica before anything was written to it.
    pub(crate) fn just_created() -> ReplicaState {
        let volumes = vec![
            VolumeGeometry { size_bytes: 1 << 30, block_size: 512 },
            VolumeGeometry { size_bytes: 1 << 40, block_size: 4096 },
        ];
        let (resource, member) = (ResourceId::derive("orders", "db"), MemberId::new(0).unwrap());
        let (role, mode) = (Role::Standby, Mode::default());
        ReplicaState::created(resource, member, role, mode, Base::Zero, volumes)
    }

    /// Every field is set, each differently; the golden files hold it too.
    pub(crate) fn full() -> ReplicaState {
        let member = MemberId::new(1).unwrap();
        let volumes = vec![VolumeGeometry { size_bytes: 1 << 30, block_size: 512 }];
        let resource = ResourceId::derive("orders", "db");
        let base = Base::Digest([9; 32]);
        let mut state =
            ReplicaState::created(resource, member, Role::Primary, Mode::Sync, base, volumes);
        let life = Incarnate { member, incarnation: Incarnation::new(4) };
        state.in_sync = vec![life];
        let (epoch, incarnation) = (Epoch::new(9), life.incarnation);
        state.in_set_of = Some(InSetOf { epoch, incarnation });
        state.release = Some(Release { to: member, epoch, lsn: Lsn::new(4096) });
        let start = LogPosition { lsn: Lsn::new(77), chain: ChainHash::from_bytes([3; 32]) };
        state.history.push(EpochEntry { epoch, began: Began::Planned, leader: life, start });
        state.incarnation = life.incarnation;
        (state.promised, state.owned) = (Epoch::new(17), epoch);
        state.apply_limit = Lsn::new(0x6000);
        state.durable = Lsn::new(0x7000);
        state.truncations = 2;
        state.checkpoint = LogPosition { lsn: Lsn::new(0x5000), chain: start.chain };
        (state.image, state.rejoin) = (Image::Switching, true);
        state
    }

    /// The same with what was added since.
    pub(crate) fn verified() -> ReplicaState {
        let [first, second] = [0, 1].map(|index| MemberId::new(index).unwrap());
        let found = Found { ended_us: 9_000, differs: 32 << 10, repaired: 16 << 10 };
        let verified = vec![
            Verified { member: first, began_us: 8_000, found: Some(found) },
            Verified { member: second, began_us: 7_000, found: None },
        ];
        ReplicaState { verified, ..full() }
    }

    /// And with what was added after that.
    pub(crate) fn grown() -> ReplicaState {
        ReplicaState { growths: 3, ..just_created() }
    }

    /// The same as a verified one that was taken back.
    pub(crate) fn taken_back() -> ReplicaState {
        let to = LogPosition { lsn: Lsn::new(0x5000), chain: ChainHash::from_bytes([4; 32]) };
        ReplicaState { went_back: Some(WentBack { to, from: Lsn::new(0x8000) }), ..verified() }
    }

    #[test]
    fn a_state_reads_back_as_it_was_written() {
        let alone = ReplicaState { verified: Vec::new(), ..taken_back() };
        let both = ReplicaState { growths: 3, ..taken_back() };
        for state in [full(), verified(), taken_back(), alone, grown(), both] {
            assert_eq!(ReplicaState::decode(&state.encode()), Ok(state));
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number() {
        let mut bytes = full().encode();
        bytes[0] = 2;
        let error = CodecError::Value { field: "superblock version", value: 2 };
        assert_eq!(ReplicaState::decode(&bytes), Err(error));
    }

    #[test]
    fn a_state_cut_short_anywhere_is_refused() {
        let bytes = taken_back().encode();
        // What was added later is missing where it was not there yet.
        let before = [full(), verified()].map(|state| state.encode().len());
        for len in (0..bytes.len()).filter(|len| !before.contains(len)) {
            assert!(ReplicaState::decode(&bytes[..len]).is_err(), "cut to {len} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = ReplicaState::decode(&bytes);
        }
    }
}
