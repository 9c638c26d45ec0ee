//! Descriptors: a soft limit that can be raised, a hard one that cannot, one that shrinks while
//! the server runs, and those that containers have.

#![cfg(target_os = "linux")]

mod outside;

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use outside::{
    PATIENCE, Peer, Server,
    peer::{Answer, Refusal},
    raise_own_limit, wait_until,
};
use tidemill::config::{Bound, Config, Machine};

/// Opens so many connections; keeps those that got in, and checks what the others were told.
#[track_caller]
fn knock(server: &Server, count: usize) -> (Vec<Peer>, usize) {
    let mut inside = Vec::new();
    for number in 0..count {
        match Peer::knock(server.address, number) {
            Answer::Open(peer) => inside.push(peer),
            Answer::Refused(refusal) => expect_unavailable(&refusal),
        }
    }
    let refused = count - inside.len();
    (inside, refused)
}

#[track_caller]
fn expect_unavailable(refusal: &Refusal) {
    assert_eq!(refusal.status, 503, "{refusal:?}");
    for header in ["retry-after: ", "connection: close\r\n"] {
        let header = format!("\r\n{header}");
        assert!(refusal.head.contains(&header), "{refusal:?}");
    }
}

/// Connects so many at once, who then ask together; all are turned away.
#[track_caller]
fn crowd(server: &Server, count: usize) -> Vec<Refusal> {
    let crowd = (0..count).map(|number| Peer::connect(server.address, number).unwrap());
    let mut crowd: Vec<_> = crowd.collect();
    crowd.iter_mut().for_each(Peer::ask);
    let refusals = crowd.into_iter().map(|stream| match Peer::learn(stream) {
        Answer::Open(_) => panic!("got in"),
        Answer::Refused(refusal) => {
            expect_unavailable(&refusal);
            refusal
        }
    });
    refusals.collect()
}

#[track_caller]
fn expect_no_reset(refusals: &[Refusal]) {
    let abruptly = refusals.iter().filter(|refusal| refusal.was_reset);
    assert_eq!(abruptly.count(), 0, "of {}", refusals.len());
}

/// The remedy is named, and each kind of line comes at most once a second from each reactor.
#[track_caller]
fn expect_remedy_logged(server: &Server, reactors: usize, began: Instant) {
    wait_until(PATIENCE, || server.logged("ulimit -n"), |&lines| lines > 0);
    for kind in ["connection limit reached", "cannot accept"] {
        let lines = server.logged(kind);
        let seconds = began.elapsed().as_secs() as usize + 1;
        assert!(
            lines <= seconds * reactors,
            "{lines} times \"{kind}\" from {reactors} reactors in {seconds} s"
        );
    }
}

#[track_caller]
fn expect_echo(peers: &mut [Peer]) {
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.echo(format!("peer {number}").as_bytes());
    }
}

/// Measures over this time, in which `knocks` come at an even pace.
#[track_caller]
fn cpu_in_a_second(server: &Server, knocks: usize) -> Duration {
    let second = Duration::from_secs(1);
    server.cpu_during(|| {
        let began = Instant::now();
        for number in 0..knocks {
            assert!(matches!(
                Peer::knock(server.address, number),
                Answer::Refused(Refusal { status: 503, .. })
            ));
            let next = second * (number as u32 + 1) / knocks as u32;
            thread::sleep(next.saturating_sub(began.elapsed()));
        }
        thread::sleep(second.saturating_sub(began.elapsed()));
    })
}

#[test]
fn a_low_soft_limit_is_raised_and_said_so() {
    let hard = raise_own_limit(1_000);
    let server = Server::start("-Sn 256", &[]);
    let line = format!("ulimit -n is 256, raised to {hard}");
    assert!(
        server.banner.contains(&line),
        "{line} in\n{}",
        server.banner
    );
    let (mut inside, refused) = knock(&server, 600);
    assert_eq!(refused, 0);
    expect_echo(&mut inside);
}

#[test]
fn under_a_hard_limit_of_1024_what_fits_is_served_and_the_rest_is_told_why() {
    raise_own_limit(2_000);
    let began = Instant::now();
    let server = Server::start("-n 1024", &[("REACTORS", "2")]);
    assert!(
        server.banner.contains("set by the descriptor limit"),
        "{}",
        server.banner
    );
    let (mut inside, refused) = knock(&server, 1_200);
    assert!(
        (950..1_024).contains(&inside.len()),
        "{} got in",
        inside.len()
    );
    assert_eq!(inside.len() + refused, 1_200);
    expect_echo(&mut inside);

    expect_no_reset(&crowd(&server, 200));
    assert_eq!(server.logged("Too many open files"), 0);
    expect_remedy_logged(&server, 2, began);
    let quiet = cpu_in_a_second(&server, 0);
    assert!(
        quiet < Duration::from_millis(50),
        "{quiet:?} of CPU time while full and quiet"
    );
    let busy = cpu_in_a_second(&server, 50);
    assert!(
        busy < Duration::from_millis(300),
        "{busy:?} of CPU time for fifty who knock"
    );

    // A place is free again as soon as somebody leaves it.
    inside.drain(..100).for_each(Peer::close);
    let mut newcomers = Vec::new();
    wait_until(
        PATIENCE,
        || {
            let (peers, _) = knock(&server, 50 - newcomers.len());
            newcomers.extend(peers);
            newcomers.len()
        },
        |&count| count == 50,
    );
    expect_echo(&mut newcomers);
    expect_echo(&mut inside);
}

#[test]
fn the_log_names_the_remedy_and_does_not_repeat_it_for_each_peer() {
    raise_own_limit(1_000);
    let began = Instant::now();
    let server = Server::start("-n 128", &[("REACTORS", "1")]);
    let (_inside, refused) = knock(&server, 400);
    assert!(refused > 250, "{refused}");
    expect_remedy_logged(&server, 1, began);
}

/// Those who say nothing hold what a full server keeps for its refusals, and the others wait
/// behind them in the queue of the kernel: longer, but not in vain, nor at the cost of CPU time.
#[test]
fn silent_peers_before_a_full_server_only_delay_what_others_are_told() {
    raise_own_limit(1_000);
    let server = Server::start("-n 128", &[("REACTORS", "1")]);
    let (mut inside, _) = knock(&server, 150);
    let silent = (0..32).map(|number| Peer::connect(server.address, number).unwrap());
    let silent: Vec<_> = silent.collect();
    let spent = server.cpu_during(|| {
        crowd(&server, 50);
    });
    assert!(
        spent < Duration::from_millis(300),
        "{spent:?} of CPU time while they waited"
    );
    expect_echo(&mut inside);
    drop(silent);
}

#[test]
fn descriptors_that_run_out_under_way_cost_no_connection_and_no_cpu_time() {
    let hard = raise_own_limit(1_000);
    let server = Server::start("", &[("REACTORS", "1")]);
    let (mut inside, _) = knock(&server, 200);
    server.limit_descriptors(server.next_descriptor());

    // The spare descriptor is spent on one answer at a time.
    expect_no_reset(&crowd(&server, 10));
    expect_echo(&mut inside);
    wait_until(PATIENCE, || server.logged("ulimit -n"), |&lines| lines > 0);

    // Those who wait in the queue must not keep the server busy.
    let waiting = (0..50).map(|number| Peer::connect(server.address, number).unwrap());
    let waiting: Vec<_> = waiting.collect();
    let spent = cpu_in_a_second(&server, 0);
    assert!(
        spent < Duration::from_millis(100),
        "{spent:?} of CPU time with nothing to give"
    );
    drop(waiting);

    server.limit_descriptors(hard);
    let mut newcomers = Vec::new();
    wait_until(
        PATIENCE,
        || {
            let (peers, _) = knock(&server, 50 - newcomers.len());
            newcomers.extend(peers);
            newcomers.len()
        },
        |&count| count == 50,
    );
    expect_echo(&mut newcomers);
    expect_echo(&mut inside);
}

/// What containers allow: more descriptors than there is memory for, by far.
const CONTAINER_LIMITS: [u64; 2] = [1 << 20, 1 << 30];

/// What is reserved at the start must follow the smaller of both.
#[test]
fn the_limits_of_containers_make_no_absurd_plan() {
    for limit in CONTAINER_LIMITS {
        let machine = Machine {
            cores: 2,
            descriptors_soft: limit,
            descriptors_hard: limit,
            memory_bytes: 512 << 20,
            ipv6: true,
            unshare: true,
        };
        let plan = Config::default().plan(&machine).unwrap();
        assert_eq!(plan.bound, Bound::Memory);
        assert_eq!(plan.connections_max, (512 << 20) / (8 << 10));
        let vast = Machine {
            memory_bytes: 1 << 50,
            ..machine
        };
        let plan = Config::default().plan(&vast).unwrap();
        assert!(
            plan.connections_max <= 4_194_304,
            "{}",
            plan.connections_max
        );
    }
}

/// Where this process may raise its hard limit so far; elsewhere the plan above stands for it.
#[test]
fn a_server_starts_and_serves_under_the_limits_of_containers() {
    for limit in CONTAINER_LIMITS {
        let mut shell = Command::new("sh");
        let probe = shell.args(["-c", &format!("ulimit -n {limit} 2>/dev/null")]);
        if !probe.status().unwrap().success() {
            eprintln!("this machine does not allow ulimit -n {limit}");
            continue;
        }
        let server = Server::start(&format!("-n {limit}"), &[]);
        let line = format!("ulimit -n is {limit}");
        assert!(server.banner.contains(&line), "{}", server.banner);
        assert!(server.rss_bytes() < 64 << 20, "{}", server.rss_bytes());
        let (mut inside, refused) = knock(&server, 100);
        assert_eq!(refused, 0);
        expect_echo(&mut inside);
    }
}
