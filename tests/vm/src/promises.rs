//! What a client has written, and what of it was promised to stay: told by marks in a recording.

use anyhow::{Context as _, bail, ensure};

/// Length of the part of the volume that the client writes to, in bytes.
pub(crate) const AREA_LEN: usize = 8 << 20;

/// The client's writes, one after the other: each was answered before the next began.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    begun: Vec<Write>,
    durable: usize,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    at: usize,
    len: usize,
    is_zero: bool,
}

impl Promises {
    /// Takes a mark: `begun:NUMBER:KIND:KIB:LEN` before a write of LEN KiB at KIB,
    /// `durable:NUMBER` when it and all before it are promised. Whether something is promised that
    /// was not before.
    pub(crate) fn hear(&mut self, mark: &str) -> anyhow::Result<bool> {
        let words: Vec<_> = mark.split(':').collect();
        match words[..] {
            ["begun", number, kind, at, len] => {
                let (at, len) = (1024 * at.parse::<usize>()?, 1024 * len.parse::<usize>()?);
                ensure!(at + len <= AREA_LEN, "{mark}: too far");
                self.begun.push(Write { at, len, is_zero: kind == "zero" });
                ensure!(
                    self.begun.len() == number.parse::<usize>()?,
                    "{mark}: one is missing before"
                );
                Ok(false)
            }
            ["durable", number] => {
                let before = self.durable;
                self.durable = number.parse()?;
                ensure!(self.durable <= self.begun.len(), "{mark}: it has not begun");
                Ok(self.durable > before)
            }
            _ => Ok(false),
        }
    }

    /// Fails unless `found` is what the volume held at one moment since the last promise.
    pub(crate) fn kept_by(&self, found: &[u8]) -> anyhow::Result<()> {
        let mut area = vec![0; AREA_LEN];
        (0..self.durable).try_for_each(|write| self.write(write, &mut area))?;
        for next in self.durable..self.begun.len() {
            if area == found {
                return Ok(());
            }
            self.write(next, &mut area)?;
        }
        if area == found {
            return Ok(());
        }
        let (durable, begun) = (self.durable, self.begun.len());
        let at = area.iter().zip(found).position(|(left, right)| left != right);
        let words = at.and_then(|at| found.get(at..)).map(|bytes| &bytes[..bytes.len().min(12)]);
        let words = String::from_utf8_lossy(words.unwrap_or_default());
        bail!(
            "{durable} writes were promised and {begun} begun; the volume is as after none of \
             them: it differs from the last at byte {at:?}, and has {words:?} there"
        );
    }

    fn write(&self, index: usize, area: &mut [u8]) -> anyhow::Result<()> {
        let Write { at, len, is_zero } = *self.begun.get(index).context("a write")?;
        let words = format!("write {}\n", index + 1);
        let bytes = words.bytes().cycle().map(|byte| if is_zero { 0 } else { byte });
        area[at..at + len].iter_mut().zip(bytes).for_each(|(into, byte)| *into = byte);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promises(marks: &[&str]) -> Promises {
        let mut promises = Promises::default();
        for mark in marks {
            promises.hear(mark).unwrap();
        }
        promises
    }

    fn area(last: usize, of: &Promises) -> Vec<u8> {
        let mut area = vec![0; AREA_LEN];
        (0..last).for_each(|write| of.write(write, &mut area).unwrap());
        area
    }

    #[test]
    fn every_moment_since_the_last_promise_will_do() {
        let told = promises(&["begun:1:plain:0:4", "begun:2:plain:0:4", "durable:2"]);
        assert!(told.kept_by(&area(1, &told)).is_err());
        told.kept_by(&area(2, &told)).unwrap();
        let more =
            ["begun:1:plain:0:4", "durable:1", "begun:2:plain:4:4", "begun:3:zero:0:4", "stopped"];
        let told = promises(&more);
        assert!(told.kept_by(&area(0, &told)).is_err());
        (1..=3).for_each(|last| told.kept_by(&area(last, &told)).unwrap());
    }

    #[test]
    fn a_later_write_without_an_earlier_one_is_no_moment() {
        let told = promises(&["begun:1:plain:0:4", "begun:2:plain:4:4"]);
        let mut mixed = area(2, &told);
        mixed[..4096].fill(0);
        assert!(told.kept_by(&mixed).is_err());
    }

    #[test]
    fn half_a_write_is_no_moment() {
        let told = promises(&["begun:1:plain:0:256"]);
        let mut torn = area(1, &told);
        torn[128 << 10..].fill(0);
        assert!(told.kept_by(&torn).is_err());
    }

    #[test]
    fn marks_that_tell_no_story_are_refused() {
        for mark in ["begun:2:plain:0:4", "begun:1:plain:8192:4", "durable:1", "durable:x"] {
            assert!(Promises::default().hear(mark).is_err(), "{mark}");
        }
    }
}
