//! The command line: commands, flags and the help, all from the table of options.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches};

use super::error::ConfigError;
use super::group::Group;
use super::kind::Kind;
use super::resolve::{Resolved, resolve};
use super::settings::Config;
use super::source::Sources;
use super::spec::Spec;
use super::suggest;
use super::table::OPTIONS;
use super::value;

/// Reads a command line, whose first item is the program's name, together with the variables.
///
/// # Errors
/// A command line that is malformed, and whatever [`resolve`] finds.
pub fn parse<A, V, K, T>(args: A, variables: V) -> Result<Parsed, ConfigError>
where
    A: IntoIterator,
    A::Item: Into<OsString>,
    V: IntoIterator<Item = (K, T)>,
    K: Into<OsString>,
    T: Into<OsString>,
{
    let args = joined_switches(args.into_iter().map(Into::into));
    let matches = match command_line().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return asked_for(&error),
    };
    let (command, matches) = match matches.subcommand() {
        Some(("check", matches)) => (Command::Check, matches),
        Some((name @ ("bench" | "token"), _)) => {
            let problem =
                format!("{name} comes first and has flags of its own: tidemill {name} --help");
            return Err(ConfigError::Usage(problem));
        }
        Some((_, matches)) => (Command::Serve, matches),
        None => (Command::Serve, &matches),
    };
    let Resolved {
        config,
        sources,
        notes,
    } = resolve(&flags(matches), variables)?;
    Ok(Parsed::Run(Box::new(Invocation {
        command,
        config,
        sources,
        notes,
    })))
}

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Run a command.
    Run(Box<Invocation>),
    /// Print this text on standard output and end with 0: the help or the version.
    Print(String),
}

/// A command and its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// With which values.
    pub config: Config,
    /// Where each value was set.
    pub sources: Sources,
    /// Variables that were passed over and look like options: one line each, for the log.
    pub notes: Vec<String>,
}

impl Invocation {
    /// All that an operator should be told about this configuration: its notes and
    /// [`Config::warnings`].
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notes.clone();
        warnings.extend(self.config.warnings());
        warnings
    }
}

/// The commands of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Run the server.
    Serve,
    /// Print the effective configuration and what this machine allows.
    Check,
}

/// The command line as `clap` sees it.
pub fn command_line() -> clap::Command {
    // The list of options is ours: clap has no place for a variable beside each flag without its
    // `env` feature, which would read the variables too.
    let help = options_help();
    let command = |name: &'static str| {
        clap::Command::new(name)
            .after_help(help.clone())
            .help_template(TEMPLATE)
            .override_usage(format!("tidemill {name} [--flag VALUE]..."))
    };
    let serve = command("serve").about("Run the server (the default)");
    let check = command("check").about("Print the effective configuration and what fits");
    // Listed here; the flags behind it are its own, and are not read here.
    let bench = clap::Command::new("bench").about("Load a server and say what it took");
    let token = clap::Command::new("token").about("Sign a token, to try things out");
    clap::Command::new("tidemill")
        .bin_name("tidemill")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A WebSocket server for very many long-lived connections.")
        .disable_help_subcommand(true)
        .override_usage("tidemill [serve | check | bench | token] [--flag VALUE]...")
        .after_help(help.clone())
        .help_template(TEMPLATE_WITH_COMMANDS)
        .subcommand(serve)
        .subcommand(check)
        .subcommand(bench)
        .subcommand(token)
        .args(flagged().map(argument))
}

/// The options that have a flag.
fn flagged() -> impl Iterator<Item = &'static Spec> {
    OPTIONS.iter().filter(|spec| !spec.is_secret())
}

/// One flag. It may stand before or behind the command.
fn argument(spec: &'static Spec) -> Arg {
    let argument = Arg::new(spec.name)
        .long(spec.name)
        .value_name(spec.placeholder)
        .action(ArgAction::Set)
        .global(true)
        .hide(true)
        .allow_negative_numbers(true);
    match spec.kind {
        Kind::Bool(_) | Kind::AutoBool(_) => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        _ => argument,
    }
}

/// Joins each switch with its value where one follows it: in `--takeover check` the word is a
/// command, in `--takeover off` it is the value, and only we know which words are booleans.
fn joined_switches(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    let mut after_switch = false;
    for arg in args {
        let boolean = arg
            .to_str()
            .is_some_and(|text| value::boolean(text).is_ok() || text.eq_ignore_ascii_case("auto"));
        match joined.last_mut() {
            Some(switch) if after_switch && boolean => {
                switch.push("=");
                switch.push(arg);
                after_switch = false;
            }
            _ => {
                after_switch = arg.to_str().is_some_and(is_switch);
                joined.push(arg);
            }
        }
    }
    joined
}

fn is_switch(arg: &str) -> bool {
    let spec = arg.strip_prefix("--").and_then(Spec::named);
    spec.is_some_and(|spec| matches!(spec.kind, Kind::Bool(_) | Kind::AutoBool(_)))
}

fn flags(matches: &ArgMatches) -> BTreeMap<&'static str, String> {
    let set =
        |spec: &'static Spec| Some((spec.name, matches.get_one::<String>(spec.name)?.clone()));
    flagged().filter_map(set).collect()
}

/// What clap stopped at: the help and the version are no errors.
fn asked_for(error: &clap::Error) -> Result<Parsed, ConfigError> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return Ok(Parsed::Print(error.to_string()));
    }
    let context = |kind| error.get(kind).map(ToString::to_string);
    let problem = match (error.kind(), context(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(flag)) if flag.starts_with('-') => unknown_flag(&flag),
        _ => first_line(&error.to_string()),
    };
    Err(ConfigError::Usage(problem))
}

fn unknown_flag(flag: &str) -> String {
    let name = flag.trim_start_matches('-');
    let name = name.strip_suffix("-file").unwrap_or(name);
    if let Some(secret) = Spec::named(name).filter(|spec| spec.is_secret()) {
        let variable = secret.variable();
        return format!(
            "{flag} is not a flag, as a command line is seen by others; set {variable}, or \
             {variable}_FILE to the path of a file"
        );
    }
    let names = flagged().map(|spec| format!("--{}", spec.name));
    let near = suggest::nearest(flag, "--", names);
    let near = near
        .map(|name| format!(" (did you mean {name}?)"))
        .unwrap_or_default();
    format!("{flag} is not a flag of this command{near}")
}

/// The first line of an error of clap, which is the error; usage and hints follow it.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// The options for the help, two lines each.
fn options_help() -> String {
    let mut help = String::from(OPTIONS_INTRODUCTION);
    for group in Group::ALL {
        help += &format!("\n{}:\n", group.title());
        for spec in group.options() {
            let flag = match spec.is_secret() {
                false => format!("--{} {}", spec.name, spec.placeholder),
                true => WITHOUT_FLAG.to_owned(),
            };
            let (variable, default) = (spec.variable(), spec.preset.text());
            help += &format!(
                "  {flag:<30} {variable:<31} {default}\n      {}\n",
                spec.help
            );
        }
    }
    help.truncate(help.trim_end().len());
    help
}

const OPTIONS_INTRODUCTION: &str = "\
Each option is a flag, a variable, or a line of the file that --env-file names;
a flag counts before a variable, a variable before the file. Sizes are written
65536, 64KiB or 1MB, times 500ms, 10s, 5m or 1h. An empty value is not set.
A secret has no flag, as command lines are seen by others: set its variable, or
the variable with _FILE behind its name to the path of a file that holds it.

  Flag                           Variable                        Default
";

/// In the help, in the place of a secret's flag.
const WITHOUT_FLAG: &str = "(the variable, or its _FILE)";

const TEMPLATE: &str = "{about}\n\n{usage-heading} {usage}{after-help}\n";

const TEMPLATE_WITH_COMMANDS: &str = "\
{about}

{usage-heading} {usage}

Commands:
{subcommands}
  -h, --help     Print this
  -V, --version  Print the version{after-help}
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Parsed, ConfigError> {
        parse(line.split_whitespace(), [("TIDEMILL_BACKLOG", "77")])
    }

    fn invocation(line: &str) -> Invocation {
        match parsed(line) {
            Ok(Parsed::Run(invocation)) => *invocation,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn printed(line: &str) -> String {
        match parsed(line) {
            Ok(Parsed::Print(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn problem(line: &str) -> String {
        parsed(line).unwrap_err().to_string()
    }

    #[test]
    fn serving_is_what_no_command_means() {
        assert_eq!(invocation("tidemill").command, Command::Serve);
        assert_eq!(invocation("tidemill serve").command, Command::Serve);
        assert_eq!(invocation("tidemill check").command, Command::Check);
        assert_eq!(
            invocation("tidemill --takeover check").command,
            Command::Check
        );
        assert_eq!(
            invocation("tidemill --takeover off check").command,
            Command::Check
        );
    }

    #[test]
    fn a_flag_is_read_on_either_side_of_the_command_with_a_space_or_an_equals_sign() {
        let lines = [
            "tidemill --max-connections 5",
            "tidemill --max-connections=5",
            "tidemill serve --max-connections 5",
            "tidemill check --max-connections=5",
            "tidemill --max-connections 5 check",
        ];
        for line in lines {
            assert_eq!(invocation(line).config.connections_max, Some(5), "{line}");
        }
    }

    #[test]
    fn a_switch_needs_no_value() {
        assert!(invocation("tidemill serve --takeover").config.takeover);
        assert!(
            invocation("tidemill --takeover --pin-cores=on")
                .config
                .takeover
        );
        assert!(invocation("tidemill --takeover yes").config.takeover);
        assert!(!invocation("tidemill --takeover=false").config.takeover);
        assert!(!invocation("tidemill --takeover off").config.takeover);
        for (line, set) in [
            ("tidemill --token-required=false check", Some(false)),
            ("tidemill --token-required no", Some(false)),
            ("tidemill --token-required auto check", None),
        ] {
            assert_eq!(invocation(line).config.token_required, set, "{line}");
        }
        let url = "--token-jwks-url https://issuer.example";
        let required = invocation(&format!("tidemill --token-required {url}"));
        assert_eq!(required.config.token_required, Some(true));
        assert!(
            invocation("tidemill --takeover --backlog 1")
                .config
                .takeover
        );
        assert_eq!(
            invocation("tidemill --backlog 1 --takeover").config.backlog,
            1
        );
    }

    #[test]
    fn every_option_of_the_table_is_a_flag_unless_it_is_a_secret() {
        for spec in OPTIONS {
            let line = command_line();
            let known = line
                .get_arguments()
                .any(|flag| flag.get_long() == Some(spec.name));
            assert_eq!(known, !spec.is_secret(), "{}", spec.name);
        }
        command_line().debug_assert();
    }

    #[test]
    fn the_help_shows_each_flag_with_its_variable_and_default_in_100_columns() {
        for line in [
            "tidemill --help",
            "tidemill -h",
            "tidemill check --help",
            "tidemill serve -h",
        ] {
            let help = printed(line);
            for spec in OPTIONS {
                let variable = format!(" {} ", spec.variable());
                let rows = || help.lines().filter(|row| row.contains(&variable));
                let row = rows().next().unwrap_or_else(|| panic!("no {variable}"));
                assert_eq!(rows().count(), 1, "{variable}");
                let flag = format!("  --{} {} ", spec.name, spec.placeholder);
                assert_eq!(row.starts_with(&flag), !spec.is_secret(), "{row}");
                assert!(row.ends_with(spec.preset.text()), "{row}");
                assert!(help.contains(spec.help), "{}", spec.help);
            }
            assert!(help.lines().all(|row| row.chars().count() <= 100), "{help}");
            assert!(!help.contains("\n\n\n") && help.ends_with('\n'), "{help:?}");
        }
    }

    #[test]
    fn the_help_does_not_depend_on_the_environment() {
        let quiet = printed("tidemill --help");
        let args = ["tidemill", "--help"];
        let variables = [
            ("TIDEMILL_BACKLOG", "4321"),
            ("TIDEMILL_LISTNE", "secret"),
            ("TIDEMILL_TOKEN_SECRET", "hunter2"),
        ];
        let loud = parse(args, variables).unwrap();
        assert_eq!(loud, Parsed::Print(quiet));
    }

    #[test]
    fn the_version_is_the_crate_s() {
        let expected = format!("tidemill {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(printed("tidemill --version"), expected);
        assert_eq!(printed("tidemill -V"), expected);
    }

    #[test]
    fn an_unknown_flag_is_refused_with_the_one_that_was_meant() {
        let problem = problem("tidemill --max-conections 5");
        assert!(problem.contains("--max-conections") && problem.contains("--max-connections?"));
        assert!(self::problem("tidemill check --listne=x").contains("--listen?"));
        assert!(self::problem("tidemill --zzz").contains("--zzz is not a flag"));
    }

    #[test]
    fn a_secret_on_the_command_line_is_refused_with_the_variable_and_not_repeated() {
        for line in [
            "tidemill --token-secret hunter2",
            "tidemill --token-secret=hunter2",
            "tidemill serve --token-secret=hunter2",
            "tidemill check --token-secret-file hunter2",
        ] {
            let problem = problem(line);
            assert!(!problem.contains("hunter2"), "{problem}");
            assert!(problem.contains("is not a flag, as"), "{problem}");
            assert!(
                problem.contains("set TIDEMILL_TOKEN_SECRET, or TIDEMILL_TOKEN_SECRET_FILE to"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_malformed_line_is_one_line_of_error() {
        let lines = [
            "tidemill dance",
            "tidemill serve more",
            "tidemill --backlog",
            "tidemill --backlog 1 --backlog 2",
            "tidemill --backlog -5",
            "tidemill -x",
            "tidemill --takeover maybe",
            "tidemill --takeover=maybe",
        ];
        for line in lines {
            let problem = problem(line);
            assert!(
                !problem.contains('\n') && !problem.starts_with("error"),
                "{problem}"
            );
        }
        assert!(problem("tidemill --backlog -5").contains("1 to 65535"));
    }

    #[test]
    fn notes_and_warnings_come_together() {
        let args = ["tidemill", "--idle-timeout", "1s"];
        match parse(args, [("TIDEMILL_PORT", "80")]).unwrap() {
            Parsed::Run(invocation) => assert_eq!(invocation.warnings().len(), 2),
            Parsed::Print(text) => panic!("printed {text}"),
        }
    }
}
