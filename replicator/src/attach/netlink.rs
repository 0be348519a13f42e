//! What is asked of the kernel's NBD driver, over generic netlink (linux/nbd-netlink.h).

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use neli::attr::Attribute as _;
use neli::consts::nl::NlmF;
use neli::consts::socket::NlFamily;
use neli::genl::{
    AttrType, AttrTypeBuilder, Genlmsghdr, GenlmsghdrBuilder, Nlattr, NlattrBuilder, NoUserHeader,
};
use neli::nl::NlPayload;
use neli::router::synchronous::NlRouter;
use neli::types::{Buffer, GenlBuffer};
use neli::utils::Groups;
use neli::{Size, ToBytes};

use super::export::Facts;

const FAMILY: &str = "nbd";
const FAMILY_VERSION: u8 = 1;

const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const RECONFIGURE: u8 = 3;

const INDEX: u16 = 1;
const SIZE_BYTES: u16 = 2;
const BLOCK_SIZE_BYTES: u16 = 3;
const SERVER_FLAGS: u16 = 5;
const SOCKETS: u16 = 7;
const DEAD_CONN_TIMEOUT: u16 = 8;
const SOCK_ITEM: u16 = 1;
const SOCK_FD: u16 = 1;

type Attributes = Vec<Nlattr<u16, Buffer>>;

/// The way to the driver.
pub(super) struct Driver {
    router: NlRouter,
    family: u16,
}

impl Driver {
    /// # Errors
    /// If the kernel has no NBD driver.
    pub(super) fn open() -> anyhow::Result<Self> {
        let (router, _) = NlRouter::connect(NlFamily::Generic, None, Groups::empty())
            .context("the kernel cannot be asked over netlink")?;
        let family = router.resolve_genl_family(FAMILY);
        let family = family.map_err(|_| {
            anyhow::anyhow!("the kernel has no NBD driver; load it with: modprobe nbd")
        })?;
        Ok(Self { router, family })
    }

    /// Sets a device up over `sockets`: the one asked for, or a free one; its number. Requests wait
    /// as long as `hold` for sockets, when those here have died.
    pub(super) fn connect(
        &self,
        device: Option<u32>,
        facts: Facts,
        sockets: &[UnixStream],
        hold: Duration,
    ) -> anyhow::Result<u32> {
        let mut wanted = vec![
            attribute(SIZE_BYTES, facts.size_bytes)?,
            attribute(BLOCK_SIZE_BYTES, u64::from(facts.block_size))?,
            attribute(SERVER_FLAGS, u64::from(facts.flags))?,
            // In whole seconds; none would be no wait at all.
            attribute(DEAD_CONN_TIMEOUT, hold.as_secs() + u64::from(hold.subsec_nanos() > 0))?,
            fds(sockets)?,
        ];
        if let Some(device) = device {
            wanted.push(attribute(INDEX, device)?);
        }
        let answer = self.ask(CONNECT, wanted).context("the kernel sets no NBD device up")?;
        answer.context("the kernel does not say which device it has set up")
    }

    /// Gives a device new sockets, and the size of what is behind them, which may have grown.
    pub(super) fn reconfigure(
        &self,
        device: u32,
        size_bytes: u64,
        sockets: &[UnixStream],
    ) -> anyhow::Result<()> {
        let wanted =
            vec![attribute(INDEX, device)?, attribute(SIZE_BYTES, size_bytes)?, fds(sockets)?];
        self.ask(RECONFIGURE, wanted).context("the kernel takes no new connection").map(drop)
    }

    /// Takes a device down; what waits there fails.
    pub(super) fn disconnect(&self, device: u32) -> anyhow::Result<()> {
        let wanted = vec![attribute(INDEX, device)?];
        self.ask(DISCONNECT, wanted).context("the kernel keeps the device").map(drop)
    }

    /// Sends a command and waits until it is done; the device that the answer names.
    fn ask(&self, command: u8, attributes: Attributes) -> anyhow::Result<Option<u32>> {
        let request: Genlmsghdr<u8, u16, NoUserHeader> = GenlmsghdrBuilder::default()
            .cmd(command)
            .version(FAMILY_VERSION)
            .attrs(attributes.into_iter().collect::<GenlBuffer<_, _>>())
            .build()?;
        let answers = self.router.send::<_, _, u16, Genlmsghdr<u8, u16>>(
            self.family,
            NlmF::ACK,
            NlPayload::Payload(request),
        )?;
        let mut device = None;
        for answer in answers {
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => bail!("{error}"),
            };
            if let Some(payload) = answer.get_payload() {
                let handle = payload.attrs().get_attr_handle();
                let named = handle.get_attribute(INDEX);
                device = named.and_then(|named| named.get_payload_as::<u32>().ok());
            }
        }
        Ok(device)
    }
}

fn attribute<V: Size + ToBytes>(kind: u16, value: V) -> anyhow::Result<Nlattr<u16, Buffer>> {
    Ok(NlattrBuilder::default().nla_type(plain(kind)?).nla_payload(value).build()?)
}

/// The descriptors of `sockets`, each nested twice.
fn fds(sockets: &[UnixStream]) -> anyhow::Result<Nlattr<u16, Buffer>> {
    let mut all = NlattrBuilder::default().nla_type(nested(SOCKETS)?).nla_payload(()).build()?;
    for socket in sockets {
        let fd = u32::try_from(socket.as_raw_fd())?;
        let item = NlattrBuilder::default().nla_type(nested(SOCK_ITEM)?).nla_payload(()).build()?;
        all = all.nest(&item.nest(&attribute(SOCK_FD, fd)?)?)?;
    }
    Ok(all)
}

fn plain(kind: u16) -> anyhow::Result<AttrType<u16>> {
    Ok(AttrTypeBuilder::default().nla_type(kind).build()?)
}

fn nested(kind: u16) -> anyhow::Result<AttrType<u16>> {
    Ok(AttrTypeBuilder::default().nla_nested(true).nla_type(kind).build()?)
}
