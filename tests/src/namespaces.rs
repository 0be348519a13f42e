//! Two network namespaces with one link between them, which can be cut both ways or one way.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use anyhow::{Context as _, anyhow, bail};
use hadrian_replicator::demo::{Place, Side};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// No card has this address: what is sent there gets nowhere, and nobody is told.
const NOWHERE: &str = "02:00:00:00:de:ad";

/// Which way of the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Both.
    Both,
    /// What this side sends.
    From(Side),
}

/// Why this machine cannot have them, if so.
#[must_use]
pub fn missing() -> Option<String> {
    let root = rustix::process::geteuid().is_root();
    (!root).then(|| "network namespaces are made by root only; run this as root".into())
}

/// The two namespaces; they go with it.
#[derive(Debug)]
pub struct Namespaces {
    names: [String; 2],
}

impl Namespaces {
    /// Makes them. Needs to be root.
    ///
    /// # Errors
    /// With what `ip` says.
    pub fn new() -> anyhow::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let own = format!("hadrian-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        let made = Self { names: [format!("{own}-a"), format!("{own}-b")] };
        let [a, b] = &made.names;
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&["-n", a, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b])?;
        for side in [Side::Alpha, Side::Beta] {
            let name = made.name(side);
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", "wire", "address", card(side), "up"])?;
            ip(&["-n", name, "address", "add", &format!("{}/24", address(side)), "dev", "wire"])?;
        }
        made.heal()?;
        Ok(made)
    }

    /// Where the members run.
    #[must_use]
    pub fn places(&self) -> [Place; 2] {
        [Side::Alpha, Side::Beta].map(|side| Place {
            address: address(side).to_owned(),
            enter: ["ip", "netns", "exec", self.name(side)].map(String::from).to_vec(),
        })
    }

    /// A listener at this port of a side's own loopback, for a thread that runs anywhere.
    ///
    /// # Errors
    /// As the system says.
    pub fn listen(&self, side: Side, port: u16) -> anyhow::Result<TcpListener> {
        let space = File::open(Path::new("/run/netns").join(self.name(side)))?;
        // Only the thread that moves in is moved; what it opens there stays there.
        let listening = std::thread::spawn(move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpListener::bind(("127.0.0.1", port))
        });
        Ok(listening.join().map_err(|_| anyhow!("the thread has ended"))??)
    }

    /// From now on the link swallows what is sent, without a word to anybody.
    ///
    /// # Errors
    /// With what `ip` says.
    pub fn cut(&self, way: Cut) -> anyhow::Result<()> {
        for side in [Side::Alpha, Side::Beta] {
            if way == Cut::Both || way == Cut::From(side) {
                self.send_to(side, NOWHERE)?;
            }
        }
        Ok(())
    }

    /// The link works again.
    ///
    /// # Errors
    /// With what `ip` says.
    pub fn heal(&self) -> anyhow::Result<()> {
        self.send_to(Side::Alpha, card(Side::Beta))?;
        self.send_to(Side::Beta, card(Side::Alpha))
    }

    /// Which card a side takes for the other one's.
    fn send_to(&self, side: Side, card: &str) -> anyhow::Result<()> {
        let (name, other) = (self.name(side), address(side.other()));
        let neighbour = ["neigh", "replace", other, "lladdr", card, "nud", "permanent"];
        ip(&[&["-n", name][..], &neighbour, &["dev", "wire"]].concat())
    }

    fn name(&self, side: Side) -> &str {
        &self.names[usize::from(side == Side::Beta)]
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // What was not made cannot be taken away.
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn address(side: Side) -> &'static str {
    if side == Side::Alpha { "10.83.0.1" } else { "10.83.0.2" }
}

fn card(side: Side) -> &'static str {
    if side == Side::Alpha { "02:00:00:00:00:0a" } else { "02:00:00:00:00:0b" }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args).output().context("`make tools` installs ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
