//! What can be told of an etcd beside whether it answers: that it takes writes, and whether it is
//! full, or will be.

use std::io;

use etcd_client::{AlarmAction, AlarmMember, AlarmType, Client, GetOptions, ResponseHeader};

use super::Etcd;
use crate::medium::Concern;

/// What a lease takes there.
const TRIED_LEN: usize = 700;
/// Changes that an etcd which compacts itself every hour has not all kept: two members with the
/// default renewals make so many in half a day.
const KEPT_MANY: i64 = 40_000;
/// etcd's own quota, unless it is told otherwise.
const QUOTA_DEFAULT: i64 = 2 << 30;

impl Etcd {
    /// A key of its own beside those of the blocks. It needs the same permission as they do.
    pub(super) fn write_beside(&mut self) -> io::Result<()> {
        let key = format!("{}tried", self.prefix);
        let until = self.until();
        let put = async |client: &mut Client| {
            client.put(key.as_str(), [b'.'; TRIED_LEN], None).await.map(drop)
        };
        self.ask(until, put)?;
        self.ask(until, async |client| client.delete(key.as_str(), None).await.map(drop))
    }

    pub(super) fn look_for_concerns(&mut self) -> io::Result<Vec<Concern>> {
        let until = self.until();
        let raised =
            async |client: &mut Client| client.alarm(AlarmAction::Get, AlarmType::None, None).await;
        let mut concerns = Vec::new();
        for alarm in self.ask(until, raised)?.alarms().iter().map(AlarmMember::alarm) {
            let concern = alarm_in_words(alarm).map(|text| Concern::Problem(text.to_owned()));
            concerns.extend(concern.filter(|concern| !concerns.contains(concern)));
        }
        let status = self.ask(until, async |client| client.status().await)?;
        let quota = Some(status.db_size_quota()).filter(|quota| *quota > 0);
        let (size, quota) = (status.db_size(), quota.unwrap_or(QUOTA_DEFAULT));
        if size > quota / 2 {
            let mib = |bytes: i64| bytes >> 20;
            concerns.push(Concern::Note(format!(
                "its database has {} MiB, and its quota is {} MiB unless it is told otherwise; it \
                 refuses every write when that is full: compact and defragment it",
                mib(size),
                mib(quota)
            )));
        }
        let newest = status.header().map_or(0, ResponseHeader::revision);
        if newest > KEPT_MANY && self.keeps(newest - KEPT_MANY) {
            concerns.push(Concern::Note(format!(
                "it keeps what its last {KEPT_MANY} changes have replaced, and will be full of \
                 that some day: start it with --auto-compaction-retention=1h"
            )));
        }
        Ok(concerns)
    }

    /// Whether what stood there at this revision can still be read.
    fn keeps(&mut self, revision: i64) -> bool {
        let key = format!("{}tried", self.prefix);
        let options = GetOptions::new().with_revision(revision);
        let then =
            async |client: &mut Client| client.get(key.as_str(), Some(options.clone())).await;
        let until = self.until();
        self.ask(until, then).is_ok()
    }
}

fn alarm_in_words(alarm: AlarmType) -> Option<&'static str> {
    match alarm {
        AlarmType::None => None,
        AlarmType::Nospace => Some(
            "it has raised its alarm NOSPACE: its quota is full and it refuses every write, so no \
             lease is renewed; compact and defragment it, then: etcdctl alarm disarm",
        ),
        AlarmType::Corrupt => Some(
            "it has raised its alarm CORRUPT: its members hold different data; replace the one \
             that differs, then: etcdctl alarm disarm",
        ),
    }
}
