use std::sync::{Arc, Mutex};

use super::*;

/// What a driver was asked, and how it answers.
#[derive(Clone, Debug, Default)]
struct Fake {
    asked: Arc<Mutex<Vec<String>>>,
    makes: Option<u32>,
    fails: bool,
}

impl Fake {
    fn told(&self) -> Vec<String> {
        self.asked.lock().unwrap().drain(..).collect()
    }

    fn tell(&self, what: String) -> io::Result<()> {
        self.asked.lock().unwrap().push(what);
        if self.fails { Err(io::Error::other("broken")) } else { Ok(()) }
    }
}

impl Device for Fake {
    fn set_timeout(&mut self, seconds: u32) -> io::Result<u32> {
        self.tell(format!("time {seconds}"))?;
        Ok(self.makes.unwrap_or(seconds))
    }

    fn pet(&mut self) -> io::Result<()> {
        self.tell("pet".into())
    }

    fn disarm(&mut self) -> io::Result<()> {
        self.tell("V".into())
    }
}

fn settings() -> WatchdogSettings {
    WatchdogSettings { device: "/dev/fake".into(), timeout: Duration::from_secs(10) }
}

fn at(ms: u64) -> Now {
    Now::from_micros(ms * 1000)
}

/// A guard over one resource, its driver, and the resource's word.
fn guard() -> (Guard, Fake, Exposure) {
    let (fake, exposure) = (Fake::default(), Exposure::default());
    let watchdog = Watchdog::begin(Box::new(fake.clone()), &settings()).unwrap();
    assert_eq!(fake.told(), ["time 10"]);
    (Guard::new(Some(watchdog), vec![exposure.clone()]), fake, exposure)
}

fn begun(makes: u32) -> (Result<Watchdog, WatchdogError>, Vec<String>) {
    let fake = Fake { makes: Some(makes), ..Fake::default() };
    let begun = Watchdog::begin(Box::new(fake.clone()), &settings());
    (begun, fake.told())
}

#[test]
fn a_driver_that_makes_more_of_its_time_is_refused_with_both_values_and_stopped() {
    let (begun, told) = begun(30);
    let error = begun.unwrap_err().to_string();
    assert!(error.contains("30s") && error.contains("10s"), "{error}");
    assert_eq!(told, ["time 10", "V"]);
}

#[test]
fn a_driver_that_makes_less_of_it_is_used_down_to_the_least() {
    let (used, told) = begun(5);
    assert_eq!(used.unwrap().timeout(), Duration::from_secs(5));
    assert_eq!(told, ["time 10"]);
    let (refused, told) = begun(4);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("4s") && error.contains("10s"), "{error}");
    assert_eq!(told, ["time 10", "V"]);
}

#[test]
fn who_serves_nothing_pets_without_a_lease() {
    let (mut guard, fake, _) = guard();
    guard.turn(at(0));
    guard.turn(at(500));
    assert_eq!(fake.told(), ["pet"], "not more often than is needed");
    guard.turn(at(2000));
    assert_eq!(fake.told(), ["pet"]);
}

#[test]
fn a_resource_that_falls_silent_is_petted_for_only_while_a_lease_holds() {
    let (mut guard, fake, exposure) = guard();
    exposure.open(at(10_000));
    guard.lease(Some(Term { number: 1, until: at(10_000) }));
    guard.turn(at(8000));
    assert_eq!(fake.told(), ["pet"]);
    // The lease is renewed, and its own word is old: the lease is enough.
    guard.lease(Some(Term { number: 1, until: at(14_000) }));
    guard.turn(at(12_000));
    assert_eq!(fake.told(), ["pet"]);
    guard.turn(at(14_000));
    guard.turn(at(20_000));
    assert!(fake.told().is_empty(), "it may still answer");
    exposure.close();
    guard.turn(at(20_500));
    assert_eq!(fake.told(), ["pet"], "it has said that it does not");
}

#[test]
fn the_word_of_the_others_is_as_good_as_a_lease() {
    let (mut guard, fake, exposure) = guard();
    exposure.open(at(5000));
    guard.turn(at(4999));
    assert_eq!(fake.told(), ["pet"]);
    exposure.open(at(9000));
    guard.turn(at(8999));
    assert_eq!(fake.told(), ["pet"]);
    guard.turn(at(11_000));
    assert!(fake.told().is_empty());
}

#[test]
fn it_is_stopped_when_all_is_closed_and_never_before() {
    let (mut guard, fake, exposure) = guard();
    exposure.open(at(10_000));
    guard.end();
    assert!(fake.told().is_empty(), "closed without the magic it resets the host");
    let (mut other, fake, _) = self::guard();
    other.end();
    assert_eq!(fake.told(), ["V"]);
    other.turn(at(60_000));
    assert!(fake.told().is_empty());
}

#[test]
fn a_watchdog_that_cannot_be_petted_is_tried_again_at_once() {
    let fake = Fake::default();
    let mut watchdog = Watchdog::begin(Box::new(fake.clone()), &settings()).unwrap();
    watchdog.device = Box::new(Fake { fails: true, ..fake.clone() });
    let mut guard = Guard::new(Some(watchdog), Vec::new());
    guard.turn(at(0));
    guard.turn(at(10));
    assert_eq!(fake.told(), ["time 10", "pet", "pet"]);
}

#[test]
fn what_cannot_be_opened_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let missing = DevWatchdog::open(&dir.path().join("watchdog")).unwrap_err().to_string();
    assert!(missing.contains("modprobe softdog"), "{missing}");
    let file = dir.path().join("file");
    std::fs::write(&file, "data").unwrap();
    let none = DevWatchdog::open(&file).unwrap_err();
    assert!(matches!(none, WatchdogError::NoWatchdog { .. }), "{none}");
    assert_eq!(std::fs::read(&file).unwrap(), b"data", "it is not written to");
    let busy = WatchdogError::opening(&file, io::ErrorKind::ResourceBusy.into()).to_string();
    assert!(busy.contains("sbd") && busy.contains("systemd"), "{busy}");
    let null = WatchdogSettings { device: "/dev/null".into(), ..settings() };
    assert!(matches!(Watchdog::arm(&null), Err(WatchdogError::NoWatchdog { .. })));
}
