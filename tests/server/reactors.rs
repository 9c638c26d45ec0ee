//! Several reactors behind one port: by the kernel's hash, or handed on by the first.

use tidemill::{Config, config::Accept};

use crate::{
    site::{Site, config},
    wire::Wire,
};

const CONNECTIONS: usize = 120;

/// Opens many connections; each echoes, and all reactors hold some. Gives how many each holds.
#[track_caller]
fn spread(config: Config) -> Vec<u64> {
    let reactors = config.reactors.unwrap();
    let site = Site::router(config);
    let mut wires: Vec<Wire> = (0..CONNECTIONS)
        .map(|_| Wire::open(site.address, "/echo"))
        .collect();
    for (number, wire) in wires.iter_mut().enumerate() {
        wire.text(&number.to_string());
    }
    for (number, wire) in wires.iter_mut().enumerate() {
        wire.expect_text(&number.to_string());
    }
    let held: Vec<u64> = (0..reactors)
        .map(|reactor| site.metric(&format!("reactor_connections{{reactor=\"{reactor}\"}}")))
        .collect();
    assert_eq!(held.iter().sum::<u64>(), CONNECTIONS as u64);
    for wire in wires {
        wire.close(1000);
    }
    for reactor in 0..reactors {
        site.expect_metric(&format!("reactor_connections{{reactor=\"{reactor}\"}}"), 0);
    }
    held
}

#[test]
fn the_kernel_spreads_connections_over_all_reactors() {
    let held = spread(Config {
        reactors: Some(3),
        ..config()
    });
    assert!(held.iter().all(|count| *count >= 10), "{held:?}");
}

#[test]
fn the_first_reactor_hands_sockets_on_in_turn() {
    let held = spread(Config {
        reactors: Some(3),
        accept: Accept::Handoff,
        ..config()
    });
    assert_eq!(held, [CONNECTIONS as u64 / 3; 3]);
}

#[test]
fn the_cap_counts_over_all_reactors() {
    for accept in [Accept::Reuseport, Accept::Handoff] {
        let site = Site::router(Config {
            reactors: Some(3),
            connections_max: Some(60),
            accept,
            ..config()
        });
        let mut inside = Vec::new();
        let mut refused = 0;
        for _ in 0..90 {
            let mut wire = Wire::connect(site.address);
            wire.send(crate::wire::upgrade("/echo", ""));
            match wire.answer().status {
                101 => inside.push(wire),
                503 => refused += 1,
                status => panic!("{status}"),
            }
        }
        // A reactor whose slots are taken refuses before the whole server is full.
        assert!(inside.len() <= 60 && inside.len() >= 45, "{}", inside.len());
        assert_eq!(inside.len() + refused, 90);
        for wire in &mut inside {
            wire.text("inside");
            wire.expect_text("inside");
        }
    }
}

#[test]
fn a_second_server_may_share_the_port_only_when_asked_to() {
    let first = Site::router(config());
    let same = Config {
        listen: Some(vec![first.address]),
        ..config()
    };
    let error = tidemill::server::Server::start(&same, {
        let same = same.clone();
        move |registry| tidemill::dialect::Router::new(&same, registry)
    });
    let error = error.expect_err("the port was taken silently").to_string();
    assert!(error.contains(&first.address.to_string()), "{error}");
    assert!(error.contains("TIDEMILL_TAKEOVER"), "{error}");

    let second = Site::router(Config {
        takeover: true,
        ..same
    });
    assert_eq!(second.address, first.address);
    // Both are given connections, until the first leaves them all to the second.
    let wires: Vec<Wire> = (0..60)
        .map(|_| Wire::open(first.address, "/echo"))
        .collect();
    for site in [&first, &second] {
        assert!(site.metric("connections_total") > 5);
    }
    drop(wires);
    drop(first);
    for _ in 0..20 {
        Wire::open(second.address, "/echo").close(1000);
    }
}
