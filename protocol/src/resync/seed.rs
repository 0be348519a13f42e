//! The other side of a source of a resync, where that is a file to be carried by hand: an image of
//! which nothing is known but that it is zero, so everything else is sent.

use std::collections::VecDeque;

use bytes::Bytes;

use super::digest::Digest;
use super::{Copying, LeafSet, Numbered, REGION, RegionId};
use crate::ids::VolumeIndex;
use crate::replica::VolumeGeometry;

/// What whole leaves of a volume hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// Of which volume.
    pub volume: VolumeIndex,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// The bytes; none: zeroes.
    pub data: Option<Bytes>,
}

/// The source says something that it cannot say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the replica sends what it was not asked for")]
pub struct BadSource;

/// What a source is answered.
#[derive(Debug)]
pub struct Sink {
    sizes: LeafSet,
    heard: u64,
    said: u64,
    taken: u64,
    answers: VecDeque<Numbered>,
}

impl Sink {
    /// For a source that was just begun. It has changed nothing itself, as far as it knows.
    #[must_use]
    pub fn new(volumes: &[VolumeGeometry]) -> Self {
        let sizes = LeafSet::new(volumes);
        let mut sink = Self { sizes, heard: 0, said: 0, taken: 0, answers: VecDeque::new() };
        sink.say(Copying::Mine(None));
        sink
    }

    /// Takes a message of the source: what is to be written, if it brings that.
    ///
    /// # Errors
    /// [`BadSource`]
    pub fn hear(&mut self, message: Numbered) -> Result<Option<Content>, BadSource> {
        let Numbered { number, copying } = message;
        if number != self.heard + 1 {
            return Err(BadSource);
        }
        self.heard = number;
        match copying {
            Copying::Compare { number, volume, first, runs } => {
                let mut region = first;
                for (count, digest) in runs {
                    let end = region.checked_add(count).ok_or(BadSource)?;
                    // Of a hole as long as a volume, one look is enough.
                    if digest != Digest::of_zero_region(REGION) {
                        (region..end).for_each(|region| {
                            self.compare(RegionId { volume, region }, digest);
                        });
                    }
                    region = end;
                }
                self.say(Copying::Compared(number));
                Ok(None)
            }
            Copying::Content { volume, offset, len, data } => {
                Ok(Some(Content { volume, offset, len, data }))
            }
            _ => Err(BadSource),
        }
    }

    /// So many pieces of content more are written.
    pub fn has_taken(&mut self, count: u64) {
        self.taken += count;
        self.say(Copying::Taken(self.taken));
    }

    /// The next answer, if there is one.
    pub fn answer(&mut self) -> Option<Numbered> {
        self.answers.pop_front()
    }

    fn compare(&mut self, at: RegionId, digest: Digest) {
        let zero = Digest::of_zero_region(self.sizes.region_len(at));
        if digest != zero {
            let RegionId { volume, region } = at;
            self.say(Copying::Differs { volume, region, leaves: None });
        }
    }

    fn say(&mut self, copying: Copying) {
        self.said += 1;
        self.answers.push_back(Numbered { number: self.said, copying });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(index: u16) -> VolumeIndex {
        VolumeIndex::new(index).unwrap()
    }

    fn said(sink: &mut Sink) -> Vec<Copying> {
        std::iter::from_fn(|| sink.answer()).map(|answer| answer.copying).collect()
    }

    #[test]
    fn a_sink_asks_for_everything_that_is_not_zero_and_for_nothing_else() {
        let mut sink = Sink::new(&[
            VolumeGeometry { size_bytes: REGION + 1536, block_size: 512 },
            VolumeGeometry { size_bytes: 64 << 20, block_size: 4096 },
        ]);
        assert_eq!(said(&mut sink), [Copying::Mine(None)]);
        let zero = Digest::of_zero_region(REGION);
        let runs = vec![(3, zero), (2, Digest::from_bytes([1; 32])), (4, zero)];
        let compare = Copying::Compare { number: 1, volume: volume(1), first: 0, runs };
        sink.hear(Numbered { number: 1, copying: compare }).unwrap();
        let differs = |region| Copying::Differs { volume: volume(1), region, leaves: None };
        assert_eq!(said(&mut sink), [differs(3), differs(4), Copying::Compared(1)]);
        // The last region of a volume is a short one, and zero all the same.
        let runs = vec![(1, Digest::of_zero_region(1536))];
        let compare = Copying::Compare { number: 2, volume: volume(0), first: 1, runs };
        sink.hear(Numbered { number: 2, copying: compare }).unwrap();
        assert_eq!(said(&mut sink), [Copying::Compared(2)]);
        let again = Numbered { number: 2, copying: Copying::MendEnd };
        assert_eq!(sink.hear(again), Err(BadSource));
    }
}
