//! `/raw/{channel}` of the real server over four reactors: who hears what, who is let in, and what
//! becomes of a publisher that is faster than all others.

#[path = "../channels/site.rs"]
mod site;
#[expect(dead_code, reason = "other targets of this file need all of it")]
#[path = "../server/wire.rs"]
mod wire;

use std::{collections::BTreeMap, thread, time::Duration};

use serde_json::Value;
use tidemill::{
    Config,
    config::{NamespaceEntry, NamespaceFlag, Secret},
    dialect::Router,
};
use tungstenite::Message;

use crate::{
    site::{Guest, Site, config},
    wire::{Answer, Wire},
};

fn site(change: impl FnOnce(&mut Config)) -> Site {
    let mut config = config();
    change(&mut config);
    let of_handlers = config.clone();
    Site::start(&config, move |registry| Router::new(&of_handlers, registry))
}

/// Guests on this path who hear what is said from now on.
fn enter(site: &Site, path: &str, count: usize) -> Vec<Guest> {
    let before = site.metric("subscriptions");
    let mut guests: Vec<Guest> = (0..count).map(|_| site.enter(path)).collect();
    let mut other = site.enter(path);
    meet(&mut guests, |text| other.text(text));
    drop(other);
    site.expect_metric("subscriptions", before + count as u64);
    guests
}

/// Says something until every guest has heard of it: nobody is told when the home of its channel
/// knows it.
fn meet(guests: &mut [Guest], mut say: impl FnMut(&str)) {
    for guest in &mut *guests {
        let patience = guest.0.get_ref().read_timeout().unwrap();
        let short = Some(Duration::from_millis(20));
        guest.0.get_ref().set_read_timeout(short).unwrap();
        let mut tries = 1..1500;
        while guest.0.read().is_err() {
            assert!(tries.next().is_some(), "it hears nothing");
            say("?");
        }
        guest.0.get_ref().set_read_timeout(patience).unwrap();
    }
    say("all are here");
    for guest in guests {
        while guest.hear() != Message::text("all are here") {}
    }
}

/// A server publishes.
fn post(site: &Site, channel: &str, headers: &str, body: &[u8]) -> Answer {
    let mut wire = Wire::connect(site.address());
    let length = body.len();
    let head = format!(
        "POST /raw/{channel} HTTP/1.1\r\nHost: localhost\r\n\
         Content-Length: {length}\r\n{headers}\r\n"
    );
    wire.send([head.as_bytes(), body].concat());
    wire.answer()
}

/// The answer to an upgrade to this path.
fn knock(site: &Site, path: &str) -> Answer {
    let mut wire = Wire::connect(site.address());
    wire.send(wire::upgrade(path, ""));
    wire.answer()
}

#[test]
fn everybody_else_hears_what_is_said_as_it_is() {
    let site = site(|_| {});
    let mut tea = enter(&site, "/raw/tea", 9);
    let mut coffee = enter(&site, "/raw/coffee", 2);
    let said = [
        Message::text("hello"),
        Message::binary(vec![0, 255, 10]),
        Message::text(""),
        Message::binary(Vec::new()),
        Message::text("{\"a\":\n1} \u{1f375}"),
        Message::binary(b"text that is called binary".to_vec()),
        Message::text("x".repeat(60_000)),
    ];
    for message in &said {
        tea[0].say(message.clone());
    }
    for guest in &mut tea[1..] {
        for message in &said {
            assert_eq!(guest.hear(), *message);
        }
    }
    // Whoever has said it hears the next that somebody else says.
    tea[1].text("and back");
    tea[0].expect("and back");
    // Other channels have heard nothing of it.
    coffee[1].text("coffee");
    coffee[0].expect("coffee");
}

#[test]
fn who_wants_to_hears_itself() {
    let site = site(|_| {});
    for query in ["?notify_self=1", "?x=y&notify_self=true"] {
        let mut guests = enter(&site, &format!("/raw/echo{query}"), 2);
        guests[0].say_and_hear("once");
        guests[1].expect("once");
        guests[1].text("twice");
        for guest in &mut guests {
            guest.expect("twice");
        }
        drop(guests);
        site.expect_metric("subscriptions", 0);
    }
    // In one batch: what is one's own is left out, what is others' is not.
    let paths = ["/raw/mixed", "/raw/mixed", "/raw/mixed?notify_self=1"];
    let mut guests: Vec<Guest> = paths.iter().map(|path| site.enter(path)).collect();
    let mut other = site.enter(paths[0]);
    meet(&mut guests, |text| other.text(text));
    for round in 0..50 {
        for (number, guest) in guests.iter_mut().enumerate() {
            guest.text(&format!("{number} {round}"));
        }
    }
    for (number, guest) in guests.iter_mut().enumerate() {
        let others = if number == 2 { 3 } else { 2 };
        let mut heard = BTreeMap::<String, u32>::new();
        for _ in 0..50 * others {
            let text = guest.hear().into_text().unwrap();
            let (from, round) = text.split_once(' ').unwrap();
            let next = heard.entry(from.to_owned()).or_default();
            assert_eq!(round.parse::<u32>().unwrap(), *next);
            *next += 1;
        }
        assert_eq!(heard.len(), others);
        assert_eq!(heard.contains_key(&number.to_string()), number == 2);
    }
}

#[test]
fn a_name_is_percent_encoded() {
    let site = site(|_| {});
    for (one, other) in [
        ("a/b", "a%2Fb"),
        ("caf%C3%A9", "caf%c3%a9"),
        ("a.b", "%61.b"),
    ] {
        let mut here = enter(&site, &format!("/raw/{one}"), 1);
        let mut there = enter(&site, &format!("/raw/{other}"), 1);
        here[0].text("same");
        there[0].expect("same");
        drop((here, there));
        site.expect_metric("subscriptions", 0);
    }
    // No such namespace, however it is written.
    assert_eq!(knock(&site, "/raw/none:x").status, 403);
    assert_eq!(knock(&site, "/raw/none%3Ax").status, 403);
}

#[test]
fn what_is_no_name_or_not_for_bare_messages_is_refused() {
    let site = site(|_| {});
    let long = format!("/raw/{}", "x".repeat(201));
    for path in [
        "/raw/",
        "/raw/%",
        "/raw/%zz",
        "/raw/%ff",
        "/raw/a%01b",
        "/raw/%01u42",
        &long,
    ] {
        let answer = knock(&site, path);
        assert_eq!(answer.status, 400, "{path} {answer:?}");
        assert!(answer.body.contains("name of a channel"), "{answer:?}");
    }
    for name in [
        "demo:lobby",
        "none:x",
        "private-x",
        "presence-x",
        "$x",
        "x%2342",
        "news.*",
    ] {
        let answer = knock(&site, &format!("/raw/{name}"));
        assert_eq!(answer.status, 403, "{name} {answer:?}");
    }
    assert_eq!(knock(&site, "/raw").status, 404);
    for method in ["GET", "HEAD", "PUT"] {
        let mut wire = Wire::connect(site.address());
        wire.send(format!(
            "{method} /raw/tea HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ));
        let answer = wire.answer_to_head();
        assert_eq!(answer.status, 426, "{method}");
        assert_eq!(answer.header("upgrade"), Some("websocket"));
    }
    site.expect_metric("subscriptions", 0);
}

#[test]
fn who_may_only_listen_is_closed_for_speaking() {
    let site = site(|config| {
        let mut entry = NamespaceEntry::new("");
        entry
            .flags
            .insert(NamespaceFlag::AllowPublishForAnonymous, false);
        config.namespaces = vec![entry];
        config.api_key = Some(Secret::new("key"));
    });
    let headers = "X-API-Key: key\r\nContent-Type: text/plain\r\n";
    let mut guests = vec![site.enter("/raw/news"), site.enter("/raw/news")];
    meet(&mut guests, |text| {
        let answer = post(&site, "news", headers, text.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
    });
    guests[0].text("me too");
    let Message::Close(Some(close)) = guests[0].hear() else {
        panic!("no Close");
    };
    assert_eq!(u16::from(close.code), 1008);
    assert!(close.reason.contains("not allowed"), "{}", close.reason);
    site.expect_metric("subscriptions", 1);
    assert_eq!(post(&site, "news", headers, b"news").status, 200);
    guests[1].expect("news");
}

#[test]
fn a_server_says_something_with_the_key() {
    let site = site(|config| {
        config.api_key = Some(Secret::new("key"));
        config.history_size = 10;
    });
    let mut guests = enter(&site, "/raw/tea", 3);
    let key = "X-API-Key: key\r\n";
    let bodies: [(&str, &[u8], Message); 6] = [
        (
            "Content-Type: text/plain; charset=utf-8\r\n",
            b"h\xc3\xa9",
            Message::text("hé"),
        ),
        (
            "Content-Type: application/json\r\n",
            b"{\"a\": 1}",
            Message::text("{\"a\": 1}"),
        ),
        (
            "Content-Type: text/plain\r\n",
            b"\xff",
            Message::binary(vec![255]),
        ),
        (
            "Content-Type: image/png\r\n",
            b"text",
            Message::binary(b"text".to_vec()),
        ),
        ("", b"text", Message::binary(b"text".to_vec())),
        ("Content-Type: text/plain\r\n", b"", Message::text("")),
    ];
    let mut places = Vec::new();
    for (number, (headers, body, message)) in (1..).zip(bodies) {
        let answer = post(&site, "tea", &format!("{key}{headers}"), body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let place: Value = serde_json::from_str(&answer.body).unwrap();
        let epoch = place["epoch"].as_str().unwrap().to_owned();
        places.push((place["offset"].as_u64().unwrap() - number, epoch));
        for guest in &mut guests {
            assert_eq!(guest.hear(), message);
        }
    }
    places.dedup();
    assert_eq!(places.len(), 1, "{places:?}");
    // Two on one connection, the second sent before the first is answered.
    let mut wire = Wire::connect(site.address());
    let one = "POST /raw/nobody HTTP/1.1\r\nHost: localhost\r\nX-API-Key: key\r\n\
               Content-Length: 1\r\n\r\nx";
    wire.send(one.repeat(2));
    for offset in 1..=2 {
        let place: Value = serde_json::from_str(&wire.answer().body).unwrap();
        assert_eq!(place["offset"], offset);
    }
    for (channel, headers, status) in [
        ("tea", "", 401),
        ("tea", "X-API-Key: other\r\n", 401),
        ("%zz", key, 400),
        ("a%00", key, 400),
        ("none:x", key, 403),
        // Closed to bare messages, whoever says them.
        ("demo:lobby", key, 403),
    ] {
        let answer = post(&site, channel, headers, b"x");
        assert_eq!(answer.status, status, "{channel} {headers} {answer:?}");
    }
    let large = vec![b'x'; 64 * 1024 + 1];
    assert_eq!(post(&site, "tea", key, &large).status, 413);
    assert_eq!(post(&site, "tea", key, &large[1..]).status, 200);
    assert_eq!(guests[0].hear().len(), large.len() - 1);
}

#[test]
fn without_a_key_no_server_says_anything() {
    let site = site(|_| {});
    let answer = post(&site, "tea", "X-API-Key: key\r\n", b"x");
    assert_eq!(answer.status, 403, "{answer:?}");
}

/// The mailboxes are as small as they may be, and every message is charged more than it has bytes:
/// the publisher must wait for room, and again and again.
#[test]
fn a_publisher_that_is_too_fast_loses_and_reorders_nothing() {
    const MESSAGES: usize = 20_000;
    let site = site(|config| config.mail_bytes_max = 64 * 1024);
    let guests = enter(&site, "/raw/flood", 8);
    let mut publisher = site.enter("/raw/flood");
    let listening: Vec<_> = guests
        .into_iter()
        .map(|mut guest| {
            thread::spawn(move || {
                for number in 0..MESSAGES {
                    guest.expect(&number.to_string());
                }
                guest
            })
        })
        .collect();
    for number in 0..MESSAGES {
        publisher
            .0
            .write(Message::text(number.to_string()))
            .unwrap();
    }
    publisher.0.flush().unwrap();
    let mut guests: Vec<Guest> = listening
        .into_iter()
        .map(|guest| guest.join().unwrap())
        .collect();
    // All is well again.
    guests[0].text("after the flood");
    publisher.expect("after the flood");
    site.expect_metric("mail_bytes", 0);
    assert_eq!(site.metric("slow_consumers_total"), 0);
}

#[test]
fn what_is_said_at_once_goes_out_although_the_subscription_is_not_answered() {
    let site = site(|_| {});
    let mut listener = enter(&site, "/raw/quick?notify_self=1", 1).remove(0);
    for round in 0..50 {
        let mut guest = Wire::connect(site.address());
        let text = format!("round {round}");
        let request = wire::upgrade("/raw/quick", "");
        guest.send(
            [
                request.into_bytes(),
                wire::frame(wire::TEXT, text.as_bytes()),
            ]
            .concat(),
        );
        guest.switched();
        listener.expect(&text);
        guest.send(wire::close(1000, ""));
        guest.expect_close(1000);
    }
    site.expect_metric("subscriptions", 1);
}
