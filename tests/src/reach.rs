//! How both members of a cluster reach what holds their marks, whatever that is.

use std::cell::RefCell;
use std::path::PathBuf;

use hadrian_replicator::demo::{Place, Side};

use crate::etcd::{self, Etcd};
use crate::namespaces::Namespaces;
use crate::proxy::{Proxy, Way};
use crate::ways::{self, Ways};

/// What holds the marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// So many marker files: one or three.
    Markers(usize),
    /// An etcd.
    Etcd,
}

impl Register {
    /// Why this machine cannot have it, with ways of their own to it, if so.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Markers(_) => ways::missing(),
            Self::Etcd => etcd::missing().or_else(crate::namespaces::missing),
        }
    }
}

/// The ways of both members to it.
#[derive(Debug)]
pub enum Reach {
    /// To marker files.
    Markers(Ways),
    /// To an etcd, which both find on their own loopback.
    Etcd(Box<RefCell<Etcd>>, [Proxy; 2]),
}

impl Reach {
    /// Makes what holds the marks, blank, and the ways to it. Needs to be root.
    ///
    /// # Errors
    /// With what goes wrong.
    pub fn new(register: Register, spaces: &Namespaces) -> anyhow::Result<Self> {
        let etcd = match register {
            Register::Markers(count) => return Ok(Self::Markers(Ways::new(count)?)),
            Register::Etcd => Etcd::new()?,
        };
        let address = etcd.address();
        let way = |side| -> anyhow::Result<Proxy> {
            Ok(Proxy::new(spaces.listen(side, address.port())?, address)?)
        };
        let ways = [way(Side::Alpha)?, way(Side::Beta)?];
        Ok(Self::Etcd(Box::new(RefCell::new(etcd)), ways))
    }

    /// The marker files, as the configuration names them.
    #[must_use]
    pub fn markers(&self) -> Vec<PathBuf> {
        match self {
            Self::Markers(ways) => ways.markers(),
            Self::Etcd(..) => Vec::new(),
        }
    }

    /// The addresses of etcd, as the configuration names them.
    #[must_use]
    pub fn etcd(&self) -> Vec<String> {
        match self {
            Self::Markers(_) => Vec::new(),
            Self::Etcd(etcd, _) => vec![etcd.borrow().endpoint()],
        }
    }

    /// A place in which each name means that side's own way.
    #[must_use]
    pub fn through(&self, side: Side, place: Place) -> Place {
        match self {
            Self::Markers(ways) => ways.through(side, place),
            Self::Etcd(..) => place,
        }
    }

    /// From now on what a side asks is not answered, by a majority of the markers, until
    /// [`Reach::heal`].
    ///
    /// # Errors
    /// As the system says.
    pub fn hang(&self, side: Side) -> anyhow::Result<()> {
        self.change(side, Ways::hang, Way::Held)
    }

    /// From now on a majority of the markers answers a side with errors; of etcd, what it
    /// answers is lost.
    ///
    /// # Errors
    /// As the system says.
    pub fn fail(&self, side: Side) -> anyhow::Result<()> {
        self.change(side, Ways::fail, Way::Deaf)
    }

    /// It is answered again, and what was asked meanwhile.
    ///
    /// # Errors
    /// As the system says.
    pub fn heal(&self, side: Side) -> anyhow::Result<()> {
        self.change(side, Ways::heal, Way::Open)
    }

    /// A majority of a side's markers is changed like this, or its way to etcd.
    fn change(
        &self,
        side: Side,
        each: fn(&Ways, Side, usize) -> anyhow::Result<()>,
        way: Way,
    ) -> anyhow::Result<()> {
        match self {
            Self::Markers(ways) => {
                (0..=ways.count() / 2).try_for_each(|marker| each(ways, side, marker))
            }
            Self::Etcd(_, proxies) => {
                proxies[usize::from(side == Side::Beta)].set(way);
                Ok(())
            }
        }
    }

    /// What holds the marks is gone, for everybody.
    ///
    /// # Errors
    /// As the system says.
    pub fn stop(&self) -> anyhow::Result<()> {
        match self {
            Self::Markers(_) => {
                [Side::Alpha, Side::Beta].into_iter().try_for_each(|side| self.hang(side))
            }
            Self::Etcd(etcd, _) => Ok(etcd.borrow_mut().kill()?),
        }
    }

    /// It is back with what it held.
    ///
    /// # Errors
    /// As the system says.
    pub fn start(&self) -> anyhow::Result<()> {
        match self {
            Self::Markers(_) => {
                [Side::Alpha, Side::Beta].into_iter().try_for_each(|side| self.heal(side))
            }
            Self::Etcd(etcd, _) => etcd.borrow_mut().start(),
        }
    }
}
