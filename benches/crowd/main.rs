//! The crowd of the fan-out benchmark, which starts it: connections in a process of their own, told
//! over the standard input what to do.
//!
//! ```text
//! crowd audience ADDRESS raw|native MEMBERS
//! crowd standing ADDRESS CONNECTIONS SUBSCRIPTIONS CHANNELS
//! ```

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use harness::fanout::audience::Audience;
use harness::fanout::crowd::READY;
use harness::fanout::delivery::Order;
use harness::fanout::standing::{Spread, Standing};
use harness::fanout::words::Dialect;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the crowd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["audience", server, dialect, members] => {
            let dialect = Dialect::named(dialect)?;
            audience(Audience::open(address(server)?, dialect, number(members)?)?)
        }
        ["standing", server, connections, subscriptions, channels] => {
            let spread = Spread {
                connections: number(connections)?,
                subscriptions: number(subscriptions)?,
                channels: number(channels)?,
            };
            standing(Standing::open(address(server)?, spread)?)
        }
        _ => Err(io::Error::other(
            "the benchmark starts this, with arguments of its own",
        )),
    }
}

fn audience(mut audience: Audience) -> io::Result<()> {
    println!("{READY}");
    for line in io::stdin().lines() {
        let delivered = audience.carry_out(Order::from_line(&line?)?)?;
        println!("{}", delivered.to_line());
    }
    Ok(())
}

fn standing(mut standing: Standing) -> io::Result<()> {
    println!("{READY}");
    if io::stdin().read_line(&mut String::new())? == 0 {
        return Ok(());
    }
    standing.subscribe()?;
    println!("{READY}");
    standing.count()
}

fn address(word: &str) -> io::Result<SocketAddr> {
    word.parse()
        .map_err(|error| io::Error::other(format!("{word}: {error}")))
}

fn number(word: &str) -> io::Result<usize> {
    word.parse()
        .map_err(|error| io::Error::other(format!("{word}: {error}")))
}
