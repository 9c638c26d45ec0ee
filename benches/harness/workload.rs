//! The workloads by name.

/// One row of tables in the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workload {
    /// What `--only` takes.
    pub name: &'static str,
    /// What the report says.
    pub title: &'static str,
    pub load: Load,
}

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Each connection sends `in_flight` messages at once and waits for all of them.
    Echo {
        connections: usize,
        payload_bytes: usize,
        in_flight: usize,
    },
    /// `connections` sockets connect, upgrade, close with 1000, wait for the end, and again.
    Churn { connections: usize },
}

/// All workloads, in the order of the report.
pub const ALL: [Workload; 8] = [
    echo("64x20", "64 connections x 20 B, one in flight", 64, 20, 1),
    echo(
        "512x20",
        "512 connections x 20 B, one in flight",
        512,
        20,
        1,
    ),
    echo(
        "4096x20",
        "4096 connections x 20 B, one in flight",
        4096,
        20,
        1,
    ),
    echo(
        "64x1KiB",
        "64 connections x 1 KiB, one in flight",
        64,
        1 << 10,
        1,
    ),
    echo(
        "64x16KiB",
        "64 connections x 16 KiB, one in flight",
        64,
        16 << 10,
        1,
    ),
    echo(
        "64x64KiB",
        "64 connections x 64 KiB, one in flight",
        64,
        64 << 10,
        1,
    ),
    echo(
        "64x20x16",
        "64 connections x 20 B, sixteen in flight",
        64,
        20,
        16,
    ),
    Workload {
        name: "connect",
        title: "connect, upgrade, close; 64 at a time",
        load: Load::Churn { connections: 64 },
    },
];

const fn echo(
    name: &'static str,
    title: &'static str,
    connections: usize,
    payload_bytes: usize,
    in_flight: usize,
) -> Workload {
    Workload {
        name,
        title,
        load: Load::Echo {
            connections,
            payload_bytes,
            in_flight,
        },
    }
}

/// The workload of that name.
///
/// # Errors
/// An unknown name, with the known ones.
pub fn named(name: &str) -> Result<Workload, String> {
    ALL.into_iter()
        .find(|workload| workload.name == name)
        .ok_or_else(|| {
            let known: Vec<_> = ALL.iter().map(|workload| workload.name).collect();
            format!("no workload {name}, there is {}", known.join(", "))
        })
}
