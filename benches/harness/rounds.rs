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
    let names: Vec<_> = servers.iter().map(|kind| kind.name.clone()).collect();
    in_rotation(name, rounds, &names, |round, index| {
        turn(round, servers[index])
    })
}

/// The same for what is known by name and place, whatever it is.
///
/// # Errors
/// The first one of a turn.
pub fn in_rotation<T>(
    name: &str,
    rounds: usize,
    names: &[String],
    mut turn: impl FnMut(usize, usize) -> io::Result<(T, String)>,
) -> io::Result<Vec<Rounds<T>>> {
    let none = |name: &String| Rounds {
        server: name.clone(),
        rounds: Vec::new(),
    };
    let mut results: Vec<_> = names.iter().map(none).collect();
    for round in 0..rounds {
        for place in 0..names.len() {
            let index = (round + place) % names.len();
            let (result, said) = turn(round, index)?;
            eprintln!("{name} round {} {}: {said}", round + 1, names[index]);
            results[index].rounds.push(result);
        }
    }
    Ok(results)
}
