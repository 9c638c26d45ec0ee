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
    // The load generator has flags of its own, and none of the server's.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "bench")
    {
        return cli::bench::run(std::env::args_os().skip(1));
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
