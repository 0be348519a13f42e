//! How much of the past is kept.

use std::ops::RangeInclusive;
use std::time::Duration;

use hadrian_blockdev::history::Limits;

use super::Checker;
use crate::config::file;
use crate::config::model::Volume;

const DAY: Duration = Duration::from_secs(86_400);
const AGE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(366 * 86_400);
const SIZE_MIN: u64 = 64 << 20;
/// What small volumes may have, where nothing is said of bytes.
const SIZE_DEFAULT_MIN: u64 = 1 << 30;

impl Checker<'_> {
    /// None where neither key is written. Bytes are limited in any case: without a word about
    /// them, history takes as much room as the volumes.
    pub(super) fn history(&mut self, raw: &file::Resource, volumes: &[Volume]) -> Option<Limits> {
        if raw.history.is_none() && raw.history_size.is_none() {
            return None;
        }
        let age = raw.history.as_ref().map(|age| self.duration(Some(age), DAY, AGE));
        let bytes = match &raw.history_size {
            None => {
                let sizes = volumes.iter().map(|volume| volume.geometry.size_bytes);
                sizes.fold(0, u64::saturating_add).max(SIZE_DEFAULT_MIN)
            }
            Some(text) => {
                let size = self.size(text);
                if size < SIZE_MIN {
                    self.problem(text, "a history has at least 64MiB".into());
                }
                size
            }
        };
        Some(Limits::new(age, bytes))
    }
}
