//! What a source hears from its sink.

use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::resync::digest::{Digest, leaf_lens};
use hadrian_protocol::resync::{Copying, REGION, RegionId};

use super::super::BadCopying;
use super::SourceState;

impl SourceState {
    /// Takes a message of the sink.
    pub(crate) fn hear(&mut self, message: Copying) -> Result<(), BadCopying> {
        match message {
            Copying::Mine(changed) => {
                if self.is_planned || self.mine.is_some() {
                    return Err(BadCopying::Unasked);
                }
                for range in changed.iter().flatten() {
                    let size = self.look.size(range.volume);
                    if range.start >= range.end || range.end > size {
                        let (volume, at) = (range.volume, range.end);
                        return Err(BadCopying::Outside { volume, at });
                    }
                }
                self.mine = Some(changed);
                Ok(())
            }
            Copying::Differs { volume, region, leaves } => {
                self.hear_differs(volume, region, leaves)
            }
            Copying::Compared(number) => {
                let first = self.asked.pop_front_if(|asked| asked.number == number);
                let asked = first.ok_or(BadCopying::Unasked)?;
                let byte = |region: u32| u64::from(region) * REGION;
                let end = byte(asked.end()).min(self.look.size(asked.volume));
                self.progress.done += end.saturating_sub(byte(asked.first));
                Ok(())
            }
            Copying::Taken(count) => self.hear_taken(count),
            _ => Err(BadCopying::Unasked),
        }
    }

    fn hear_differs(
        &mut self,
        volume: VolumeIndex,
        region: u32,
        theirs: Option<Vec<Digest>>,
    ) -> Result<(), BadCopying> {
        let at = RegionId { volume, region };
        let len = self.look.region_len(at);
        let asked = self.asked.front_mut().ok_or(BadCopying::Unasked)?;
        if asked.volume != volume || !(asked.next..asked.end()).contains(&region) {
            return Err(BadCopying::Unasked);
        }
        let lens: Vec<u64> = leaf_lens(len).collect();
        if theirs.as_ref().is_some_and(|theirs| theirs.len() != lens.len()) {
            return Err(BadCopying::Outside { volume, at: u64::from(region) * REGION });
        }
        asked.next = region + 1;
        let own = asked.kept.remove(&region);
        for (leaf, len) in lens.iter().enumerate() {
            let of = |leaves: &Option<Vec<Digest>>| {
                let digest = leaves.as_ref().and_then(|leaves| leaves.get(leaf).copied());
                digest.unwrap_or_else(|| Digest::of_zero_leaf(*len))
            };
            if of(&own) != of(&theirs) {
                self.differs.set(at, leaf);
            }
        }
        Ok(())
    }

    fn hear_taken(&mut self, count: u64) -> Result<(), BadCopying> {
        let before = self.sent - self.untaken.len() as u64;
        if count > self.sent || count < before {
            return Err(BadCopying::Unasked);
        }
        for _ in before..count {
            self.untaken_bytes -= self.untaken.pop_front().unwrap_or(0);
        }
        Ok(())
    }
}
