//! The names of variables: which option one sets, and which names that begin like ours are none.

use std::ffi::OsStr;

use super::error::ConfigError;
use super::source::Source;
use super::spec::Spec;
use super::suggest;
use super::table::OPTIONS;

/// The option that a variable sets, be it by its value or by the path of a file. A name that no
/// option has is refused: a slip would otherwise leave a limit at its default.
pub(super) fn known(variable: &str, origin: Source) -> Result<&'static Spec, ConfigError> {
    if let Some(spec) = option(variable) {
        return Ok(spec);
    }
    let files = OPTIONS.iter().filter_map(Spec::file_variable);
    let names = OPTIONS.iter().map(Spec::variable).chain(files);
    let nearest = suggest::nearest(variable, "TIDEMILL_", names);
    let suggestion = nearest
        .map(|name| format!(" (did you mean {name}?)"))
        .unwrap_or_default();
    Err(ConfigError::UnknownVariable {
        variable: variable.to_owned(),
        origin,
        suggestion,
    })
}

/// The option with a variable of this name.
pub(super) fn option(variable: &str) -> Option<&'static Spec> {
    let has_name = |spec: &&Spec| {
        spec.variable() == variable || spec.file_variable().as_deref() == Some(variable)
    };
    OPTIONS.iter().find(has_name)
}

/// Kubernetes puts the address of each service into the environment of each container: a service
/// named `tidemill` or `tidemill-…` brings names that begin like ours.
pub(super) fn is_service_link(name: &str) -> bool {
    let has_form = name.ends_with("_PORT") || name.contains("_PORT_") || name.contains("_SERVICE_");
    has_form && option(name).is_none()
}

/// A service link named `TIDEMILL_PORT` holds a URL; a number there was meant for us.
pub(super) fn mistaken_port(name: &str, value: &OsStr) -> Option<String> {
    let port: u16 = value.to_str()?.trim().parse().ok()?;
    (name == "TIDEMILL_PORT").then(|| {
        format!(
            "TIDEMILL_PORT={port} is not an option and was passed over; the port is part of \
             TIDEMILL_LISTEN, such as 127.0.0.1:{port}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_has_the_form_of_a_service_link() {
        for spec in OPTIONS {
            for name in [Some(spec.variable()), spec.file_variable()]
                .into_iter()
                .flatten()
            {
                assert!(!is_service_link(&name), "{name}");
                assert!(known(&name, Source::Variable).is_ok(), "{name}");
                let slip = name.replacen("_", "_SERVICE_", 1);
                assert!(is_service_link(&slip), "{slip}");
            }
        }
    }

    #[test]
    fn a_slip_in_the_name_of_a_secret_s_file_is_refused_with_the_one_that_was_meant() {
        let problem = |name| known(name, Source::Variable).err().unwrap().to_string();
        let text = problem("TIDEMILL_TOKEN_SECRTE_FILE");
        assert!(
            text.contains("did you mean TIDEMILL_TOKEN_SECRET_FILE?"),
            "{text}"
        );
        let text = problem("TIDEMILL_LISTEN_FILE");
        assert!(text.contains("did you mean TIDEMILL_LISTEN?"), "{text}");
    }
}
