//! Options in every order and shape.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use super::super::proto::{info as kind, option, option_reply};
use super::super::*;
use super::raw::{SIZE, Talk, info, story};
use crate::export::*;

/// The data of INFO and GO: a name and no particular wishes.
fn named(name: &str) -> Vec<u8> {
    let mut data = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend(0_u16.to_be_bytes());
    data
}

fn context(name: &str, query: &str) -> Vec<u8> {
    let text = |text: &str| {
        let len = u32::try_from(text.len()).unwrap().to_be_bytes();
        len.into_iter().chain(text.bytes()).collect::<Vec<u8>>()
    };
    [text(name), 1_u32.to_be_bytes().to_vec(), text(query)].concat()
}

#[test]
fn the_old_way_in_has_its_zeroes_unless_the_client_declined_them() {
    story(async {
        for (flags, tail) in [(1, 10 + 124), (3, 10)] {
            let mut talk = Talk::new(info(), Limits::default());
            talk.greet(flags).await;
            talk.ask(option::EXPORT_NAME, b"db").await;
            let answer = talk.read(tail).await;
            assert_eq!(answer[..8], SIZE.to_be_bytes());
            assert!(answer[10..].iter().all(|byte| *byte == 0));
            talk.leave().await.unwrap();
        }
    });
}

#[test]
fn info_then_go_tells_size_and_blocks_twice_and_enters() {
    story(async {
        let mut talk = Talk::new(ExportInfo::new(SIZE, 4096), Limits::default());
        talk.greet(3).await;
        for option in [option::INFO, option::GO] {
            let replies = talk.option(option, &named("db")).await;
            assert_eq!(replies.last().unwrap().0, option_reply::ACK);
            let told = |wanted: u16| {
                let found =
                    replies.iter().find(|(_, data)| data.starts_with(&wanted.to_be_bytes()));
                found.map(|(_, data)| data[2..].to_vec()).unwrap()
            };
            assert_eq!(told(kind::EXPORT)[..8], SIZE.to_be_bytes());
            let blocks = [4096_u32, 4096, PAYLOAD_LEN_MAX].map(u32::to_be_bytes).concat();
            assert_eq!(told(kind::BLOCK_SIZE), blocks);
        }
        talk.leave().await.unwrap();
    });
}

#[test]
fn every_export_is_listed_and_an_unknown_one_is_refused_without_an_end() {
    story(async {
        let mut talk = Talk::new(info(), Limits::default());
        talk.greet(3).await;
        let listed = talk.option(option::LIST, &[]).await;
        let names: Vec<_> =
            listed.iter().filter(|(kind, _)| *kind == option_reply::SERVER).collect();
        assert_eq!(names[0].1, [&2_u32.to_be_bytes()[..], b"db"].concat());
        assert_eq!(names[1].1, [&3_u32.to_be_bytes()[..], b"web"].concat());
        let unknown = talk.option(option::GO, &named("nothing")).await;
        assert_eq!(unknown[0].0, option_reply::ERR_UNKNOWN);
        let with_data = talk.option(option::LIST, b"?").await;
        assert_eq!(with_data[0].0, option_reply::ERR_INVALID);
        let tls = talk.option(option::STARTTLS, &[]).await;
        assert!([option_reply::ERR_UNSUP, option_reply::ERR_POLICY].contains(&tls[0].0));
        let strange = talk.option(9999, b"what").await;
        assert_eq!(strange[0].0, option_reply::ERR_UNSUP);
        let abort = talk.option(option::ABORT, &[]).await;
        assert_eq!(abort[0].0, option_reply::ACK);
        talk.server.await.unwrap().unwrap();
    });
}

#[test]
fn contexts_are_chosen_after_structured_replies_only() {
    story(async {
        let mut talk = Talk::new(info(), Limits::default());
        talk.greet(3).await;
        let chosen = context("db", "base:allocation");
        let early = talk.option(option::SET_META_CONTEXT, &chosen).await;
        assert_eq!(early[0].0, option_reply::ERR_INVALID);
        talk.option(option::STRUCTURED_REPLY, &[]).await;
        let found = talk.option(option::SET_META_CONTEXT, &chosen).await;
        assert_eq!(found[0].0, option_reply::META_CONTEXT);
        assert!(found[0].1.ends_with(b"base:allocation"));
        let other = talk.option(option::SET_META_CONTEXT, &context("db", "qemu:dirty")).await;
        assert_eq!(other.len(), 1, "an unknown context is passed over");
        talk.option(option::ABORT, &[]).await;
    });
}

#[test]
fn a_client_that_does_not_decide_is_sent_away() {
    story(async {
        let limits = Limits { negotiation: Duration::from_secs(5), ..Limits::default() };
        let mut talk = Talk::new(info(), limits);
        talk.greet(3).await;
        talk.option(option::LIST, &[]).await;
        let ended = talk.server.await.unwrap();
        assert!(matches!(ended, Err(ConnectionError::TooSlow)), "{ended:?}");
    });
}

#[test]
fn too_many_options_a_wrong_magic_and_an_absurd_length_end_the_connection() {
    story(async {
        let limits = Limits { option_count: 3, ..Limits::default() };
        let mut talk = Talk::new(info(), limits);
        talk.greet(3).await;
        for _ in 0..3 {
            talk.option(option::LIST, &[]).await;
        }
        talk.ask(option::LIST, &[]).await;
        assert!(talk.server.await.unwrap().is_err());

        let mut talk = Talk::new(info(), Limits::default());
        talk.greet(3).await;
        talk.send(b"NOTANOPTION.....").await;
        assert!(talk.server.await.unwrap().is_err());

        let mut talk = Talk::new(info(), Limits::default());
        talk.greet(3).await;
        talk.send(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff").await;
        let mut rest = Vec::new();
        let _ = talk.stream.read_to_end(&mut rest).await;
        assert!(talk.server.await.unwrap().is_err());
        assert!(rest.len() < 4096, "{} bytes", rest.len());
    });
}
