//! Three members with ownership marks: one takes over, the other follows it, nothing is lost.

use std::time::{Duration, Instant};

use hadrian_tests::Client;
use hadrian_tests::fencing::TIMING;
use hadrian_tests::tools::{alone, programs};
use hadrian_tests::trio::{Member, Trio};

const BLOCK: usize = 4096;
/// Silence that ends a link, and what starting processes and asking them takes on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// A client's view of the volume: each block holds the number of its last answered write.
struct Written {
    last: u64,
}

impl Written {
    fn write(&mut self, client: &mut Client, count: u64) {
        for _ in 0..count {
            let (place, number) = (self.last * BLOCK as u64, (self.last + 1).to_le_bytes());
            client.write(place, &number.repeat(BLOCK / 8)).unwrap();
            self.last += 1;
        }
    }

    fn assert_all_there(&self, client: &mut Client) {
        for place in 0..self.last {
            let found = client.read(place * BLOCK as u64, BLOCK).unwrap();
            let expected = (place + 1).to_le_bytes().repeat(BLOCK / 8);
            assert!(found == expected, "write {} of {} is not there", place + 1, self.last);
        }
    }
}

/// The primary is killed; who of the others serves, which must be in time, and alone.
fn fall(trio: &mut Trio, primary: Member, written: &Written) -> (Member, Member, Client) {
    let began = Instant::now();
    trio.kill(primary).unwrap();
    let others: Vec<_> = (0..3).filter(|member| *member != primary).collect();
    let (next, mut client) = trio.await_one(&others).unwrap();
    let (took, bound) = (began.elapsed(), TIMING.takeover_bound() + SLACK);
    assert!(took < bound, "the takeover took {took:?}, more than {bound:?}");
    let third = others.into_iter().find(|member| *member != next).unwrap();
    assert!(trio.try_client(third).is_none(), "only one of the two serves");
    written.assert_all_there(&mut client);
    (next, third, client)
}

#[test]
fn of_two_standbys_one_takes_over_and_the_other_follows_it_and_so_does_the_old_primary() {
    let _alone = alone();
    let mut trio = Trio::new(&programs()).unwrap();
    let mut written = Written { last: 0 };
    written.write(&mut trio.await_one(&[0]).unwrap().1, 200);

    let (beta, gamma, mut client) = fall(&mut trio, 0, &written);
    assert_eq!((beta, gamma), (1, 2), "the one that is in sync, and not the auxiliary");
    written.write(&mut client, 200);
    trio.start(0).unwrap();
    trio.await_followed(beta, &[0, gamma]).unwrap();
    assert!(trio.try_client(0).is_none(), "the old primary is a standby");
    written.write(&mut client, 100);
    drop(client);

    let (alpha, gamma, mut client) = fall(&mut trio, beta, &written);
    assert_eq!((alpha, gamma), (0, 2), "it is in sync again, and takes over in its turn");
    written.write(&mut client, 100);
    trio.start(beta).unwrap();
    trio.await_followed(alpha, &[beta, gamma]).unwrap();
    written.assert_all_there(&mut client);
}
