//! How fast a resync goes beside clients (design §8.3): at full speed while nobody waits for an
//! answer, and else only so fast that clients hardly feel it.
//!
//! What they would wait without it nobody knows from before, as their load changes. So the resync
//! rests for a moment every now and then, and what clients wait in these moments is held against
//! what they wait while it works. Where that is much more, it goes slower by a third; else a little
//! faster, and until the first time that it was too fast twice as fast. Where going slower does not
//! help, because it is not the speed that clients wait for, it goes back to the speed that it had,
//! and asks again later. It never goes slower than [`Throttle::FLOOR`], and twice as fast ten, and
//! four times as fast twenty seconds after its beginning: a standby that gets there next month
//! protects nobody. For the last of it, while the image rests, see `blockdev`.

use std::time::Duration;

use crate::time::{Now, micros};

/// How long it works between two rests.
const WORK: Duration = Duration::from_millis(400);
/// How long a rest is: a tenth of the speed goes for it.
const REST: Duration = Duration::from_millis(40);
/// What was begun before a rest has come to its end then.
const SETTLED: Duration = Duration::from_millis(10);
/// Without an answer for so long, nobody is there who could feel it.
const QUIET: Duration = Duration::from_millis(200);
/// The first speed beside clients, in bytes a second.
const FIRST: u64 = 32 << 20;
/// So many waits of each kind are held against each other.
const JUDGED_MIN: u32 = 32;
/// By how much they may differ, in halves.
const SLOWER_HALVES: u64 = 3;
/// And by how many microseconds at least: clients that wait for next to nothing are slowed down by
/// anything, and feel none of it.
const FELT_US: u64 = 250;
/// For so many judgements nothing slows it down once that was seen not to help: half a minute.
const PATIENCE: u32 = 64;
/// How long the slowest speed is what it is; then it is twice as fast, and so on,
const DOUBLES: Duration = Duration::from_secs(10);
/// so many times.
const DOUBLED_MAX: u32 = 2;
/// A resync that asked for nothing for so long was another one.
const ANOTHER: Duration = Duration::from_secs(5);
/// The wait that counts: so many of a thousand are shorter.
const COUNTED: u64 = 990;

/// What a resync may do for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speed {
    /// All that it can: there are no clients.
    Full,
    /// Read so many bytes of the image in a second, in small pieces.
    AtMost(u64),
    /// Nothing, for a moment.
    Rests,
}

/// The speed of the resyncs of one resource.
#[derive(Clone, Debug)]
pub struct Throttle {
    rate: u64,
    /// It has been too fast once: from there on it feels its way.
    was_slow: bool,
    rests: bool,
    /// What clients waited more, in microseconds, and at what speed, when it began to go slower.
    felt: Option<(u64, u64)>,
    patience: u32,
    /// When the resync began, and asked last.
    began: Now,
    asked: Option<Now>,
    doubles: Duration,
    /// When the rest, or the work, began.
    since: Now,
    answered: Option<Now>,
    /// What was read since the last rest.
    read: u64,
    resting: Waits,
    working: Waits,
}

impl Default for Throttle {
    fn default() -> Self {
        let (resting, working) = (Waits::default(), Waits::default());
        let (since, answered) = (Now::default(), None);
        Self {
            rate: FIRST,
            was_slow: false,
            felt: None,
            patience: 0,
            rests: false,
            began: since,
            asked: None,
            doubles: DOUBLES,
            since,
            answered,
            read: 0,
            resting,
            working,
        }
    }
}

impl Throttle {
    /// Bytes a second that it goes at least, in its first ten seconds.
    pub const FLOOR: u64 = 16 << 20;

    /// A client that was answered had waited so long.
    pub fn answered(&mut self, now: Now, wait: Duration) {
        self.answered = Some(now);
        let settled = if self.rests { self.since.after(SETTLED) } else { self.since };
        // Whoever began before that waited for something else, too.
        if now.since(settled) < wait || now < settled {
            return;
        }
        match self.rests {
            true => self.resting.add(wait),
            false => self.working.add(wait),
        }
    }

    /// How fast it may go from here on; `read` bytes of images were read since this was asked last.
    pub fn speed(&mut self, now: Now, read: u64) -> Speed {
        self.read = self.read.saturating_add(read);
        let floor = self.floor(now);
        if self.answered.is_none_or(|last| now.since(last) >= QUIET) {
            self.begin(false, now);
            return Speed::Full;
        }
        let length = if self.rests { REST } else { WORK };
        if now.since(self.since) >= length {
            if self.rests {
                self.judge();
            }
            self.begin(!self.rests, now);
        }
        self.rate = self.rate.max(floor);
        if self.rests { Speed::Rests } else { Speed::AtMost(self.rate) }
    }

    /// How fast it goes at least by now.
    fn floor(&mut self, now: Now) -> u64 {
        if self.asked.replace(now).is_none_or(|last| now.since(last) >= ANOTHER) {
            self.began = now;
        }
        let doubled = now.since(self.began).as_secs() / self.doubles.as_secs().max(1);
        Self::FLOOR << doubled.min(u64::from(DOUBLED_MAX))
    }

    /// Begins a rest, or the work behind one.
    fn begin(&mut self, rests: bool, now: Now) {
        (self.rests, self.since) = (rests, now);
        if !rests {
            self.read = 0;
        }
    }

    /// Goes slower, or faster, by what clients have waited since it was judged last.
    fn judge(&mut self) {
        if self.resting.count < JUDGED_MIN || self.working.count < JUDGED_MIN {
            return;
        }
        let (rest, work) = (self.resting.counted(), self.working.counted());
        let is_slow = work > (rest * SLOWER_HALVES / 2).max(rest + FELT_US);
        if is_slow && self.patience == 0 {
            self.go_slower(work - rest);
        } else {
            self.felt = self.felt.filter(|_| is_slow);
            self.patience = self.patience.saturating_sub(1);
            self.go_faster();
        }
        // What it was like in some rests before counts as well: there are few waits in one. What it
        // was like at another speed does not.
        self.resting.fade(7);
        self.working = Waits::default();
    }

    /// Clients waited so many microseconds more.
    fn go_slower(&mut self, more: u64) {
        self.was_slow = true;
        let (before, from) = *self.felt.get_or_insert((more, self.rate));
        if self.rate <= (from / 3).max(Self::FLOOR) {
            // At a third of the speed they should wait a third as much more.
            if self.rate < from && more * 3 > before * 2 {
                (self.rate, self.felt, self.patience) = (from, None, PATIENCE);
                self.was_slow = false;
                return;
            }
            self.felt = Some((more, self.rate));
        }
        self.rate = (self.rate / 3 * 2).max(Self::FLOOR);
    }

    fn go_faster(&mut self) {
        let worked = u128::from(self.rate) * WORK.as_micros() / 2_000_000;
        // One that is held up by something else would only grow on paper.
        if u128::from(self.read) >= worked {
            let more = if self.was_slow { self.rate / 16 } else { self.rate };
            self.rate = self.rate.saturating_add(more).min(u64::MAX / 4);
        }
    }
}

/// A bucket for each quarter of an octave of microseconds, up to a quarter of a minute.
const BUCKETS: usize = 96;

/// How often clients waited how long.
#[derive(Clone, Debug)]
struct Waits {
    buckets: [u32; BUCKETS],
    count: u32,
}

impl Default for Waits {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0 }
    }
}

impl Waits {
    fn add(&mut self, wait: Duration) {
        // Full buckets say enough.
        if self.count == u32::MAX {
            return;
        }
        let us = micros(wait).max(4);
        let octave = us.ilog2();
        let quarter = (us >> (octave - 2)) & 3;
        let at = (octave - 2) as usize * 4 + usize::try_from(quarter).unwrap_or_default();
        if let Some(bucket) = self.buckets.get_mut(at.min(BUCKETS - 1)) {
            *bucket += 1;
            self.count += 1;
        }
    }

    /// The wait that all but a few were shorter than, in microseconds.
    fn counted(&self) -> u64 {
        let wanted = u64::from(self.count) * COUNTED / 1000;
        let mut seen = 0;
        for (at, bucket) in self.buckets.iter().enumerate() {
            seen += u64::from(*bucket);
            if seen > wanted {
                return (at as u64 % 4 + 4) << (at / 4);
            }
        }
        0
    }

    /// So many eighths of what there is count from here on.
    fn fade(&mut self, eighths: u32) {
        for bucket in &mut self.buckets {
            *bucket = u32::try_from(u64::from(*bucket) * u64::from(eighths) / 8).unwrap_or(0);
        }
        self.count = self.buckets.iter().sum();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const TICK: Duration = Duration::from_millis(20);

    /// One that nothing drives on but what clients feel.
    fn at_its_own_speed() -> Throttle {
        Throttle { doubles: Duration::MAX, ..Throttle::default() }
    }

    /// A resource whose clients wait half a millisecond, and `slowed_ns` more for each MiB that the
    /// resync reads in a second.
    struct Trace {
        throttle: Throttle,
        now: Now,
        rate: u64,
        rested: u32,
        ticks: u32,
    }

    impl Trace {
        fn new() -> Self {
            let now = Now::from_micros(1_000_000);
            Self { throttle: at_its_own_speed(), now, rate: 0, rested: 0, ticks: 0 }
        }

        /// A tick in which clients are answered `count` times.
        fn tick(&mut self, count: u32, slowed_ns: u64) -> Speed {
            let read = self.rate / 50;
            let speed = self.throttle.speed(self.now, read);
            self.rate = match speed {
                Speed::Full => 1 << 30,
                Speed::AtMost(rate) => rate.min(1 << 30),
                Speed::Rests => 0,
            };
            self.ticks += 1;
            self.rested += u32::from(speed == Speed::Rests);
            let wait = 500 + (self.rate >> 20) * slowed_ns / 1000;
            for number in 1..=count {
                let at = self.now.after(TICK * number / (count + 1));
                self.throttle.answered(at, Duration::from_micros(wait));
            }
            self.now = self.now.after(TICK);
            speed
        }

        fn run(&mut self, seconds: u32, count: u32, slowed_ns: u64) -> Speed {
            let ticks = (0..seconds * 50).map(|_| self.tick(count, slowed_ns));
            ticks.last().unwrap()
        }
    }

    #[test]
    fn without_clients_it_goes_as_fast_as_it_can() {
        let mut trace = Trace::new();
        assert_eq!(trace.run(10, 0, 1000), Speed::Full);
        assert_eq!(trace.rested, 0);
    }

    #[test]
    fn it_comes_to_rest_at_the_speed_that_clients_hardly_feel() {
        let mut trace = Trace::new();
        // 250 us more at 100 MiB/s.
        trace.run(60, 50, 2500);
        let (mut rates, mut waited) = (Vec::new(), 0);
        for _ in 0..3000 {
            if let Speed::AtMost(rate) = trace.tick(50, 2500) {
                rates.push(rate >> 20);
                waited = waited.max(500 + (rate >> 20) * 5 / 2);
            }
        }
        let mean = rates.iter().sum::<u64>() / rates.len() as u64;
        assert!((50..160).contains(&mean), "{mean} MiB/s on average");
        assert!(waited <= 1000, "{waited} us");
        let part = f64::from(trace.rested) / f64::from(trace.ticks);
        assert!((0.05..0.15).contains(&part), "it rests {part} of the time");
    }

    #[test]
    fn it_never_stands_still_and_finds_back_when_the_load_changes() {
        let mut trace = Trace::new();
        trace.run(60, 20, 1_000_000);
        assert_eq!(trace.throttle.rate, Throttle::FLOOR, "whatever it does is felt");
        // Nothing that it does is felt any more.
        trace.run(60, 20, 0);
        assert!(trace.throttle.rate > 100 << 20, "{}", trace.throttle.rate);
        assert_eq!(trace.run(1, 0, 0), Speed::Full, "the clients are gone");
        assert!(matches!(trace.run(1, 5, 0), Speed::AtMost(_) | Speed::Rests), "and back");
    }

    #[test]
    fn it_does_not_go_slower_for_nothing() {
        let (mut throttle, mut now) = (at_its_own_speed(), Now::from_micros(1_000_000));
        let (mut read, mut sum, ticks) = (0, 0, 30_000);
        for _ in 0..ticks {
            // Up to 1 GiB/s, and clients wait 2 ms more while it works, however little that is.
            let rate = match throttle.speed(now, read) {
                Speed::Full => 1 << 30,
                Speed::AtMost(rate) => rate.min(1 << 30),
                Speed::Rests => 0,
            };
            (read, sum) = (rate / 50, sum + rate / ticks);
            let wait = if rate > 0 { 2500 } else { 500 };
            for number in 1..=20 {
                let at = now.after(TICK * number / 21);
                throttle.answered(at, Duration::from_micros(wait));
            }
            now = now.after(TICK);
        }
        assert!(sum > 512 << 20, "{} MiB/s on average", sum >> 20);
    }

    #[test]
    fn its_slowest_speed_doubles_twice_and_the_next_one_begins_anew() {
        let (mut throttle, mut now) = (Throttle::default(), Now::from_micros(1_000_000));
        // Clients wait the longer, the faster it goes, and far too long at any speed: the slowest
        // of every ten seconds is what it comes to.
        let mut slowest = |throttle: &mut Throttle, seconds: u32| {
            let mut slowest = BTreeMap::new();
            for tick in 0..seconds * 50 {
                let speed = throttle.speed(now, 10 << 20);
                let wait = match speed {
                    Speed::Full => 50_000,
                    Speed::AtMost(rate) => 500 + rate / 2000,
                    Speed::Rests => 500,
                };
                if let Speed::AtMost(rate) = speed {
                    let least = slowest.entry(tick / 500).or_insert(rate);
                    *least = rate.min(*least);
                }
                for number in 1..=20 {
                    let at = now.after(TICK * number / 21);
                    throttle.answered(at, Duration::from_micros(wait));
                }
                now = now.after(TICK);
            }
            now = now.after(Duration::from_secs(6));
            slowest.into_values().map(|rate| rate / Throttle::FLOOR).collect::<Vec<_>>()
        };
        assert_eq!(slowest(&mut throttle, 120)[..4], [1, 2, 4, 4]);
        assert_eq!(slowest(&mut throttle, 50), [1, 2, 4, 4, 4], "another resync begins");
    }

    #[test]
    fn what_nobody_feels_slows_nothing_down() {
        let mut throttle = at_its_own_speed();
        let mut now = Now::from_micros(1_000_000);
        for _ in 0..10_000 {
            let works = throttle.speed(now, FIRST) != Speed::Rests;
            now = now.after(TICK);
            let wait = if works { 200 } else { 10 };
            (0..20).for_each(|_| throttle.answered(now, Duration::from_micros(wait)));
        }
        assert!(throttle.rate >= FIRST, "{}", throttle.rate);
    }

    #[test]
    fn a_speed_that_is_not_used_does_not_grow() {
        let mut throttle = at_its_own_speed();
        let mut now = Now::from_micros(1_000_000);
        for _ in 0..10_000 {
            throttle.speed(now, 1000);
            now = now.after(TICK);
            (0..20).for_each(|_| throttle.answered(now, Duration::from_micros(50)));
        }
        assert_eq!(throttle.rate, FIRST);
    }

    #[test]
    fn few_clients_are_waited_for_before_anything_is_concluded() {
        let mut trace = Trace::new();
        (0..20).for_each(|_| assert_ne!(trace.tick(1, 1_000_000), Speed::AtMost(Throttle::FLOOR)));
        assert_eq!(trace.throttle.rate, FIRST);
        trace.run(120, 1, 1_000_000);
        assert_eq!(trace.throttle.rate, Throttle::FLOOR);
    }

    #[test]
    fn waits_are_counted_to_a_quarter_of_an_octave() {
        for us in [4, 5, 100, 1000, 123_456, 60_000_000] {
            let mut waits = Waits::default();
            waits.add(Duration::from_micros(us));
            let found = waits.counted();
            let most = us.min(30_000_000);
            assert!(found <= us && found * 5 / 4 >= most / 2, "{us}: {found}");
        }
        let mut waits = Waits::default();
        (0..1000).for_each(|us| waits.add(Duration::from_micros(us)));
        assert!((768..=1000).contains(&waits.counted()), "{}", waits.counted());
        waits.fade(4);
        assert!((400..=500).contains(&waits.count));
    }
}
