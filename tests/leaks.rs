//! What a server that has been busy gives back: descriptors to the last one, memory to within a
//! little.

#![cfg(target_os = "linux")]

mod outside;

use std::{thread, time::Duration};

use outside::{PATIENCE, Peer, Server, raise_own_limit, wait_until};

const MIB: u64 = 1024 * 1024;
const THREADS: usize = 8;

/// Connects, echoes and closes so often, some at once, and waits until all are gone.
#[track_caller]
fn cycles(server: &Server, count: usize, descriptors_before: usize) {
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for number in (thread..count).step_by(THREADS) {
                    let mut peer = Peer::open(server.address, number);
                    peer.echo(format!("cycle {number}").as_bytes());
                    peer.close();
                }
            });
        }
    });
    wait_until(
        PATIENCE,
        || server.descriptors(),
        |&now| now == descriptors_before,
    );
}

#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    let server = Server::start("", &[]);
    let descriptors = server.descriptors();
    cycles(&server, 10_000, descriptors);
    let before = server.rss_bytes();
    cycles(&server, 10_000, descriptors);
    let after = server.rss_bytes();
    assert!(after <= before + MIB, "{before} bytes became {after}");
    assert!(server.metric("connections_total") >= 20_000);
}

#[test]
fn a_large_message_leaves_no_buffer_with_its_connection() {
    raise_own_limit(2_000);
    let server = Server::start("", &[("MAX_MESSAGE_BYTES", "2MiB")]);
    let mut peers: Vec<Peer> = (0..1_000)
        .map(|number| Peer::open(server.address, number))
        .collect();
    let each = |peers: &mut Vec<Peer>, payload: &[u8]| {
        let share = peers.len().div_ceil(THREADS);
        thread::scope(|scope| {
            for share in peers.chunks_mut(share) {
                scope.spawn(|| share.iter_mut().for_each(|peer| peer.echo(payload)));
            }
        });
    };
    each(&mut peers, b"small");
    let before = server.rss_bytes();

    each(&mut peers, &vec![b'x'; MIB as usize]);
    wait_until(
        Duration::from_secs(5),
        || server.rss_bytes(),
        |&now| now <= before + 5 * MIB,
    );
    each(&mut peers, b"still there");
    assert_eq!(server.metric("connections"), 1_000);
}
