//! The bodies of messages.

use std::time::Duration;

use bytes::BufMut;

use super::WireError;
use super::message::{
    Ack, AskPromise, AskResync, CannotGrow, Goodbye, Grow, GrowStep, Grown, Hello, Join, Landed,
    Lead, Message, Progress, Promised, Refusal, Refuse, TakeoverAsk,
};
use crate::codec::{CodecError, Put, Reader};
use crate::history::History;
use crate::ids::{Epoch, Lsn};
use crate::replica;
use crate::resync::Numbered;
use crate::sizes::{self, Sizes};
use crate::time::Now;

impl Message {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 2,
            Self::Lead(_) => 3,
            Self::Join(_) => 4,
            Self::Refuse(_) => 5,
            Self::AskPromise(_) => 6,
            Self::Promised(_) => 7,
            Self::Fetch(_) => 8,
            Self::Ack(_) => 9,
            Self::Alive => 15,
            Self::Progress(_) => 10,
            Self::TakeoverAsk(_) => 11,
            Self::HandedOver(_) => 12,
            Self::Goodbye(_) => 13,
            Self::TakeoverCancel(_) => 16,
            Self::AskResync(_) => 17,
            Self::Landed(_) => 18,
            Self::Grow(_) => 20,
            Self::Grown(_) => 21,
            Self::Copying(_) => super::COPYING_KIND,
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => hello.put(out),
            Self::Lead(lead) => lead.put(out),
            Self::Join(join) => join.put(out),
            Self::Refuse(refuse) => refuse.put(out),
            Self::AskPromise(ask) => {
                out.put_epoch(ask.epoch);
                out.put_flag(ask.force);
            }
            Self::Promised(promised) => {
                out.put_epoch(promised.epoch);
                out.put_position(promised.end);
                promised.history.put(out);
            }
            Self::Fetch(from) => out.put_position(*from),
            Self::Alive => {}
            Self::Ack(ack) => {
                out.put_epoch(ack.epoch);
                out.put_lsn(ack.received);
                out.put_lsn(ack.durable);
                out.put_lsn(ack.applied);
                out.put_u64_le(ack.heard);
                out.put_u64_le(ack.stamp.as_micros());
            }
            Self::Progress(progress) => progress.put(out),
            Self::TakeoverAsk(ask) => {
                out.put_epoch(ask.epoch);
                out.put_u8(ask.by.index());
                out.put_u32_le(u32::try_from(ask.max_quiesce.as_millis()).unwrap_or(u32::MAX));
            }
            Self::TakeoverCancel(epoch) => out.put_epoch(*epoch),
            Self::HandedOver(release) => replica::put_release(out, *release),
            Self::Goodbye(goodbye) => out.put_u8(match goodbye {
                Goodbye::Stopping => 1,
                Goodbye::Replaced => 2,
                Goodbye::Failed => 3,
            }),
            Self::AskResync(ask) => {
                out.put_epoch(ask.epoch);
                out.put_option(ask.from, |out, from| out.put_lsn(from));
            }
            Self::Landed(landed) => {
                out.put_epoch(landed.epoch);
                out.put_u64_le(landed.said);
                out.put_position(landed.at);
                landed.history.put(out);
                replica::put_base(out, landed.base);
            }
            Self::Grow(grow) => grow.put(out),
            Self::Grown(grown) => grown.put(out),
            Self::Copying(copying) => copying.put(out),
        }
    }

    pub(super) fn get(kind: u8, body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        let r = &mut reader;
        let message = match kind {
            2 => Self::Hello(Box::new(Hello::get(r)?)),
            3 => Self::Lead(Box::new(Lead::get(r)?)),
            4 => Self::Join(Join::get(r)?),
            5 => Self::Refuse(Refuse::get(r)?),
            6 => {
                let epoch = r.epoch("epoch")?;
                Self::AskPromise(AskPromise { epoch, force: r.flag("force")? })
            }
            7 => Self::Promised(Promised {
                epoch: r.epoch("epoch")?,
                end: r.position("end of log")?,
                history: History::get(r)?,
            }),
            8 => Self::Fetch(r.position("position")?),
            9 => Self::Ack(Ack {
                epoch: r.epoch("epoch")?,
                received: r.lsn("received")?,
                durable: r.lsn("durable")?,
                applied: r.lsn("applied")?,
                heard: r.u64("heard")?,
                stamp: Now::from_micros(r.u64("stamp")?),
            }),
            10 => Self::Progress(Progress::get(r)?),
            11 => {
                let (epoch, by) = (r.epoch("epoch")?, r.member("asker")?);
                let max_quiesce = Duration::from_millis(u64::from(r.u32("quiesce limit")?));
                Self::TakeoverAsk(TakeoverAsk { epoch, by, max_quiesce })
            }
            12 => Self::HandedOver(replica::get_release(r)?),
            13 => Self::Goodbye(get_goodbye(r)?),
            15 => Self::Alive,
            16 => Self::TakeoverCancel(r.epoch("epoch")?),
            17 => {
                let epoch = r.epoch("epoch")?;
                Self::AskResync(AskResync {
                    epoch,
                    from: r.option("position", |r| r.lsn("position"))?,
                })
            }
            18 => Self::Landed(Box::new(Landed {
                epoch: r.epoch("epoch")?,
                said: r.u64("count of messages")?,
                at: r.position("landing")?,
                history: History::get(r)?,
                base: replica::get_base(r)?,
            })),
            20 => Self::Grow(Box::new(Grow::get(r)?)),
            21 => Self::Grown(Grown::get(r)?),
            super::COPYING_KIND => Self::Copying(Numbered::get(r)?),
            other => return Err(WireError::Kind(other)),
        };
        reader.finish()?;
        Ok(message)
    }
}

impl Hello {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_incarnate(self.life);
        replica::put_role(out, self.role);
        out.put_flag(self.leading);
        out.put_epoch(self.promised);
        out.put_epoch(self.owned);
        self.history.put(out);
        out.put_position(self.end);
        out.put_lsn(self.log_start);
        replica::put_image(out, self.image);
        replica::put_base(out, self.base);
        sizes::put_volumes(out, &self.sizes.volumes);
        out.put_option(self.release, replica::put_release);
        // Added later; who has never grown says what it said before.
        sizes::put_growths(out, self.sizes.growths);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut hello = Self {
            life: reader.incarnate("member")?,
            role: replica::get_role(reader)?,
            leading: reader.flag("leading")?,
            promised: reader.epoch("promised epoch")?,
            owned: reader.epoch("owned epoch")?,
            history: History::get(reader)?,
            end: reader.position("end of log")?,
            log_start: reader.lsn("start of log")?,
            image: replica::get_image(reader)?,
            base: replica::get_base(reader)?,
            sizes: Sizes { growths: 0, volumes: sizes::get_volumes(reader)? },
            release: reader.option("release", replica::get_release)?,
        };
        hello.sizes.growths = sizes::get_growths(reader)?;
        Ok(hello)
    }
}

impl Lead {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_epoch(self.epoch);
        out.put_incarnate(self.life);
        self.history.put(out);
        out.put_position(self.end);
        out.put_u8(self.mode.code());
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            epoch: reader.epoch("epoch")?,
            life: reader.incarnate("member")?,
            history: History::get(reader)?,
            end: reader.position("end of log")?,
            mode: replica::get_mode(reader)?,
        })
    }
}

impl Join {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_epoch(self.epoch);
        out.put_position(self.from);
        out.put_lsn(self.durable);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            epoch: reader.epoch("epoch")?,
            from: reader.position("position")?,
            durable: reader.lsn("durable")?,
        })
    }
}

impl Progress {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_epoch(self.epoch);
        out.put_lsn(self.end);
        out.put_lsn(self.may_apply);
        out.put_lsn(self.wanted);
        out.put_flag(self.peer);
        out.put_flag(self.in_set);
        out.put_u8(self.mode.code());
        out.put_option(self.hold, |out, at| out.put_lsn(at));
        out.put_u64_le(self.number);
        out.put_option(self.echo, |out, echo| out.put_u64_le(echo.as_micros()));
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self {
            epoch: reader.epoch("epoch")?,
            end: reader.lsn("end of log")?,
            may_apply: reader.lsn("may apply")?,
            wanted: reader.lsn("wanted")?,
            peer: reader.flag("peer")?,
            in_set: reader.flag("in set")?,
            mode: replica::get_mode(reader)?,
            hold: reader.option("hold", |r| r.lsn("hold"))?,
            number: reader.u64("number")?,
            echo: reader.option("echo", |r| Ok(Now::from_micros(r.u64("echo")?)))?,
        })
    }
}

impl GrowStep {
    const fn code(self) -> u8 {
        match self {
            Self::MakeRoom => 1,
            Self::Take => 2,
        }
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        match reader.u8("step of a growth")? {
            1 => Ok(Self::MakeRoom),
            2 => Ok(Self::Take),
            other => Err(CodecError::Value { field: "step of a growth", value: u64::from(other) }),
        }
    }
}

impl Grow {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_epoch(self.epoch);
        out.put_u64_le(self.number);
        out.put_u8(self.step.code());
        out.put_u32_le(self.sizes.growths);
        sizes::put_volumes(out, &self.sizes.volumes);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (epoch, number) = (reader.epoch("epoch")?, reader.u64("number of a growth")?);
        let (step, growths) = (GrowStep::get(reader)?, reader.u32("count of growths")?);
        let sizes = Sizes { growths, volumes: sizes::get_volumes(reader)? };
        Ok(Self { epoch, number, step, sizes })
    }
}

impl Grown {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_epoch(self.epoch);
        out.put_u64_le(self.number);
        out.put_u8(self.step.code());
        let (code, first, second) = match self.cannot {
            None => (0, 0, 0),
            Some(CannotGrow::DeviceTooSmall { has, missing }) => (1, has, missing),
            Some(CannotGrow::System { errno }) => (2, u64::from(errno.unsigned_abs()), 0),
            Some(CannotGrow::Busy) => (3, 0, 0),
        };
        out.put_u8(code);
        out.put_u64_le(first);
        out.put_u64_le(second);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (epoch, number) = (reader.epoch("epoch")?, reader.u64("number of a growth")?);
        let (step, code) = (GrowStep::get(reader)?, reader.u8("answer to a growth")?);
        let (first, second) = (reader.u64("answer to a growth")?, reader.u64("missing bytes")?);
        let cannot = match code {
            0 => None,
            1 => Some(CannotGrow::DeviceTooSmall { has: first, missing: second }),
            2 => Some(CannotGrow::System { errno: i32::try_from(first).unwrap_or(0) }),
            3 => Some(CannotGrow::Busy),
            other => {
                let (field, value) = ("answer to a growth", u64::from(other));
                return Err(CodecError::Value { field, value });
            }
        };
        Ok(Self { epoch, number, step, cannot })
    }
}

impl Refuse {
    fn put(&self, out: &mut Vec<u8>) {
        let (code, number) = match self.refusal {
            Refusal::Diverged { fork } => (1, fork.get()),
            Refusal::Unrelated => (2, 0),
            Refusal::BaseDiffers => (3, 0),
            Refusal::GeometryDiffers => (4, 0),
            Refusal::Growing => (10, 0),
            Refusal::LogGone { start } => (5, start.get()),
            Refusal::Overtaken { promised, owned: false } => (6, promised.get()),
            Refusal::Overtaken { promised, owned: true } => (9, promised.get()),
            Refusal::NotNow => (7, 0),
            Refusal::Protocol => (8, 0),
        };
        out.put_u8(code);
        out.put_u64_le(number);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (code, number) = (reader.u8("reason")?, reader.u64("reason")?);
        let refusal = match code {
            1 => Refusal::Diverged { fork: Lsn::new(number) },
            2 => Refusal::Unrelated,
            3 => Refusal::BaseDiffers,
            4 => Refusal::GeometryDiffers,
            5 => Refusal::LogGone { start: Lsn::new(number) },
            6 | 9 => Refusal::Overtaken {
                owned: code == 9,
                promised: Epoch::from_outside(number)
                    .ok_or(CodecError::Value { field: "promised epoch", value: number })?,
            },
            7 => Refusal::NotNow,
            8 => Refusal::Protocol,
            10 => Refusal::Growing,
            other => {
                return Err(CodecError::Value { field: "reason", value: u64::from(other) });
            }
        };
        Ok(Self { refusal })
    }
}

fn get_goodbye(reader: &mut Reader<'_>) -> Result<Goodbye, CodecError> {
    match reader.u8("goodbye")? {
        1 => Ok(Goodbye::Stopping),
        2 => Ok(Goodbye::Replaced),
        3 => Ok(Goodbye::Failed),
        other => Err(CodecError::Value { field: "goodbye", value: u64::from(other) }),
    }
}
