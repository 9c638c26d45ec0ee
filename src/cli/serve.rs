//! `tidemill serve`, the default: start, say what was started, run until told to stop.

use std::{
    env,
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
};

use super::{banner::Started, logging};
use crate::{
    config::{Config, ConfigError, Invocation, Parsed, parse},
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
    let started = Started {
        config: &invocation.config,
        plan: server.plan(),
        plain: server.addresses(),
        tls: server.tls_addresses(),
        admin: server.admin_addresses(),
        descriptors: server.descriptor_limits(),
    };
    // A closed standard output is no reason not to serve.
    let _ = io::stdout().lock().write_all(started.banner().as_bytes());
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
