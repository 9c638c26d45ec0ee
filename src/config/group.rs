//! The options in groups, as people see them: the headings of the help, and the README's table.

use super::spec::Spec;
use super::table::OPTIONS;

/// The headings of the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Where and how connections come in.
    Listening,
    /// Certificates, and where they are shown.
    Tls,
    /// Who may come in.
    Access,
    /// What holds for channels.
    Channels,
    /// How many of them, and the budgets of one turn.
    Capacity,
    /// What one address and one connection may take.
    Rates,
    /// Bounds of what is held in memory.
    Sizes,
    /// Liveness.
    Timeouts,
    /// What is answered on which path.
    Paths,
    /// Shutdown and overload.
    Operation,
    /// Logs, and where options come from.
    Logs,
}

impl Group {
    /// All of them in the order of the help.
    pub const ALL: [Group; 11] = [
        Group::Listening,
        Group::Tls,
        Group::Access,
        Group::Channels,
        Group::Capacity,
        Group::Rates,
        Group::Sizes,
        Group::Timeouts,
        Group::Paths,
        Group::Operation,
        Group::Logs,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Listening => "Listening",
            Group::Tls => "TLS",
            Group::Access => "Access",
            Group::Channels => "Channels",
            Group::Capacity => "Capacity",
            Group::Rates => "Caps and rates",
            Group::Sizes => "Sizes",
            Group::Timeouts => "Timeouts",
            Group::Paths => "HTTP and paths",
            Group::Operation => "Overload and shutdown",
            Group::Logs => "Logs and files",
        }
    }

    /// Its options in the order of the table.
    pub fn options(self) -> impl Iterator<Item = &'static Spec> {
        OPTIONS.iter().filter(move |spec| spec.group == self)
    }
}

/// All options as the Markdown table that the README shows.
pub fn markdown_table() -> String {
    let mut table = String::from("| Variable | Default | What it does |\n|---|---|---|\n");
    for spec in Group::ALL.into_iter().flat_map(Group::options) {
        let bounds = format!("{}. Allowed: {}", spec.help, spec.allowed());
        // A bar would end the cell, and two stars would slant what stands between them.
        let bounds = bounds.replace('|', "\\|").replace('*', "\\*");
        let mut names = format!("`{}`", spec.variable());
        if let Some(file_variable) = spec.file_variable() {
            names += &format!(" or `{file_variable}`");
        }
        table += &format!("| {names} | {} | {bounds} |\n", spec.preset.text());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_markdown_table_has_a_row_of_three_cells_for_each_option() {
        let table = markdown_table();
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!(rows.len(), OPTIONS.len() + 2);
        for row in &rows {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 4, "{row}");
            assert!(!row.replace("\\*", "").contains('*'), "{row}");
        }
        for spec in OPTIONS {
            let variable = format!("| `{}`", spec.variable());
            let help = spec.help.replace('*', "\\*");
            let rest = format!(" | {} | {help}", spec.preset.text());
            let is_row = |row: &&str| row.starts_with(&variable) && row.contains(&rest);
            let row = rows.iter().find(|row| is_row(row)).unwrap();
            let file = format!("` or `{}_FILE` |", spec.variable());
            assert_eq!(row.contains(&file), spec.is_secret(), "{row}");
        }
    }
}
