//! The chat example: what is said in a room arrives there, once, in order, and nowhere else.

use std::{
    collections::HashMap,
    io::Write,
    net::SocketAddr,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use socket2::{Domain, Socket, Type};
use tidemill::Config;
use tungstenite::Message;

use crate::{
    example::Chat,
    site::{Guest, Site, config},
};

const BUSY: &str = "(too much is being said, try again)";

const ROOMS: [&str; 2] = ["tea", "coffee"];
const SPEAKERS: usize = 3;
const LISTENERS: usize = 3;
const SAYINGS: usize = 300;

/// How far a speaker goes on before it has heard itself.
const WINDOW: usize = 4;

fn start(config: &Config) -> Site {
    Site::start(config, |_| Chat)
}

/// Says one's name and waits to hear it: from then on one hears everything.
fn greet(guest: &mut Guest, name: &str) {
    guest.say_and_hear(&format!("hello {name}"));
}

/// What the speaker with this number says, and in which form: some small, some shared, some large.
fn saying(room: &str, speaker: usize, number: usize) -> Message {
    let length = [0, 10, 150, 1500, 40_000][number % 5];
    let text = format!("{room} {speaker} {number} {}", "x".repeat(length));
    if number.is_multiple_of(2) {
        Message::text(text)
    } else {
        Message::binary(text.into_bytes())
    }
}

/// Speaker and number of a saying; it must be one of this room, unharmed.
fn understand(room: &str, message: &Message) -> Option<(usize, usize)> {
    let bytes = message.clone().into_data();
    let text = str::from_utf8(&bytes).unwrap();
    if text.starts_with("hello ") {
        return None;
    }
    let mut words = text.split(' ').skip(1);
    let mut number = || words.next().unwrap().parse().unwrap();
    let (speaker, number) = (number(), number());
    assert_eq!(*message, saying(room, speaker, number));
    Some((speaker, number))
}

/// Listens from now on to the last word of every speaker; everything that was said, in order.
fn listen(guest: &mut Guest, room: &str) -> Vec<(usize, usize)> {
    let mut heard = Vec::new();
    let mut done = 0;
    while done < SPEAKERS {
        if let Some((speaker, number)) = understand(room, &guest.hear()) {
            heard.push((speaker, number));
            done += usize::from(number + 1 == SAYINGS);
        }
    }
    heard
}

/// Comes and goes; whatever it hears in between is without gap and without repetition.
fn drop_by(address: SocketAddr, room: &str, over: &AtomicBool) -> usize {
    let mut heard = 0;
    for visit in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let mut guest = Guest::enter(address, &format!("/room/{room}"));
        greet(&mut guest, &format!("{:?} {visit}", thread::current().id()));
        let mut next: HashMap<usize, usize> = HashMap::new();
        for _ in 0..visit % 40 {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let Some((speaker, number)) = understand(room, &guest.hear()) else {
                continue;
            };
            let expected = next.insert(speaker, number + 1);
            assert!(
                expected.is_none_or(|expected| expected == number),
                "{next:?}"
            );
            heard += 1;
        }
        if visit % 2 == 0 {
            // The others just drop the connection.
            guest.0.close(None).unwrap();
        }
    }
    heard
}

#[test]
fn everyone_hears_everything_once_and_in_the_same_order() {
    // Room for all of it: on a busy machine nobody shall be slow.
    let site = start(&Config {
        outbox_bytes_max: Some(16 << 20),
        ..config()
    });
    let address = site.address();
    let over = Arc::new(AtomicBool::new(false));
    let begin = Arc::new(Barrier::new(ROOMS.len() * (SPEAKERS + LISTENERS)));
    let (mut speakers, mut listeners, mut visitors) = (Vec::new(), Vec::new(), Vec::new());
    for room in ROOMS {
        for speaker in 0..SPEAKERS {
            let begin = Arc::clone(&begin);
            speakers.push(thread::spawn(move || {
                let mut guest = Guest::enter(address, &format!("/room/{room}"));
                begin.wait();
                let mut heard = 0;
                for number in 0..SAYINGS + WINDOW {
                    if number < SAYINGS {
                        guest.say(saying(room, speaker, number));
                    }
                    // It hears itself too, and waits for that, to the last word.
                    while heard + WINDOW <= number {
                        let own = understand(room, &guest.hear());
                        heard += usize::from(own.is_some_and(|(by, _)| by == speaker));
                    }
                }
            }));
        }
        for listener in 0..LISTENERS {
            let begin = Arc::clone(&begin);
            listeners.push(thread::spawn(move || {
                let mut guest = Guest::enter(address, &format!("/room/{room}"));
                greet(&mut guest, &format!("listener {listener}"));
                begin.wait();
                listen(&mut guest, room)
            }));
        }
        let over = Arc::clone(&over);
        visitors.push(thread::spawn(move || drop_by(address, room, &over)));
    }
    for speaker in speakers {
        speaker.join().unwrap();
    }
    let heard: Vec<_> = listeners
        .into_iter()
        .map(|one| one.join().unwrap())
        .collect();
    over.store(true, Ordering::Relaxed);
    for (room, heard) in ROOMS.iter().zip(heard.chunks(LISTENERS)) {
        assert_eq!(heard[0].len(), SPEAKERS * SAYINGS, "{room}");
        for speaker in 0..SPEAKERS {
            let said = heard[0].iter().filter(|(by, _)| *by == speaker);
            assert!(
                said.map(|(_, number)| *number).eq(0..SAYINGS),
                "{room} {speaker}"
            );
        }
        assert!(
            heard.iter().all(|one| *one == heard[0]),
            "{room}: orders differ"
        );
    }
    // A visitor that waits for the next word gets one.
    for room in ROOMS {
        let mut last = site.enter(&format!("/room/{room}"));
        greet(&mut last, "the last one");
    }
    for visitor in visitors {
        assert!(visitor.join().unwrap() > 0, "nobody came by");
    }
    site.expect_metric("subscriptions", 0);
    site.expect_metric("channels", 0);
    site.expect_metric("mail_bytes", 0);
}

#[test]
fn a_listener_that_never_reads_is_closed_and_delays_nobody() {
    const LENGTH: usize = 32 * 1024;
    let site = start(&config());
    let address = site.address();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut deaf = Guest::over(socket.into(), "/room/tea");
    greet(&mut deaf, "deaf");
    let mut others: Vec<Guest> = (0..4).map(|_| site.enter("/room/tea")).collect();
    for (number, guest) in others.iter_mut().enumerate() {
        greet(guest, &number.to_string());
    }
    site.expect_metric("subscriptions", 5);
    // More than the outbox and the kernel take; everybody else keeps up by being waited for.
    let mut said = 0;
    while site.metric("slow_consumers_total") == 0 {
        let message = Message::binary(format!("{said:08}{}", "x".repeat(LENGTH)).into_bytes());
        others[said % 4].say(message.clone());
        for guest in &mut others {
            while let heard = guest.hear()
                && heard != message
            {
                assert!(heard.is_text(), "something was lost");
            }
        }
        said += 1;
        assert!(
            said * LENGTH < 64 << 20,
            "nothing happens to who never reads"
        );
    }
    assert_eq!(site.metric("slow_consumers_total"), 1);
    site.expect_metric("subscriptions", 4);
    greet(&mut others[0], "again");
    drop(deaf);
}

#[test]
fn a_room_of_more_than_one_turns_budget_hears_everything_once() {
    const GUESTS: usize = 1200;
    const WORDS: usize = 5;
    let site = start(&Config {
        reactors: Some(1),
        ..config()
    });
    let mut guests: Vec<Guest> = (0..GUESTS).map(|_| site.enter("/room/hall")).collect();
    site.expect_metric("subscriptions", GUESTS as u64);
    let mut speaker = site.enter("/room/hall");
    for word in 0..WORDS {
        speaker.say(Message::text(format!("{word}")));
    }
    // Half of them leave while it is being delivered.
    let mut stay = guests.split_off(GUESTS / 2);
    drop(guests);
    for guest in &mut stay {
        for word in 0..WORDS {
            assert_eq!(guest.hear(), Message::text(format!("{word}")));
        }
    }
    greet(&mut speaker, "the end");
    for guest in &mut stay {
        assert_eq!(guest.hear(), Message::text("hello the end"));
    }
    site.expect_metric("subscriptions", stay.len() as u64 + 1);
}

#[test]
fn what_is_too_much_is_said_to_be_and_the_rest_arrives() {
    let site = start(&Config {
        mail_bytes_max: 64 * 1024,
        ..config()
    });
    let mut speaker = site.enter("/room/tea");
    greet(&mut speaker, "speaker");
    // Many small ones in one piece: more than the mailbox takes before it is looked at.
    let mut burst = Vec::new();
    for number in 0..2000u32 {
        let text = format!("{number:010}");
        burst.extend([0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]);
        burst.extend(text.as_bytes());
    }
    speaker.0.get_mut().write_all(&burst).unwrap();
    let (mut heard, mut busy) = (Vec::new(), 0);
    while heard.len() + busy < 2000 {
        let message = speaker.hear().into_text().unwrap();
        match message.parse::<u32>() {
            Ok(number) => heard.push(number),
            Err(_) => {
                assert_eq!(message, BUSY);
                busy += 1;
            }
        }
    }
    assert!(busy > 0, "2,000 publications fit into 64 KiB");
    assert!(heard.len() >= 100, "{}", heard.len());
    assert!(heard.is_sorted_by(|one, other| one < other));
    // It passes.
    site.expect_metric("mail_bytes", 0);
    greet(&mut speaker, "speaker again");
    let published = site.metric("publications_total{dialect=\"app\"}");
    assert_eq!(published, heard.len() as u64 + 2);
    assert_eq!(site.metric("deliveries_total"), published);
}
