//! Requests: right error numbers, payloads, order, and clients that leave or stall.

use tokio::io::AsyncWriteExt as _;

use super::super::proto::{command, command_flag, option};
use super::super::*;
use super::raw::{SIZE, Talk, compact, info, story};
use crate::export::*;

#[test]
fn each_wrong_request_gets_its_number_and_the_connection_lives_on() {
    story(async {
        let mut talk = Talk::new(ExportInfo::new(SIZE, 4096), Limits::default());
        talk.enter().await;
        let end = SIZE;
        let cases = [
            (command::READ, 0, end, 4096, 22),
            (command::READ, 0, 512, 4096, 22),
            (command::READ, 0, 0, 512, 22),
            (command::READ, 0, u64::MAX - 4095, 4096, 22),
            (command::WRITE_ZEROES, 0, end, 4096, 28),
            (command::TRIM, 0, end - 4096, 8192, 22),
            (command::WRITE_ZEROES, command_flag::FAST_ZERO, 0, 4096, 95),
            (command::READ, 1 << 15, 0, 4096, 22),
            (command::BLOCK_STATUS, 0, 0, 4096, 22),
            (77, 0, 0, 0, 22),
        ];
        for (command, flags, offset, len, number) in cases {
            talk.request(command, flags, offset, len).await;
            assert_eq!(talk.answer().await, number, "command {command} at {offset} of {len}");
        }
        talk.write(0, &[7; 4096]).await;
        assert_eq!(talk.answer().await, 0);
        talk.leave().await.unwrap();
    });
}

#[test]
fn a_read_only_export_permits_no_change() {
    story(async {
        let read_only = ExportInfo { read_only: true, ..info() };
        let mut talk = Talk::new(read_only, Limits::default());
        talk.enter().await;
        talk.write(0, &[7; 512]).await;
        assert_eq!(talk.answer().await, 1);
        for command in [command::TRIM, command::WRITE_ZEROES] {
            talk.request(command, 0, 0, 512).await;
            assert_eq!(talk.answer().await, 1);
        }
        talk.request(command::READ, 0, 0, 512).await;
        assert_eq!(talk.answer().await, 0);
        assert_eq!(talk.read(512).await, [0; 512]);
        talk.leave().await.unwrap();
    });
}

#[test]
fn the_payload_of_a_refused_write_is_passed_over() {
    story(async {
        let mut talk = Talk::new(info(), Limits::default());
        talk.enter().await;
        talk.write(SIZE, &[9; 300 << 10]).await;
        assert_eq!(talk.answer().await, 28);
        talk.write(0, &[5; 512]).await;
        assert_eq!(talk.answer().await, 0);
        talk.leave().await.unwrap();
    });
}

#[test]
fn the_largest_request_passes_and_one_block_more_does_not() {
    story(async {
        let large = ExportInfo::new(64 << 20, 512);
        let mut talk = Talk::new(large, Limits::default());
        talk.enter().await;
        talk.write(0, &vec![3; PAYLOAD_LEN_MAX as usize]).await;
        assert_eq!(talk.answer().await, 0);
        talk.request(command::READ, 0, 0, PAYLOAD_LEN_MAX).await;
        assert_eq!(talk.answer().await, 0);
        let back = talk.read(PAYLOAD_LEN_MAX as usize).await;
        assert!(back.iter().all(|byte| *byte == 3));
        talk.request(command::READ, 0, 0, PAYLOAD_LEN_MAX + 512).await;
        assert_ne!(talk.answer().await, 0);
        talk.leave().await.unwrap();
    });
}

#[test]
fn answers_come_in_the_order_of_the_work_not_of_the_requests() {
    story(async {
        let mut talk = Talk::new(info(), Limits::default());
        talk.enter().await;
        talk.request(command::FLUSH, 0, 0, 0).await;
        talk.write(4096, &[1; 512]).await;
        let first = talk.read(16).await;
        assert_eq!(first[8..], 4096_u64.to_be_bytes(), "the write overtakes the flush");
        let flush = talk.backend.waiting.borrow_mut().pop().unwrap();
        flush.done(Ok(()));
        assert_eq!(talk.answer().await, 0);
        talk.leave().await.unwrap();
    });
}

#[test]
fn no_more_requests_are_taken_than_the_limit_allows() {
    story(async {
        let limits = Limits { in_flight_count: 4, ..Limits::default() };
        let mut talk = Talk::new(info(), limits);
        talk.enter().await;
        for _ in 0..20 {
            talk.request(command::FLUSH, 0, 0, 0).await;
        }
        while talk.backend.waiting.borrow().len() < 4 {
            tokio::task::yield_now().await;
        }
        for done in 0..20 {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            let waiting = talk.backend.waiting.borrow().len();
            assert_eq!(waiting, 4.min(20 - done), "after {done} answers");
            let flush = talk.backend.waiting.borrow_mut().remove(0);
            flush.done(Ok(()));
            assert_eq!(talk.answer().await, 0);
        }
        talk.leave().await.unwrap();
    });
}

#[test]
fn a_client_that_takes_no_answers_is_not_read_from() {
    story(async {
        let limits = Limits { in_flight_bytes: 256 << 10, ..Limits::default() };
        let mut talk = Talk::over(info(), limits, 1 << 16);
        talk.enter().await;
        // Reads of 64 KiB whose answers nobody takes: soon nothing more is accepted, and what the
        // client sends piles up on its own side.
        let asked = compact(command::READ, 0, 0, 64 << 10).repeat(20_000);
        let sent = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            talk.stream.write_all(&asked).await
        });
        assert!(sent.await.is_err(), "560 kB of requests were taken without an answer");
        drop(talk.stream);
        let _ = talk.server.await.unwrap();
    });
}

#[test]
fn a_hang_up_in_a_payload_writes_nothing() {
    story(async {
        for len in [4096, 200 << 10] {
            let mut talk = Talk::new(info(), Limits::default());
            talk.enter().await;
            let size = u32::try_from(len).unwrap();
            talk.request(command::WRITE, 0, 0, size).await;
            talk.send(&vec![9; len - 1]).await;
            let backend = talk.backend.clone();
            drop(talk.stream);
            // Whether its refusal finds nobody or is not tried makes no difference.
            let _ = talk.server.await.unwrap();
            assert!(backend.inner.content().iter().all(|byte| *byte == 0));
        }
    });
}

#[test]
fn a_client_that_leaves_while_requests_are_held_back_is_noticed() {
    story(async {
        let mut talk = Talk::new(info(), Limits::default());
        talk.enter().await;
        talk.backend.set_ready(false);
        talk.write(0, &[1; 512]).await;
        tokio::task::yield_now().await;
        let backend = talk.backend.clone();
        drop(talk.stream);
        talk.server.await.unwrap().unwrap();
        assert!(backend.inner.content().iter().all(|byte| *byte == 0), "it was never accepted");
    });
}

#[test]
fn a_write_that_was_half_received_at_a_drain_is_refused_and_accepted_ones_are_answered() {
    story(async {
        let mut talk = Talk::new(info(), Limits::default());
        talk.enter().await;
        talk.request(command::FLUSH, 0, 0, 0).await;
        talk.request(command::WRITE, 0, 512, 200 << 10).await;
        talk.send(&[9; 1000]).await;
        while talk.backend.waiting.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        talk.switch.close(Close::Drain);
        assert_eq!(talk.answer().await, 108, "ESHUTDOWN, never a success");
        let flush = talk.backend.waiting.borrow_mut().pop().unwrap();
        flush.done(Ok(()));
        assert_eq!(talk.answer().await, 0);
        talk.server.await.unwrap().unwrap();
    });
}

#[test]
fn a_dropped_connection_keeps_nothing_of_late_answers() {
    story(async {
        let mut talk = Talk::new(info(), Limits::default());
        talk.enter().await;
        talk.request(command::FLUSH, 0, 0, 0).await;
        while talk.backend.waiting.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        talk.server.abort();
        assert!(talk.server.await.unwrap_err().is_cancelled());
        let flush = talk.backend.waiting.borrow_mut().pop().unwrap();
        // Nobody is there: that is no failure of the backend.
        flush.done(Ok(()));
    });
}

#[test]
fn extended_headers_have_64_bits_for_every_extent() {
    story(async {
        let mut talk = Talk::new(info(), Limits::default());
        talk.greet(3).await;
        assert_eq!(talk.option(option::EXTENDED_HEADERS, &[]).await[0].0, 1);
        let query = b"\0\0\0\x02db\0\0\0\x01\0\0\0\x0fbase:allocation";
        talk.option(option::SET_META_CONTEXT, query).await;
        talk.ask(option::EXPORT_NAME, b"db").await;
        talk.read(10).await;
        let mut request = 0x21e4_1c71_u32.to_be_bytes().to_vec();
        request.extend(0_u16.to_be_bytes());
        request.extend(command::BLOCK_STATUS.to_be_bytes());
        request.extend(7_u64.to_be_bytes());
        request.extend(0_u64.to_be_bytes());
        request.extend(SIZE.to_be_bytes());
        talk.send(&request).await;
        let head = talk.read(32).await;
        assert_eq!(head[..4], 0x6e8a_278c_u32.to_be_bytes());
        assert_eq!(head[8..16], 7_u64.to_be_bytes());
        let len = u64::from_be_bytes(head[24..32].try_into().unwrap());
        // Context, count, and two descriptors of 64 bits of length and of state each.
        let body = talk.read(usize::try_from(len).unwrap()).await;
        let word = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
        assert_eq!(body.len(), 4 + 4 + 2 * 16);
        assert_eq!((word(8), word(16)), (4096, 0));
        assert_eq!((word(24), word(32)), (SIZE - 4096, 3));
        drop(talk.stream);
        talk.server.await.unwrap().unwrap();
    });
}

#[test]
fn every_piece_of_a_request_may_come_alone() {
    story(async {
        let mut talk = Talk::new(info(), Limits::default());
        talk.enter().await;
        let mut bytes = compact(command::WRITE, 0, 0, 512);
        bytes.extend([4; 512]);
        for byte in bytes {
            talk.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(talk.answer().await, 0);
        assert!(talk.backend.inner.content().starts_with(&[4; 512]));
        talk.leave().await.unwrap();
    });
}
