//! How a benchmark's output looks: what it ran on, and tables.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::machine;

/// How the tables are written.
#[derive(Clone, Copy, PartialEq)]
pub enum Format {
    Text,
    Markdown,
}

/// The format that `--markdown` chooses.
pub fn format(markdown: bool) -> Format {
    if markdown {
        Format::Markdown
    } else {
        Format::Text
    }
}

/// Prints what a reader must know to repeat the run: machine, command and commit.
pub fn introduce(bench: &str, format: Format) {
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let command = format!("cargo bench --manifest-path benches/Cargo.toml --bench {bench}");
    let command = match &arguments[..] {
        [] => command,
        arguments => format!("{command} -- {}", arguments.join(" ")),
    };
    let fields = [
        ("machine", machine::description()),
        ("command", command),
        ("commit", commit().unwrap_or_else(|| "unknown".into())),
    ];
    for (name, value) in fields {
        match format {
            Format::Text => println!("{name}: {value}"),
            Format::Markdown => println!("- {name}: `{value}`"),
        }
    }
    println!();
}

/// The commit of the tree around this package, marked when the tree differs from it.
fn commit() -> Option<String> {
    let output = Command::new("git")
        .args([
            "describe",
            "--always",
            "--dirty",
            "--abbrev=10",
            "--exclude=*",
        ])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| commit.trim().to_owned())
}

/// What stands above a part of the report.
pub fn headline(title: &str, format: Format) -> String {
    match format {
        Format::Text => format!("{title}\n"),
        Format::Markdown => format!("### {title}\n\n"),
    }
}

/// A table with its columns aligned; the first row is the header, the first column has names.
pub fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]], format: Format) -> String {
    let mut text = String::new();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let (open, between, close) = match format {
        Format::Text => ("  ", "  ", ""),
        Format::Markdown => ("| ", " | ", " |"),
    };
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<_> = std::iter::zip(row, widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        let _ = writeln!(text, "{open}{}{close}", cells.join(between));
        if number == 0 && format == Format::Markdown {
            let rule = |(column, width): (usize, &usize)| match column {
                0 => "-".repeat(*width),
                _ => format!("{}:", "-".repeat(width - 1)),
            };
            let rules: Vec<_> = widths.iter().enumerate().map(rule).collect();
            let _ = writeln!(text, "{open}{}{close}", rules.join(between));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_markdown_has_a_rule() {
        let rows = [["a", "bb"], ["ccc", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, Format::Text), "  a    bb\n  ccc   d\n");
        assert_eq!(
            table(&rows, Format::Markdown),
            "| a   | bb |\n| --- | -: |\n| ccc |  d |\n"
        );
    }
}
