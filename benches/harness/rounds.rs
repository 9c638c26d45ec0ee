//! Rounds, in each of which every server has its turn.

use std::io;

use crate::servers::Kind;

/// What the rounds of one server brought.
pub struct Rounds<T> {
    pub server: String,
    pub rounds: Vec<T>,
}

/// Every server once a round, in an order that rotates. `turn` is told the number of the round, and
/// gives what is said of it while the run goes on beside what it brought.
///
/// # Errors
/// The first one of a turn.
pub fn in_turns<T>(
    name: &str,
    rounds: usize,
    servers: &[&Kind],
    mut turn: impl FnMut(usize, &Kind) -> io::Result<(T, String)>,
) -> io::Result<Vec<Rounds<T>>> {
    let none = |kind: &&Kind| Rounds {
        server: kind.name.clone(),
        rounds: Vec::new(),
    };
    let mut results: Vec<_> = servers.iter().map(none).collect();
    for round in 0..rounds {
        for place in 0..servers.len() {
            let index = (round + place) % servers.len();
            let (result, said) = turn(round, servers[index])?;
            eprintln!("{name} round {} {}: {said}", round + 1, servers[index].name);
            results[index].rounds.push(result);
        }
    }
    Ok(results)
}
