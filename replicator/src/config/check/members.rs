//! The hosts of the cluster.

use std::path::PathBuf;

use hadrian_protocol::ids::{MEMBERS_MAX, MemberId};
use toml::Spanned;

use super::Checker;
use crate::config::file;
use crate::config::model::Member;
use crate::tls::Fingerprint;

impl Checker<'_> {
    pub(super) fn members(&mut self, raw: &file::File) -> Vec<Member> {
        let count = raw.member.len();
        if !(2..=usize::from(MEMBERS_MAX)).contains(&count) {
            let text = format!("{count} members; a cluster has 2 to {MEMBERS_MAX}");
            self.problem(&raw.cluster, text);
        }
        self.distinct(raw.member.iter().map(|member| &member.name), "member name");
        self.distinct(raw.member.iter().map(|member| &member.address), "address");
        let prints = raw.member.iter().filter_map(|member| member.fingerprint.as_ref());
        self.distinct(prints, "fingerprint");
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
                        format!("run `hadrian keygen --for {name}` there and paste its line");
                    self.problem(&raw.name, format!("member {name:?} has no fingerprint; {hint}"));
                }
                None
            }
        };
        let mut or = |path: &Option<Spanned<PathBuf>>, default: &str| match path {
            Some(path) => {
                self.absolute(path);
                path.get_ref().clone()
            }
            None => PathBuf::from(default),
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

    pub(super) fn find(&mut self, members: &[Member], name: &Spanned<String>) -> Option<MemberId> {
        let found = members.iter().find(|member| member.name == *name.get_ref());
        if found.is_none() {
            let known: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
            let (wrong, known) = (name.get_ref(), known.join(", "));
            self.problem(name, format!("{wrong:?} is no member; write one of {known}"));
        }
        found.map(|member| member.id)
    }
}
