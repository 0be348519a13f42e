//! What a resource does about slow, lost and late standbys.

use std::ops::RangeInclusive;
use std::time::Duration;

use hadrian_protocol::node::{OnWindowEnd, VerifyPlan};
use hadrian_protocol::replica::Mode;
use hadrian_protocol::resync::Takes;
use toml::Spanned;

use super::Checker;
use crate::config::file;
use crate::config::model::{Member, Pace, Resync};

const WAIT_LIMIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(7 * 86_400);
const DEGRADE_AFTER: Duration = Duration::from_secs(2);
const DEGRADE_BACK: Duration = Duration::from_secs(30);
const DEGRADE: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(3600);
const SPOOL_MIN: u64 = 1 << 20;
const RATE_MIN: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(86_400);
const VERIFY_MIN: Duration = Duration::from_secs(10);
const VERIFY_MAX: Duration = Duration::from_secs(366 * 86_400);

impl Checker<'_> {
    pub(super) fn pace(&mut self, members: &[Member], raw: &file::Resource, mode: Mode) -> Pace {
        let after = raw.degrade_after.as_ref();
        let back = raw.degrade_back.as_ref();
        Pace {
            standbys: raw.standbys.iter().filter_map(|name| self.find(members, name)).collect(),
            on_window_end: self.on_window_end(raw.on_window_end.as_ref()),
            peer_wait_limit: self.duration(
                raw.peer_wait_limit.as_ref(),
                Duration::ZERO,
                WAIT_LIMIT,
            ),
            replay_delay: self.duration(raw.replay_delay.as_ref(), Duration::ZERO, DELAY),
            spool_limit_bytes: self.spool_limit(raw.spool_limit.as_ref()),
            degrade: self.degrade(&raw.degrade, mode),
            degrade_after: self.duration(after, DEGRADE_AFTER, DEGRADE),
            degrade_back: self.duration(back, DEGRADE_BACK, DEGRADE),
        }
    }

    fn on_window_end(&mut self, text: Option<&Spanned<String>>) -> OnWindowEnd {
        match text.map(|text| (text, text.get_ref().as_str())) {
            None | Some((_, "continue")) => OnWindowEnd::Continue,
            Some((_, "hold")) => OnWindowEnd::Hold,
            Some((at, wrong)) => {
                let ways = "write \"continue\" or \"hold\"";
                self.problem(at, format!("{wrong:?} is nothing to do at the window's end; {ways}"));
                OnWindowEnd::Continue
            }
        }
    }

    pub(super) fn resync(&mut self, raw: &file::Resource) -> Resync {
        let takes = match raw.resync.as_ref().map(|text| (text, text.get_ref().as_str())) {
            None | Some((_, "staged")) => Takes::Staged,
            Some((_, "in_place")) => Takes::InPlace,
            Some((at, wrong)) => {
                let ways = "write \"staged\" or \"in_place\"";
                self.problem(at, format!("{wrong:?} is no way to bring a standby up; {ways}"));
                Takes::Staged
            }
        };
        let rejoin_by_itself = match raw.rejoin.as_ref().map(|text| (text, text.get_ref().as_str()))
        {
            None | Some((_, "manual")) => false,
            Some((_, "auto")) => true,
            Some((at, wrong)) => {
                let ways = "write \"manual\" or \"auto\"";
                self.problem(at, format!("{wrong:?} is no way back for a replica; {ways}"));
                false
            }
        };
        let rate = raw.resync_rate.as_ref().map(|text| {
            let rate = self.size(text);
            if rate < RATE_MIN {
                self.problem(text, "a resync reads at least 1MiB a second".into());
            }
            rate
        });
        Resync { takes, rejoin_by_itself, rate, verify: self.verify(raw) }
    }

    fn verify(&mut self, raw: &file::Resource) -> Option<VerifyPlan> {
        let at = raw.verify_at.as_ref().and_then(|text| self.time_of_day(text));
        let Some(every) = &raw.verify else {
            if let Some(text) = &raw.verify_at {
                self.problem(
                    text,
                    "a time for verify, which is not set; add verify = \"7d\"".into(),
                );
            }
            return None;
        };
        let shortest = if raw.verify_at.is_some() { DAY } else { VERIFY_MIN };
        let every = self.duration(Some(every), DAY, shortest..=VERIFY_MAX);
        let delayed = raw.replay_delay.as_ref().filter(|delay| delay.get_ref() != "0s");
        if let Some(delay) = delayed {
            let text = "a standby that applies late cannot be compared; leave out verify or this";
            self.problem(delay, text.into());
        }
        Some(VerifyPlan { every, at })
    }

    fn time_of_day(&mut self, text: &Spanned<String>) -> Option<Duration> {
        let two = |digits: &str| (digits.len() == 2).then(|| digits.parse::<u64>().ok()).flatten();
        let found = text.get_ref().split_once(':').and_then(|(hours, minutes)| {
            let (hours, minutes) = (two(hours)?, two(minutes)?);
            (hours < 24 && minutes < 60).then(|| Duration::from_secs(hours * 3600 + minutes * 60))
        });
        if found.is_none() {
            let wrong = text.get_ref();
            self.problem(text, format!("{wrong:?} is no time of day; write \"02:00\", in UTC"));
        }
        found
    }

    fn spool_limit(&mut self, text: Option<&Spanned<String>>) -> u64 {
        let Some(text) = text else { return u64::MAX };
        let size = self.size(text);
        if size < SPOOL_MIN {
            self.problem(text, "a spool has at least 1MiB".into());
        }
        size
    }

    fn degrade(&mut self, texts: &[Spanned<String>], mode: Mode) -> Vec<Mode> {
        let mut last = mode;
        let mut steps = Vec::new();
        for text in texts {
            let next = self.mode(Some(text));
            if next <= last {
                let (wrong, last) = (text.get_ref(), last.name());
                self.problem(text, format!("{wrong:?} is not weaker than {last}"));
            }
            last = next.max(last);
            steps.push(next);
        }
        steps
    }
}
