//! Two thousand peers that send and never read, against a budget that holds a fraction of what
//! they would like to have buffered; and sixty-four that must not notice.

#![cfg(target_os = "linux")]

mod outside;

use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};
use outside::{
    PATIENCE, Peer, Server,
    peer::{Answer, frame},
    raise_own_limit, wait_until,
};

const READERS: usize = 2_000;
const CLIENTS: usize = 64;
const BUDGET: u64 = 64 << 20;
/// Echoes that each client must have had in the worst of times.
const ECHOES_MIN: usize = 200;

/// Keeps writing requests for echoes wherever a socket takes bytes, until `stop`; counts the
/// connections that the server ends meanwhile.
fn send_and_never_read(streams: Vec<TcpStream>, stop: &AtomicBool, ended: &AtomicUsize) {
    let request = frame(0x2, &[b'x'; 16 * 1024]);
    let mut poll = Poll::new().unwrap();
    let mut readers: Vec<Option<(mio::net::TcpStream, usize)>> = Vec::new();
    for (number, stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true).unwrap();
        let mut stream = mio::net::TcpStream::from_std(stream);
        let registry = poll.registry();
        registry
            .register(&mut stream, Token(number), Interest::WRITABLE)
            .unwrap();
        readers.push(Some((stream, 0)));
    }
    let mut events = Events::with_capacity(READERS);
    while !stop.load(Relaxed) {
        match poll.poll(&mut events, Some(Duration::from_millis(50))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result.unwrap(),
        }
        for event in &events {
            let place = &mut readers[event.token().0];
            if place
                .as_mut()
                .is_some_and(|reader| !write_all_it_takes(reader, &request))
            {
                *place = None;
                ended.fetch_add(1, Relaxed);
            }
        }
    }
}

/// False when the server has ended the connection.
fn write_all_it_takes((stream, at): &mut (mio::net::TcpStream, usize), request: &[u8]) -> bool {
    loop {
        match stream.write(&request[*at..]) {
            Ok(taken) => *at = (*at + taken) % request.len(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Echoes until `stop`, and says how often and how long the longest took.
fn echo_undisturbed(mut clients: Vec<Peer>, stop: &AtomicBool) -> (usize, Duration) {
    let payload = [b'e'; 512];
    let (mut rounds, mut longest) = (0, Duration::ZERO);
    while rounds < ECHOES_MIN || !stop.load(Relaxed) {
        for client in &mut clients {
            let began = Instant::now();
            client.echo(&payload);
            longest = longest.max(began.elapsed());
        }
        rounds += 1;
    }
    clients.into_iter().for_each(Peer::close);
    (rounds, longest)
}

#[test]
fn two_thousand_that_never_read_do_not_disturb_sixty_four_that_do() {
    raise_own_limit(READERS as u64 + 500);
    // No pings: who never reads would be taken for dead before it has done its worst.
    let budget = BUDGET.to_string();
    let options = [("MAX_BUFFER_BYTES", &*budget), ("PING_INTERVAL", "0")];
    let server = Server::start("", &options);
    let idle = server.rss_bytes();
    let clients = (0..CLIENTS).map(|number| Peer::open(server.address, number));
    let clients: Vec<Peer> = clients.collect();
    let readers = (0..READERS).map(|number| reader(&server, number));
    let readers: Vec<TcpStream> = readers.collect();

    let (stop, ended) = (AtomicBool::new(false), AtomicUsize::new(0));
    let most_buffered = thread::scope(|scope| {
        // Also when a check fails: the scope waits for all of its threads.
        let stopping = Stopping(&stop);
        scope.spawn(|| send_and_never_read(readers, &stop, &ended));
        let mut clients = clients;
        let halves = [clients.split_off(CLIENTS / 2), clients];
        let echoing = halves.map(|half| scope.spawn(|| echo_undisturbed(half, &stop)));
        let most_buffered = watch(&server, &ended);
        drop(stopping);
        for half in echoing {
            let (rounds, longest) = half.join().unwrap();
            assert!(rounds >= ECHOES_MIN, "{rounds}");
            assert!(longest < Duration::from_secs(5), "an echo took {longest:?}");
        }
        most_buffered
    });
    let bounds = BUDGET / 2..=BUDGET + BUDGET / 4;
    assert!(
        bounds.contains(&most_buffered),
        "{most_buffered} bytes were buffered"
    );

    // All have gone, and so has what was kept for them.
    wait_until(
        PATIENCE,
        || server.metric("buffer_bytes"),
        |&bytes| bytes == 0,
    );
    wait_until(PATIENCE, || server.metric("connections"), |&open| open == 0);
    let kept = server.rss_bytes().saturating_sub(idle);
    assert!(
        kept <= BUDGET / 4,
        "{kept} bytes more than before are in use"
    );
}

/// Sets its flag when it goes.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn reader(server: &Server, number: usize) -> TcpStream {
    let stream = Peer::connect_with(server.address, number, Some(4096)).unwrap();
    match Peer::upgrade(stream) {
        Answer::Open(peer) => peer.stream,
        Answer::Refused(refusal) => panic!("{refusal:?}"),
    }
}

/// Waits until the budget has made itself felt, and then some; gives the most that was buffered.
fn watch(server: &Server, ended: &AtomicUsize) -> u64 {
    let mut most_buffered = 0;
    let mut look = || {
        most_buffered = most_buffered.max(server.metric("buffer_bytes"));
        (server.metric("slow_consumers_total"), ended.load(Relaxed))
    };
    wait_until(PATIENCE, &mut look, |&(closed, ended)| {
        closed >= READERS as u64 / 4 && ended >= READERS / 4
    });
    let later = Instant::now() + Duration::from_secs(2);
    wait_until(PATIENCE, &mut look, |_| Instant::now() > later);
    most_buffered
}
