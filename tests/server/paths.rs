//! Which path speaks what, under the options that decide it, and who may see the metrics.

use std::net::SocketAddr;

use tidemill::{
    Config,
    config::{DefaultPath, Dialect},
};

use crate::{
    site::{Site, config},
    wire::{Wire, get, upgrade},
};

const WELCOME: &str = r#"{"event":"connected","message":"Welcome!"}"#;

#[track_caller]
fn status(address: SocketAddr, request: &str) -> u16 {
    let mut wire = Wire::connect(address);
    wire.send(request);
    wire.answer().status
}

#[track_caller]
fn expect_welcome(site: &Site, path: &str) {
    let mut wire = Wire::open(site.address, path);
    wire.expect_text(WELCOME);
    wire.text(path);
    wire.expect_text(path);
}

#[track_caller]
fn expect_echo(site: &Site, path: &str) {
    let mut wire = Wire::open(site.address, path);
    wire.text(path);
    wire.expect_text(path);
}

#[test]
fn a_dialect_that_is_off_has_no_path() {
    let site = Site::router(Config {
        dialects: vec![Dialect::Echo],
        ..config()
    });
    expect_echo(&site, "/echo");
    for path in ["/", "/ws", "/chat"] {
        assert_eq!(status(site.address, &upgrade(path, "")), 404, "{path}");
    }
    assert_eq!(status(site.address, &get("/")), 404);
    assert_eq!(status(site.address, &get("/health")), 200);
}

#[test]
fn without_the_page_its_path_says_what_it_speaks() {
    let site = Site::router(Config {
        dialects: vec![Dialect::Welcome],
        ..config()
    });
    assert_eq!(status(site.address, &get("/")), 426);
    expect_welcome(&site, "/");
}

#[test]
fn unknown_paths_speak_what_the_default_path_says() {
    let site = Site::router(Config {
        default_path: DefaultPath::Echo,
        ..config()
    });
    expect_echo(&site, "/any/where");
    expect_welcome(&site, "/ws");
    let site = Site::router(Config {
        default_path: DefaultPath::Welcome,
        ..config()
    });
    expect_welcome(&site, "/any/where?a=b");
    expect_echo(&site, "/echo");
    let site = Site::router(config());
    assert_eq!(status(site.address, &upgrade("/any/where", "")), 404);
}

#[test]
fn the_prefix_is_stripped_from_every_path() {
    let site = Site::router(Config {
        path_prefix: "/live".to_owned(),
        ..config()
    });
    expect_echo(&site, "/live/echo");
    expect_welcome(&site, "/live");
    expect_welcome(&site, "/live/");
    assert_eq!(status(site.address, &get("/live/health")), 200);
    assert_eq!(status(site.address, &get("/live/")), 200);
    for path in ["/echo", "/lively/echo", "/live%2Fecho"] {
        assert_eq!(status(site.address, &upgrade(path, "")), 404, "{path}");
    }
}

#[test]
fn metrics_move_to_the_admin_listener_and_health_is_everywhere() {
    let site = Site::router(Config {
        admin_listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        ..config()
    });
    let admin = site.server().admin_addresses()[0];
    assert_eq!(status(site.address, &get("/metrics")), 403);
    assert_eq!(status(admin, &get("/metrics")), 200);
    for address in [site.address, admin] {
        for path in ["/health", "/ready"] {
            assert_eq!(status(address, &get(path)), 200, "{address} {path}");
        }
    }
    for path in ["/", "/echo"] {
        assert_eq!(status(admin, &upgrade(path, "")), 404, "{path}");
    }
    expect_echo(&site, "/echo");
}

#[test]
fn every_address_of_the_list_is_served() {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let other = SocketAddr::from(([127, 0, 0, 2], 0));
    let third = SocketAddr::from(([127, 0, 0, 3], 0));
    let site = Site::router(Config {
        listen: Some(vec![free, other, third]),
        ..config()
    });
    let addresses = site.server().addresses().to_vec();
    assert_eq!(addresses.len(), 3);
    for address in addresses {
        assert_ne!(address.port(), 0);
        assert_eq!(status(address, &get("/health")), 200, "{address}");
    }
}
