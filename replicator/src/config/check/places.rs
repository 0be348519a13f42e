//! What two members or two resources must not share: addresses, folders, sockets, backing stores.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use toml::Spanned;

use super::Checker;
use crate::config::file;
use crate::config::model::{Config, Member};

/// Longest path of a unix socket, in bytes: what `sockaddr_un` takes, less its closing zero
/// (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

pub(super) fn look(checker: &mut Checker<'_>, raw: &file::File, config: &Config) {
    stores(checker, raw, config);
    markers(checker, raw, config);
    folders(checker, raw, config);
    sockets(checker, raw, config);
    addresses(checker, raw, config);
}

/// The part of an address that says which host: two members with the same one share its files.
fn host(member: &Member) -> String {
    let host = member.address.rsplit_once(':').map_or(member.address.as_str(), |(host, _)| host);
    host.to_ascii_lowercase()
}

fn host_of(config: &Config, name: &str) -> String {
    config.member(name).map_or_else(String::new, host)
}

fn stores(checker: &mut Checker<'_>, raw: &file::File, config: &Config) {
    let mut seen: BTreeMap<_, &str> = BTreeMap::new();
    let all = raw.resource.iter().flat_map(|r| &r.volume).flat_map(|volume| &volume.store);
    for (member, path) in all {
        checker.absolute(path);
        let place = (host_of(config, member), path.get_ref().as_path());
        if let Some(first) = seen.insert(place, member) {
            let shown = path.get_ref().display();
            let whose = if first == member {
                format!("twice on {member}")
            } else {
                format!("on {first} and on {member}, which are one host")
            };
            checker
                .problem(path, format!("store {shown} is used {whose}; each volume has its own"));
        }
    }
}

/// A marker on what is replicated would be overwritten, or replicated with its marks.
fn markers(checker: &mut Checker<'_>, raw: &file::File, config: &Config) {
    let Some(marks) = config.fencing.marks() else { return };
    let all = raw.resource.iter().flat_map(|r| &r.volume).flat_map(|volume| &volume.store);
    for (member, path) in all {
        if marks.paths.contains(path.get_ref()) {
            let shown = path.get_ref().display();
            let text = format!(
                "{shown} is a store of {member} and a marker of fencing.marks; a marker is a \
                 device or file of its own"
            );
            checker.problem(path, text);
        }
    }
}

/// Reads one folder of a member.
type Folder = fn(&Member) -> &Path;

/// Replicas, locks and sockets of two daemons on one host would be the same files.
fn folders(checker: &mut Checker<'_>, raw: &file::File, config: &Config) {
    let kinds: [(&str, Folder); 2] =
        [("state_dir", |member| &member.state_dir), ("run_dir", |member| &member.run_dir)];
    for (key, folder) in kinds {
        let mut seen: BTreeMap<_, &str> = BTreeMap::new();
        for (member, raw) in config.members.iter().zip(&raw.member) {
            if let Some(first) = seen.insert((host(member), folder(member)), &member.name) {
                let (name, shown) = (&member.name, folder(member).display());
                let text = format!(
                    "{first} and {name} are one host and share {key} {shown}; \
                     give {name} another {key}"
                );
                checker.problem(&raw.name, text);
            }
        }
    }
}

fn sockets(checker: &mut Checker<'_>, raw: &file::File, config: &Config) {
    for (member, raw_member) in config.members.iter().zip(&raw.member) {
        let at = raw_member.run_dir.as_ref().map_or(raw_member.name.span(), Spanned::span);
        let at = Spanned::new(at, ());
        let nbd = config.resources.iter().map(|resource| member.nbd_socket(resource));
        for path in nbd.chain([member.control_socket()]) {
            let len = path.as_os_str().len();
            if len > SOCKET_PATH_MAX {
                let text = format!(
                    "the socket {} has {len} bytes; write a run_dir so short that it has at most \
                     {SOCKET_PATH_MAX}",
                    path.display()
                );
                checker.problem(&at, text);
            }
        }
    }
}

/// A listener: on which host, at which address as far as it is known, and whose.
struct Taken {
    host: String,
    ip: Option<IpAddr>,
    port: u16,
    whose: String,
}

impl Taken {
    fn links_of(member: &Member) -> Option<Self> {
        let (name, port) = member.address.rsplit_once(':')?;
        Some(Self {
            host: host(member),
            ip: name.parse().ok(),
            port: port.parse().ok()?,
            whose: format!("the links of {}", member.name),
        })
    }

    /// Whether one of the two could not listen. The unspecified address takes the port on every
    /// address of its host, and a name may stand for any of them.
    fn clashes(&self, other: &Self) -> bool {
        let all = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        let one_host = self.host == other.host && (all(self.ip) || all(other.ip));
        let one_address = self.ip == other.ip && !all(self.ip);
        self.port == other.port && (one_host || one_address)
    }
}

fn addresses(checker: &mut Checker<'_>, raw: &file::File, config: &Config) {
    let mut taken: Vec<Taken> = config.members.iter().filter_map(Taken::links_of).collect();
    for resource in &raw.resource {
        for (member, written) in &resource.nbd {
            let Ok(address) = written.get_ref().parse::<SocketAddr>() else { continue };
            let whose = format!("NBD of {} on {member}", resource.name.get_ref());
            let (ip, port) = (Some(address.ip()), address.port());
            let listener = Taken { host: host_of(config, member), ip, port, whose };
            if let Some(other) = taken.iter().find(|other| other.clashes(&listener)) {
                let whose = &other.whose;
                checker
                    .problem(written, format!("{address} is taken by {whose}; write another port"));
            }
            if !address.ip().is_loopback() {
                let text = format!(
                    "{} listens at {address} without password or encryption: whoever reaches it \
                     can read and change the volume",
                    listener.whose
                );
                checker.warning(written, text);
            }
            taken.push(listener);
        }
    }
}
