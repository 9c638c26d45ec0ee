//! The `tidemill` binary: reads the command line and calls one file of `cli`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use tidemill::{
    cli,
    config::{self, Command, Parsed},
    server,
};

fn main() -> ExitCode {
    // These two have flags of their own, and none of the server's.
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("bench") => return cli::bench::run(std::env::args_os().skip(1)),
        Some("token") => return cli::token::run(std::env::args_os().skip(1)),
        _ => {}
    }
    let invocation = match config::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(Parsed::Run(invocation)) => invocation,
        Ok(Parsed::Print(text)) => {
            // A reader that closed the pipe has read what it wanted.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match invocation.command {
        Command::Serve => cli::serve::run(&invocation),
        Command::Check => match server::machine() {
            Ok(machine) => cli::check::run(&invocation, &machine),
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
