//! Where each value comes from: flag over variable over file over default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::env_file;
use super::error::ConfigError;
use super::layers::Layers;
use super::names::{is_service_link, known, mistaken_port};
use super::settings::Config;
use super::source::{Source, Sources};
use super::spec::Spec;
use super::table::OPTIONS;

/// Puts a configuration together from flags (by [`Spec::name`]) and variables.
///
/// An empty value counts as not set, so that a template may leave a variable empty; only
/// `SERVER_HEADER` takes it as "none". The file is the one that `--env-file` or
/// `TIDEMILL_ENV_FILE` names. For `LOG`, `RUST_LOG` stands between file and default. A secret comes
/// from a variable or from the file that the variable with `_FILE` at its end names.
///
/// Called again, it reads all files again.
///
/// # Errors
/// The first value that its option does not take, an unknown `TIDEMILL_` variable, a file that
/// cannot be read, a secret that is set in both ways, and whatever [`Config::validate`] finds. No
/// error holds any part of a secret.
pub fn resolve<V, K, T>(
    flags: &BTreeMap<&'static str, String>,
    variables: V,
) -> Result<Resolved, ConfigError>
where
    V: IntoIterator<Item = (K, T)>,
    K: Into<OsString>,
    T: Into<OsString>,
{
    let Ours {
        texts: variables,
        notes,
    } = Ours::of(variables)?;
    let mut layers = Layers {
        flags,
        variables,
        file: None,
    };
    if let Some((path, _)) = layers.find(named("env-file")) {
        let path = PathBuf::from(path);
        let lines = env_file::read(&path)?;
        for (name, &(_, line)) in &lines {
            let origin = Source::File {
                path: path.clone(),
                line,
            };
            if name == "TIDEMILL_ENV_FILE" {
                let problem = "a file cannot name another one, remove the line".to_owned();
                return Err(ConfigError::EnvFileLine {
                    path,
                    line,
                    problem,
                });
            }
            known(name, origin)?;
        }
        layers.file = Some((path, lines));
    }
    let mut config = Config::default();
    let mut sources = BTreeMap::new();
    for spec in OPTIONS {
        if let Some(origin) = layers.apply(spec, &mut config)? {
            sources.insert(spec.name, origin);
        }
    }
    config.validate()?;
    Ok(Resolved {
        config,
        sources: Sources::new(sources),
        notes,
    })
}

/// A configuration and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The values.
    pub config: Config,
    /// Where each was set.
    pub sources: Sources,
    /// Variables that were passed over and look like options. One line each, for the log.
    pub notes: Vec<String>,
}

/// The variables that concern us, and notes about those that only look so.
#[derive(Default)]
struct Ours {
    texts: BTreeMap<String, String>,
    notes: Vec<String>,
}

impl Ours {
    fn of<V, K, T>(variables: V) -> Result<Ours, ConfigError>
    where
        V: IntoIterator<Item = (K, T)>,
        K: Into<OsString>,
        T: Into<OsString>,
    {
        // In the order of their names, so that of several errors the same one is always told.
        let mut found = BTreeMap::new();
        for (name, value) in variables {
            // A name that is not UTF-8 is none of ours.
            let Ok(name) = name.into().into_string() else {
                continue;
            };
            if name.starts_with("TIDEMILL_") || name == "RUST_LOG" {
                found.insert(name, value.into());
            }
        }
        let mut ours = Ours::default();
        for (name, value) in found {
            if is_service_link(&name) {
                ours.notes.extend(mistaken_port(&name, &value));
                continue;
            }
            let spec = if name == "RUST_LOG" {
                named("log")
            } else {
                known(&name, Source::Variable)?
            };
            let text = value.into_string().map_err(|value| {
                let problem = "not UTF-8, write it in UTF-8".to_owned();
                spec.error(&value.to_string_lossy(), Source::Variable, problem)
            })?;
            ours.texts.insert(name, text);
        }
        Ok(ours)
    }
}

fn named(name: &'static str) -> &'static Spec {
    Spec::named(name).expect("the table has the option: a test looks each of these names up")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::temporary::TemporaryFile;

    fn resolved(
        flags: &[(&'static str, &str)],
        variables: &[(&str, &str)],
    ) -> Result<Resolved, ConfigError> {
        let flags = flags
            .iter()
            .map(|&(name, text)| (name, text.to_owned()))
            .collect();
        resolve(&flags, variables.iter().copied())
    }

    fn from_variables(variables: &[(&str, &str)]) -> Result<Resolved, ConfigError> {
        resolved(&[], variables)
    }

    fn problem(variables: &[(&str, &str)]) -> String {
        from_variables(variables).unwrap_err().to_string()
    }

    #[test]
    fn nothing_set_is_the_default() {
        let resolved = from_variables(&[("PATH", "/bin"), ("HOME", "/")]).unwrap();
        assert_eq!(resolved.config, Config::default());
        assert!(resolved.notes.is_empty());
        assert!(
            OPTIONS
                .iter()
                .all(|spec| resolved.sources.of(spec) == Source::Default)
        );
    }

    #[test]
    fn a_flag_counts_before_a_variable_and_a_variable_before_the_file() {
        let file = TemporaryFile::new(
            "order",
            "TIDEMILL_BACKLOG=1\nTIDEMILL_ACCEPT_BUDGET=1\n\nTIDEMILL_REACTORS=1\n",
        );
        let resolved = resolved(
            &[("backlog", "3")],
            &[
                ("TIDEMILL_BACKLOG", "2"),
                ("TIDEMILL_ACCEPT_BUDGET", "2"),
                ("TIDEMILL_ENV_FILE", file.path()),
            ],
        )
        .unwrap();
        let config = &resolved.config;
        assert_eq!(
            (config.backlog, config.accept_budget, config.reactors),
            (3, 2, Some(1))
        );
        let source = |name| resolved.sources.of(named(name));
        assert_eq!(source("backlog"), Source::Flag);
        assert_eq!(source("accept-budget"), Source::Variable);
        assert_eq!(
            source("reactors"),
            Source::File {
                path: file.0.clone(),
                line: 4
            }
        );
        assert_eq!(source("listen"), Source::Default);
        assert_eq!(config.env_file.as_deref(), Some(file.0.as_path()));
    }

    #[test]
    fn an_empty_value_is_not_set_and_the_next_layer_counts() {
        let file = TemporaryFile::new("empty", "TIDEMILL_BACKLOG=7\nTIDEMILL_LOG=\n");
        let flags = [("backlog", "")];
        let variables = [
            ("TIDEMILL_BACKLOG", "  "),
            ("TIDEMILL_PING_INTERVAL", ""),
            ("TIDEMILL_ENV_FILE", file.path()),
        ];
        let resolved = resolved(&flags, &variables).unwrap();
        assert_eq!(resolved.config.backlog, 7);
        assert_eq!(resolved.config.ping_interval, Some(Duration::from_secs(25)));
        assert_eq!(resolved.config.log, "info");
    }

    #[test]
    fn an_empty_server_header_leaves_the_field_out() {
        let set = |text| {
            from_variables(&[("TIDEMILL_SERVER_HEADER", text)])
                .unwrap()
                .config
        };
        assert_eq!(set("").server_header, None);
        assert_eq!(set("off").server_header, None);
        assert_eq!(set("mill").server_header.as_deref(), Some("mill"));
        assert_eq!(Config::default().server_header.as_deref(), Some("tidemill"));
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_one_that_was_meant() {
        let problem = problem(&[("TIDEMILL_MAX_CONECTIONS", "5")]);
        assert!(
            problem.contains("TIDEMILL_MAX_CONECTIONS (environment)"),
            "{problem}"
        );
        assert!(
            problem.contains("did you mean TIDEMILL_MAX_CONNECTIONS?"),
            "{problem}"
        );
        assert!(from_variables(&[("TIDEMILL_", "")]).is_err());
        assert!(
            from_variables(&[("TIDEMILL_LISTEN_FILE", "")]).is_err(),
            "even when it is empty"
        );
    }

    #[test]
    fn the_service_links_of_kubernetes_are_passed_over() {
        let links = [
            ("TIDEMILL_PORT", "tcp://10.0.0.7:7000"),
            ("TIDEMILL_PORT_7000_TCP", "tcp://10.0.0.7:7000"),
            ("TIDEMILL_PORT_7000_TCP_ADDR", "10.0.0.7"),
            ("TIDEMILL_SERVICE_HOST", "10.0.0.7"),
            ("TIDEMILL_SERVICE_PORT", "7000"),
            ("TIDEMILL_SERVICE_PORT_HTTP", "7000"),
            ("TIDEMILL_EDGE_SERVICE_HOST", "10.0.0.8"),
            ("TIDEMILL_EDGE_PORT", "tcp://10.0.0.8:80"),
        ];
        let resolved = from_variables(&links).unwrap();
        assert_eq!(resolved.config, Config::default());
        assert!(resolved.notes.is_empty());
    }

    #[test]
    fn a_port_that_was_meant_for_us_is_noted() {
        let resolved = from_variables(&[("TIDEMILL_PORT", "8080")]).unwrap();
        assert_eq!(resolved.notes.len(), 1);
        assert!(
            resolved.notes[0].contains("127.0.0.1:8080"),
            "{}",
            resolved.notes[0]
        );
    }

    #[test]
    fn rust_log_counts_when_nothing_of_ours_is_set() {
        let log = |variables: &[_]| from_variables(variables).unwrap().config.log;
        assert_eq!(log(&[("RUST_LOG", "debug")]), "debug");
        assert_eq!(
            log(&[("RUST_LOG", "debug"), ("TIDEMILL_LOG", "warn")]),
            "warn"
        );
        assert_eq!(log(&[("RUST_LOG", "debug"), ("TIDEMILL_LOG", "")]), "debug");
        assert_eq!(log(&[("RUST_LOG", "")]), "info");
        let problem = problem(&[("RUST_LOG", "tidemill=loud")]);
        assert!(problem.starts_with("TIDEMILL_LOG=\"tidemill=loud\" (environment, RUST_LOG): "));
    }

    #[test]
    fn an_error_names_option_value_place_bounds_and_remedy() {
        let problem = problem(&[("TIDEMILL_PING_INTERVAL", "30")]);
        for part in [
            "TIDEMILL_PING_INTERVAL=\"30\"",
            "(environment)",
            "30s",
            "100ms to 24h",
        ] {
            assert!(problem.contains(part), "{part} in {problem}");
        }
        let file = TemporaryFile::new("error", "\nTIDEMILL_REACTORS=many\n");
        let flags = [("env-file", file.path())];
        let problem = resolved(&flags, &[]).unwrap_err().to_string();
        let place = format!(
            "TIDEMILL_REACTORS=\"many\" ({}:2): not a whole number",
            file.path()
        );
        assert!(problem.starts_with(&place), "{problem}");
    }

    #[test]
    fn a_file_is_read_only_where_it_is_one_of_ours() {
        let unknown = TemporaryFile::new("unknown", "\n\nTIDEMILL_LISTNE=127.0.0.1:1\n");
        let problem = problem(&[("TIDEMILL_ENV_FILE", unknown.path())]);
        assert!(
            problem.contains(&format!("({}:3)", unknown.path())),
            "{problem}"
        );

        let nested = TemporaryFile::new("nested", "TIDEMILL_ENV_FILE=/etc/other.env\n");
        assert!(from_variables(&[("TIDEMILL_ENV_FILE", nested.path())]).is_err());

        let missing = from_variables(&[("TIDEMILL_ENV_FILE", "/nowhere/tidemill.env")]);
        assert!(
            matches!(missing, Err(ConfigError::EnvFile { .. })),
            "{missing:?}"
        );

        let endless = from_variables(&[("TIDEMILL_ENV_FILE", "/dev/zero")]);
        assert!(
            matches!(endless, Err(ConfigError::EnvFile { .. })),
            "{endless:?}"
        );
    }

    #[test]
    #[cfg(unix)]
    fn a_value_that_is_not_utf8_is_refused_only_where_it_is_ours() {
        use std::os::unix::ffi::OsStringExt;
        let broken = || OsString::from_vec(b"in\xfffo".to_vec());
        let set = |name: &str| resolve(&BTreeMap::new(), [(OsString::from(name), broken())]);
        let problem = set("TIDEMILL_LOG").unwrap_err().to_string();
        assert!(problem.contains("UTF-8"), "{problem}");
        assert!(set("LS_COLORS").is_ok());
        for name in ["TIDEMILL_API_KEY", "TIDEMILL_API_KEY_FILE"] {
            let problem = set(name).unwrap_err().to_string();
            assert!(problem.contains("TIDEMILL_API_KEY") && problem.contains("UTF-8"));
            assert!(!problem.contains("fo"), "{problem}");
        }
    }

    #[test]
    fn contradictions_are_found_whoever_set_them() {
        let problem = problem(&[
            ("TIDEMILL_ACCEPT", "handoff"),
            ("TIDEMILL_FD_TABLES", "private"),
        ]);
        assert!(problem.contains("TIDEMILL_FD_TABLES=private"), "{problem}");
    }

    #[test]
    fn the_names_that_are_looked_up_exist() {
        assert_eq!(named("env-file").variable(), "TIDEMILL_ENV_FILE");
        assert_eq!(named("log").variable(), "TIDEMILL_LOG");
    }
}
