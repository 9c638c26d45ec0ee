//! The rules of the house, as a test: imports point down, files stay short, and what belongs in
//! one place is in no other. ARCHITECTURE.md says why.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Rooms by row. A file imports only from rows below its own, or from its own room.
const ROWS: [(u8, &[&str]); 8] = [
    (8, &["main"]),
    (7, &["cli"]),
    (6, &["server", "client", "load"]),
    (5, &["reactor", "dialect"]),
    (4, &["handler", "cluster"]),
    (3, &["connection"]),
    (
        2,
        &[
            "protocol",
            "transport",
            "gate",
            "hub",
            "slots",
            "wheel",
            "mailbox",
        ],
    ),
    (1, &["config", "metrics", "sys"]),
];

/// What a room must not know of.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    (
        "protocol",
        &[
            "std::net",
            "std::time",
            "std::thread",
            "std::fs",
            "mio",
            "socket2",
            "log::",
        ],
    ),
    ("wheel", &["std::net", "std::time", "std::thread", "mio"]),
    ("connection", &["std::time", "std::thread", "log::"]),
    ("gate", &["std::net", "std::time", "std::thread", "mio"]),
    (
        "hub",
        &["std::net", "std::time", "std::thread", "mio", "log::"],
    ),
    ("dialect", &["mio", "socket2", "std::thread"]),
    ("handler", &["mio", "std::thread"]),
];

/// Crates that do the work, and must go on doing it.
const BUILT_FROM: [&str; 9] = [
    "mio",
    "slab",
    "tungstenite",
    "rustls",
    "socket2",
    "libc",
    "log",
    "env_logger",
    "hdrhistogram",
];

const FILE_LINES_MAX: usize = 600;
const REACTOR_LINES_MAX: usize = 450;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

struct Source {
    path: PathBuf,
    room: String,
    /// Without the unit tests, which stand last.
    code: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let source_root = root().join("src");
    let mut files = Vec::new();
    rust_files(&source_root, &mut files);
    files.sort();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap()
            .to_owned();
        let inside = path.strip_prefix(&source_root).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap();
        let room = room.trim_end_matches(".rs").to_owned();
        Source {
            path,
            room,
            code,
            text,
        }
    };
    files.into_iter().map(source).collect()
}

fn row(room: &str) -> Option<u8> {
    ROWS.iter()
        .find(|(_, rooms)| rooms.contains(&room))
        .map(|(row, _)| *row)
}

/// The rooms that a file names behind `crate::`, grouped imports included.
fn imports(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.insert(word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (index, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    rooms.insert(word(&group[start..]));
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    rooms.insert(word(&group[start..]));
                    start = index + 1;
                }
                _ => {}
            }
        }
    }
    rooms.remove("");
    rooms
}

fn word(text: &str) -> String {
    let text = text.trim_start();
    text.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn imports_point_strictly_down() {
    let mut problems = Vec::new();
    let mut seen = 0;
    for Source {
        path, room, code, ..
    } in sources()
    {
        if room == "lib" {
            continue;
        }
        let Some(own) = row(&room) else {
            problems.push(format!("{}: a room without a row", path.display()));
            continue;
        };
        for other in imports(&code).into_iter().filter(|other| *other != room) {
            seen += 1;
            match row(&other) {
                Some(below) if below < own => {}
                Some(_) => problems.push(format!("{}: must not import {other}", path.display())),
                None => problems.push(format!("{}: imports unknown {other}", path.display())),
            }
        }
    }
    assert!(seen > 30, "the test does not find the imports any more");
    assert_none(problems);
}

#[test]
fn the_import_finder_sees_through_groups() {
    let code = "use crate::{\n    a::{b, c::d},\n    e,\n    f::g,\n};\nfn x() { crate::h::i() }";
    let found: Vec<_> = imports(code).into_iter().collect();
    assert_eq!(found, ["a", "e", "f", "h"]);
}

#[test]
fn rooms_do_not_know_what_is_not_theirs() {
    let mut problems = Vec::new();
    for Source {
        path, room, code, ..
    } in sources()
    {
        let forbidden = FORBIDDEN.iter().find(|(name, _)| *name == room);
        for word in forbidden.map_or(&[][..], |(_, words)| words) {
            let uses = |line: &&str| !line.trim_start().starts_with("//") && line.contains(word);
            // A duration is a number; only the clock is foreign.
            let line = code
                .lines()
                .filter(|line| !line.contains("Duration"))
                .find(uses);
            if let Some(line) = line {
                problems.push(format!("{}: {word} in: {}", path.display(), line.trim()));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn unsafe_code_is_in_one_file() {
    let mut problems = Vec::new();
    for Source {
        path, room, text, ..
    } in sources()
    {
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let lines = code.filter(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
        if room != "sys" && lines.count() > 0 {
            problems.push(format!("{}: unsafe outside sys.rs", path.display()));
        }
    }
    assert_none(problems);
}

#[test]
fn nothing_gives_up_with_unwrap() {
    let mut problems = Vec::new();
    for Source { path, code, .. } in sources() {
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            if [".unwrap()", "todo!(", "unimplemented!("]
                .iter()
                .any(|word| line.contains(word))
            {
                problems.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn files_functions_and_lines_stay_short() {
    let mut problems = Vec::new();
    for Source {
        path, code, text, ..
    } in sources()
    {
        let shown = path.display();
        let most = if path.ends_with("reactor/mod.rs") {
            REACTOR_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        if text.lines().count() > most {
            problems.push(format!("{shown}: more than {most} lines"));
        }
        if !text.starts_with("//!") {
            problems.push(format!("{shown}: no module comment"));
        }
        let mut function: Option<(usize, usize)> = None;
        for (number, line) in code.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts = line.trim_start().split(['(', '<']).next().unwrap_or("");
            let is_function = starts.starts_with("fn ") || starts.contains(" fn ");
            if function.is_none() && is_function && !line.trim_start().starts_with("//") {
                function = Some((number, indent));
            }
            if let Some((start, depth)) = function
                && (line == format!("{}}}", " ".repeat(depth)) || line.ends_with("{}"))
            {
                if number - start + 1 > FUNCTION_LINES_MAX {
                    problems.push(format!("{shown}:{}: function too long", start + 1));
                }
                function = None;
            }
            if line.chars().count() > COLUMNS_MAX {
                problems.push(format!("{shown}:{}: longer than 100 columns", number + 1));
            }
        }
    }
    assert_none(problems);
}

#[test]
fn the_prescribed_crates_do_the_work() {
    let code: String = sources().into_iter().map(|source| source.code).collect();
    let missing = BUILT_FROM.iter().filter(|name| {
        let used = [format!("{name}::"), format!("use {name}")];
        !used.iter().any(|form| code.contains(form))
    });
    assert_none(missing.map(|name| format!("{name} is not used")).collect());
}

#[test]
fn the_readme_lists_the_options_that_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let table = tidemill::config::markdown_table();
    assert!(
        readme.contains(table.trim()),
        "README.md and the options differ; the table should be\n\n{table}"
    );
}
