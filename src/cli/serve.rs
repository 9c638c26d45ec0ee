//! `tidemill serve`, the default: start, say what was started, run until told to stop.

use std::{
    env,
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
};

use super::logging;
use crate::{
    config::{Config, ConfigError, Dialect, Invocation, Parsed, parse},
    dialect::Router,
    server::{Server, ServerError},
    sys,
};

/// Serves until SIGTERM or SIGINT. Exit code 0 after an orderly shutdown, 1 when the server cannot
/// run, 2 when its configuration is wrong.
pub fn run(invocation: &Invocation) -> ExitCode {
    sys::tune_allocator();
    logging::start(&invocation.config);
    for warning in invocation.warnings() {
        log::warn!("{warning}");
    }
    match serve(invocation) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, ServerError::Config(_)) {
                2
            } else {
                1
            })
        }
    }
}

fn serve(invocation: &Invocation) -> Result<(), ServerError> {
    let config = invocation.config.clone();
    let server = {
        let config = config.clone();
        Server::start(&invocation.config, move |registry| {
            Router::new(&config, registry)
        })?
    };
    server.stop_on_signals(reread)?;
    // A closed standard output is no reason not to serve.
    let _ = io::stdout()
        .lock()
        .write_all(banner(invocation, &server).as_bytes());
    for warning in &server.plan().warnings {
        log::warn!("{warning}");
    }
    for address in exposed(&server) {
        log::warn!("{address} is reachable from other machines without TLS");
    }
    log::info!(
        "listening address={:?} tls_address={:?} reactors={} connections_max={}",
        server.addresses(),
        server.tls_addresses(),
        server.plan().reactors,
        server.plan().connections_max
    );
    server.join()?;
    log::info!("stopped");
    Ok(())
}

/// The configuration as it would be if the server were started now.
fn reread() -> Result<Config, ConfigError> {
    match parse(env::args_os(), env::vars_os())? {
        Parsed::Run(invocation) => Ok(invocation.config),
        Parsed::Print(_) => Ok(Config::default()),
    }
}

/// Listeners that others than this machine can reach.
fn exposed(server: &Server) -> impl Iterator<Item = &SocketAddr> {
    server
        .addresses()
        .iter()
        .filter(|address| !address.ip().to_canonical().is_loopback())
}

fn banner(invocation: &Invocation, server: &Server) -> String {
    let config = &invocation.config;
    let plan = server.plan();
    let mut lines = format!("tidemill {}\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(lines, "  {name:<12} {text}");
    };
    let prefix = &config.path_prefix;
    let whose = if plan.is_loopback_only() {
        "   (only this machine)"
    } else {
        ""
    };
    for address in server.addresses() {
        line("websocket", &format!("ws://{address}{prefix}{whose}"));
    }
    for address in server.tls_addresses() {
        line("websocket", &format!("wss://{address}{prefix}{whose}"));
    }
    let plain = server.addresses().iter().map(|address| ("http", address));
    let tls = server
        .tls_addresses()
        .iter()
        .map(|address| ("https", address));
    for (scheme, address) in plain.take(1).chain(tls.take(1)) {
        if config.serves(Dialect::Pages) {
            line("try it", &format!("{scheme}://{address}{prefix}/"));
        }
        line("health", &format!("{scheme}://{address}{prefix}/health"));
    }
    for address in server.admin_addresses() {
        line("admin", &format!("http://{address}{prefix}/metrics"));
    }
    let tables = if plan.private_tables {
        ", a descriptor table each"
    } else {
        ""
    };
    line("reactors", &format!("{}{tables}", plan.reactors));
    let (before, after) = server.descriptor_limits();
    let raised = if after > before {
        format!(", raised to {after}")
    } else {
        String::new()
    };
    line("descriptors", &format!("ulimit -n is {before}{raised}"));
    line(
        "connections",
        &format!("up to {}, set by {}", plan.connections_max, plan.bound),
    );
    lines
}
