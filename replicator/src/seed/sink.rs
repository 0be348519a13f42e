//! The other side of a source of a resync, where that is a file: an image of which nothing is known
//! but that it is zero, so everything else is sent.

use std::collections::VecDeque;

use bytes::Bytes;
use hadrian_protocol::ids::VolumeIndex;
use hadrian_protocol::replica::VolumeGeometry;
use hadrian_protocol::resync::digest::Digest;
use hadrian_protocol::resync::{Copying, LeafSet, Numbered, REGION, RegionId};

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
