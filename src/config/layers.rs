//! All that may set a value, and which of it counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::env_file;
use super::error::ConfigError;
use super::settings::Config;
use super::source::Source;
use super::spec::Spec;

/// All that may set a value, nearest first.
pub(super) struct Layers<'a> {
    pub flags: &'a BTreeMap<&'static str, String>,
    pub variables: BTreeMap<String, String>,
    pub file: Option<(PathBuf, env_file::Lines)>,
}

impl Layers<'_> {
    /// Sets the field of `spec` to what counts for it; says where that was set.
    pub fn apply(&self, spec: &Spec, config: &mut Config) -> Result<Option<Source>, ConfigError> {
        if let Some(file_variable) = spec.file_variable() {
            return self.apply_secret(spec, &file_variable, config);
        }
        let Some((text, origin)) = self.find(spec) else {
            return Ok(None);
        };
        spec.read(text.trim(), config)
            .map_err(|problem| spec.error(&text, origin.clone(), problem))?;
        Ok(Some(origin))
    }

    fn apply_secret(
        &self,
        spec: &Spec,
        file_variable: &str,
        config: &mut Config,
    ) -> Result<Option<Source>, ConfigError> {
        for layer in [Self::in_environment, Self::in_file] {
            let set = |name: &str| layer(self, name).filter(|(text, _)| !text.trim().is_empty());
            match (set(&spec.variable()), set(file_variable)) {
                (None, None) => {}
                // Untrimmed: a space may be part of it.
                (Some((text, origin)), None) => {
                    return match spec.read(&text, config) {
                        Ok(()) => Ok(Some(origin)),
                        Err(problem) => Err(spec.error(&text, origin, problem)),
                    };
                }
                (None, Some((path, origin))) => {
                    let path = path.trim();
                    return match spec.read_file(Path::new(path), config) {
                        Ok(()) => Ok(Some(origin)),
                        Err(problem) => Err(ConfigError::File(format!(
                            "{file_variable}={:?} ({origin}): {problem}",
                            shown_path(path)
                        ))),
                    };
                }
                (Some((_, origin)), Some((_, file_origin))) => {
                    return Err(ConfigError::Conflict(format!(
                        "{} ({origin}) and {file_variable} ({file_origin}) exclude each other; \
                         unset one of them",
                        spec.variable()
                    )));
                }
            }
        }
        Ok(None)
    }

    /// The text that counts for `spec`, and where it was set.
    pub fn find(&self, spec: &Spec) -> Option<(String, Source)> {
        let set = |found: &(String, Source)| spec.takes_empty() || !found.0.trim().is_empty();
        let variable = spec.variable();
        let flag = self.flags.get(spec.name);
        flag.map(|text| (text.clone(), Source::Flag))
            .filter(set)
            .or_else(|| self.in_environment(&variable).filter(set))
            .or_else(|| self.in_file(&variable).filter(set))
            .or_else(|| {
                let (text, _) = self.in_environment("RUST_LOG").filter(set)?;
                (spec.name == "log").then_some((text, Source::RustLog))
            })
    }

    fn in_environment(&self, variable: &str) -> Option<(String, Source)> {
        let text = self.variables.get(variable)?;
        Some((text.clone(), Source::Variable))
    }

    fn in_file(&self, variable: &str) -> Option<(String, Source)> {
        let (path, lines) = self.file.as_ref()?;
        let (text, line) = lines.get(variable)?;
        let origin = Source::File {
            path: path.clone(),
            line: *line,
        };
        Some((text.clone(), origin))
    }
}

/// The path of a secret's file for an error, unless it may be the secret itself, put into the wrong
/// variable.
fn shown_path(path: &str) -> &str {
    let is_path = path.starts_with(['/', '.']) || Path::new(path).exists();
    match is_path {
        true => path,
        false => "(not shown)",
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::resolve::{Resolved, resolve};
    use crate::config::temporary::TemporaryFile;

    fn from_variables(variables: &[(&str, &str)]) -> Result<Resolved, ConfigError> {
        resolve(&BTreeMap::new(), variables.iter().copied())
    }

    fn problem(variables: &[(&str, &str)]) -> String {
        from_variables(variables).unwrap_err().to_string()
    }

    #[test]
    fn a_secret_comes_from_a_variable_or_a_file_in_the_environment_or_the_env_file() {
        let secret = TemporaryFile::new("secret", "\u{feff} hun ter2\r\n\n");
        let by_path = format!("TIDEMILL_TOKEN_SECRET_FILE={}\n", secret.path());
        let by_path = TemporaryFile::new("secret-path", &by_path);
        let by_text = TemporaryFile::new("secret-text", "\nTIDEMILL_TOKEN_SECRET=' hun ter2'\n");
        let line = |file: &TemporaryFile, line| Source::File {
            path: file.0.clone(),
            line,
        };
        let environment = Source::Variable;
        let cases = [
            (
                ("TIDEMILL_TOKEN_SECRET", " hun ter2\n"),
                false,
                environment.clone(),
            ),
            (
                ("TIDEMILL_TOKEN_SECRET_FILE", secret.path()),
                true,
                environment,
            ),
            (
                ("TIDEMILL_ENV_FILE", by_path.path()),
                true,
                line(&by_path, 1),
            ),
            (
                ("TIDEMILL_ENV_FILE", by_text.path()),
                false,
                line(&by_text, 2),
            ),
        ];
        for (variable, is_from_file, source) in cases {
            let resolved = from_variables(&[variable]).unwrap();
            let set = resolved.config.token_secret.as_ref().unwrap();
            assert_eq!(set.expose(), " hun ter2", "{variable:?}");
            assert_eq!(set.file(), is_from_file.then_some(secret.0.as_path()));
            assert_eq!(
                resolved.sources.of(Spec::named("token-secret").unwrap()),
                source
            );
            assert!(!format!("{resolved:?}").contains("hun ter2"));
        }
    }

    #[test]
    fn a_secret_in_the_environment_counts_before_one_in_the_env_file() {
        let secret = TemporaryFile::new("secret-low", "low");
        let lines = format!("TIDEMILL_API_KEY_FILE={}\n", secret.path());
        let file = TemporaryFile::new("secret-layers", &lines);
        let api_key = |variables: &[(&str, &str)]| {
            let config = from_variables(variables).unwrap().config;
            config.api_key.unwrap().expose().to_owned()
        };
        let env_file = ("TIDEMILL_ENV_FILE", file.path());
        assert_eq!(api_key(&[env_file, ("TIDEMILL_API_KEY", "high")]), "high");
        assert_eq!(api_key(&[env_file, ("TIDEMILL_API_KEY", " ")]), "low");
        assert_eq!(api_key(&[env_file, ("TIDEMILL_API_KEY_FILE", "")]), "low");
    }

    #[test]
    fn a_secret_in_both_ways_is_a_contradiction() {
        let secret = TemporaryFile::new("secret-both", "hunter2");
        let (text, path) = ("TIDEMILL_API_KEY", "TIDEMILL_API_KEY_FILE");
        let lines = format!("{text}=hunter2\n{path}={}\n", secret.path());
        let file = TemporaryFile::new("secret-both-lines", &lines);
        for problem in [
            problem(&[(text, "hunter2"), (path, secret.path())]),
            problem(&[("TIDEMILL_ENV_FILE", file.path())]),
        ] {
            assert!(problem.contains("TIDEMILL_API_KEY ("), "{problem}");
            assert!(problem.contains("TIDEMILL_API_KEY_FILE ("), "{problem}");
            assert!(problem.contains("unset one"), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        assert!(from_variables(&[(text, "hunter2"), (path, "")]).is_ok());
        assert!(from_variables(&[(text, ""), (path, secret.path())]).is_ok());
    }

    #[test]
    fn a_secret_s_file_that_is_none_is_named_with_its_variable() {
        let empty = TemporaryFile::new("secret-empty", "\r\n\n");
        let large = TemporaryFile::new("secret-large", &"hunter2\n".repeat(8193));
        let spaced = TemporaryFile::new("secret-spaced", "hunter2 hunter2\n");
        let binary = TemporaryFile::new("secret-binary", "");
        fs::write(&binary.0, b"hunter2\xff").unwrap();
        let cases = [
            (empty.path(), "the file is empty"),
            (large.path(), "larger than 64KiB"),
            (spaced.path(), "a space"),
            (binary.path(), "not UTF-8"),
            ("/dev/zero", "larger than 64KiB"),
            ("/nowhere/api-key", "cannot be read"),
            ("/", "cannot be read"),
        ];
        for (path, phrase) in cases {
            let problem = problem(&[("TIDEMILL_API_KEY_FILE", path)]);
            let start = format!("TIDEMILL_API_KEY_FILE={path:?} (environment): ");
            assert!(problem.starts_with(&start), "{problem}");
            assert!(problem.contains(phrase), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        let largest = TemporaryFile::new("secret-largest", &"a".repeat(64 << 10));
        assert!(from_variables(&[("TIDEMILL_TOKEN_SECRET_FILE", largest.path())]).is_ok());
    }

    #[test]
    fn a_secret_in_the_place_of_a_path_is_not_repeated() {
        let problem = problem(&[("TIDEMILL_API_KEY_FILE", "hunter2")]);
        assert!(!problem.contains("hunter2"), "{problem}");
        assert!(
            problem.contains("TIDEMILL_API_KEY_FILE=\"(not shown)\""),
            "{problem}"
        );
    }
}
