//! What contradicts itself, and what is allowed and seldom meant, among the options about who may
//! come in and how much one peer may take.

use super::error::ConfigError;
use super::origins::Origins;
use super::rates::RatePolicy;
use super::secret::Secret;
use super::settings::Config;

impl Config {
    /// Whether there is anything to verify a token by: a secret, a public key, or an address to
    /// fetch keys from.
    pub fn has_token_keys(&self) -> bool {
        self.token_secret.is_some()
            || self.token_public_key.is_some()
            || self.token_jwks_url.is_some()
    }

    /// Whether an upgrade without a token is refused.
    pub fn token_is_required(&self) -> bool {
        self.token_required.unwrap_or(self.has_token_keys())
    }

    /// Whose pages may connect to the native dialect, where that differs from the other dialects.
    pub fn origins_native_in_effect(&self) -> Option<Origins> {
        // Its token comes in a message of the client, which no browser sends by itself.
        let is_any = self.origins_native.is_none() && self.token_is_required();
        match is_any {
            true => Some(Origins::any()),
            false => self.origins_native.clone(),
        }
    }

    /// Options that do nothing, or lock everyone out, without another one.
    pub(super) fn check_access(&self) -> Result<(), ConfigError> {
        let about_tokens = [
            (
                "TIDEMILL_TOKEN_REQUIRED=true",
                self.token_required == Some(true),
            ),
            ("TIDEMILL_TOKEN_COOKIE", self.token_cookie.is_some()),
            ("TIDEMILL_TOKEN_ISSUER", !self.token_issuer.is_empty()),
            ("TIDEMILL_TOKEN_AUDIENCE", !self.token_audience.is_empty()),
        ];
        let set = about_tokens.iter().find(|(_, is_set)| *is_set);
        let has_rate = self.rate_messages > 0 || self.rate_bytes > 0;
        let problem = if let Some((variable, _)) = set.filter(|_| !self.has_token_keys()) {
            format!(
                "{variable} needs a key to verify tokens by; set TIDEMILL_TOKEN_SECRET, \
                 TIDEMILL_TOKEN_PUBLIC_KEY or TIDEMILL_TOKEN_JWKS_URL, or unset the first"
            )
        } else if self.proxy_protocol && self.trusted_proxies.is_empty() {
            "TIDEMILL_PROXY_PROTOCOL believes no peer without TIDEMILL_TRUSTED_PROXIES; name the \
             addresses of the proxies there"
                .to_owned()
        } else if self.rate_policy == RatePolicy::Close && !has_rate {
            "TIDEMILL_RATE_POLICY=close closes nobody without a rate; set TIDEMILL_RATE_MESSAGES \
             or TIDEMILL_RATE_BYTES, or unset the first"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(ConfigError::Conflict(problem))
    }

    pub(super) fn access_warnings(&self) -> Vec<String> {
        let mut warnings = self.origin_warnings();
        if let Some(secret) = &self.token_secret
            && has_short_line(secret)
        {
            warnings.push(
                "TIDEMILL_TOKEN_SECRET has a secret of less than 32 bytes, which can be found from \
                 one token by trying (RFC 7518, 3.2); make one with openssl rand -base64 48"
                    .to_owned(),
            );
        }
        let secrets = [
            ("TIDEMILL_TOKEN_SECRET", &self.token_secret),
            ("TIDEMILL_API_KEY", &self.api_key),
        ];
        for (variable, secret) in secrets {
            if secret.as_ref().is_some_and(looks_like_path) {
                warnings.push(format!(
                    "{variable} looks like the path of a file and was taken as the secret itself; \
                     for a file set {variable}_FILE"
                ));
            }
        }
        let everything = self
            .trusted_proxies
            .iter()
            .find(|each| each.is_everything());
        if let Some(everything) = everything {
            warnings.push(format!(
                "TIDEMILL_TRUSTED_PROXIES has {everything}: whoever connects may claim any address \
                 and any host; name the proxies alone"
            ));
        }
        warnings
    }

    fn origin_warnings(&self) -> Vec<String> {
        let lists = [
            ("TIDEMILL_ORIGINS", &self.origins),
            ("TIDEMILL_ORIGINS_ECHO", &self.origins_echo),
            ("TIDEMILL_ORIGINS_RAW", &self.origins_raw),
            ("TIDEMILL_ORIGINS_NATIVE", &self.origins_native),
        ];
        let as_whom = match &self.token_cookie {
            Some(_) => " as its visitor, whose browser sends the cookie of TIDEMILL_TOKEN_COOKIE",
            None => " from the browsers of its visitors",
        };
        let mut warnings = Vec::new();
        for (variable, origins) in lists {
            let Some(origins) = origins else {
                continue;
            };
            if origins.is_any() {
                warnings.push(format!(
                    "{variable} has *: any page can connect{as_whom}; name the origins that may"
                ));
            } else if origins.has_null() {
                warnings.push(format!(
                    "{variable} has null, which a frame in any page can be made to send, so any \
                     page can connect{as_whom}; name the origins that may"
                ));
            }
        }
        warnings
    }
}

/// Whether one of the secrets is shorter than the shortest hash. In a JWK Set they are encoded, and
/// judged by who reads it.
fn has_short_line(secret: &Secret) -> bool {
    let text = secret.expose();
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    !text.trim_start().starts_with('{') && lines.any(|line| line.len() < HMAC_SECRET_BYTES_LEAST)
}

/// A secret in base64 may begin with a slash too; it is rarely without any of the other signs.
fn looks_like_path(secret: &Secret) -> bool {
    let text = secret.expose();
    let names = text.strip_prefix('/').map(|rest| rest.contains('/'));
    secret.file().is_none() && names == Some(true) && !text.contains(['+', '=', '\n'])
}

const HMAC_SECRET_BYTES_LEAST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;

    fn secret(text: &str) -> Option<Secret> {
        Some(Secret::new(text))
    }

    fn conflict(config: &Config) -> String {
        match config.validate() {
            Err(ConfigError::Conflict(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_is_required_where_there_is_a_key_unless_it_is_said_otherwise() {
        let keys = [
            Config {
                token_secret: secret("a"),
                ..Config::default()
            },
            Config {
                token_public_key: secret("a"),
                ..Config::default()
            },
            Config {
                token_jwks_url: Some("https://issuer.example/keys".to_owned()),
                ..Config::default()
            },
        ];
        for config in keys {
            assert!(config.has_token_keys() && config.token_is_required());
            let open = Config {
                token_required: Some(false),
                ..config
            };
            assert!(!open.token_is_required());
            assert_eq!(open.validate(), Ok(()));
        }
        let none = Config::default();
        assert!(!none.has_token_keys() && !none.token_is_required());
    }

    #[test]
    fn what_is_said_about_tokens_needs_a_key() {
        let configs = [
            Config {
                token_required: Some(true),
                ..Config::default()
            },
            Config {
                token_cookie: Some("session".to_owned()),
                ..Config::default()
            },
            Config {
                token_issuer: vec!["me".to_owned()],
                ..Config::default()
            },
            Config {
                token_audience: vec!["you".to_owned()],
                ..Config::default()
            },
        ];
        let variables = ["REQUIRED=true", "COOKIE", "ISSUER", "AUDIENCE"];
        for (config, variable) in configs.into_iter().zip(variables) {
            let text = conflict(&config);
            let start = format!("TIDEMILL_TOKEN_{variable} needs a key");
            assert!(text.starts_with(&start), "{text}");
            assert!(text.contains("set TIDEMILL_TOKEN_SECRET"), "{text}");
            let keyed = Config {
                token_secret: secret("a"),
                ..config
            };
            assert_eq!(keyed.validate(), Ok(()));
        }
    }

    #[test]
    fn proxies_and_policies_need_what_they_are_about() {
        let proxies = Config {
            proxy_protocol: true,
            ..Config::default()
        };
        assert!(conflict(&proxies).contains("TIDEMILL_TRUSTED_PROXIES"));
        let named = Config {
            trusted_proxies: vec![Network::parse("127.0.0.1").unwrap()],
            ..proxies
        };
        assert_eq!(named.validate(), Ok(()));

        let policy = Config {
            rate_policy: RatePolicy::Close,
            ..Config::default()
        };
        assert!(conflict(&policy).contains("set TIDEMILL_RATE_MESSAGES"));
        let by_messages = Config {
            rate_messages: 1,
            ..policy.clone()
        };
        let by_bytes = Config {
            rate_bytes: 1,
            ..policy
        };
        assert_eq!(by_messages.validate(), Ok(()));
        assert_eq!(by_bytes.validate(), Ok(()));
    }

    #[test]
    fn origins_that_are_anybody_s_are_warned_about_the_more_so_with_a_cookie() {
        let with = |origins: &str, echo: &str| Config {
            origins: Some(Origins::parse(origins).unwrap()),
            origins_echo: Some(Origins::parse(echo).unwrap()),
            ..Config::default()
        };
        let closed = with("same-origin", "https://example.com");
        assert_eq!(closed.warnings(), [""; 0]);
        let any = with("same-origin,*", "same-origin").warnings();
        assert_eq!(any.len(), 1);
        assert!(any[0].starts_with("TIDEMILL_ORIGINS has *: "), "{any:?}");
        assert!(!any[0].contains("COOKIE"), "{any:?}");
        let echo = with("same-origin", "null").warnings();
        assert_eq!(echo.len(), 1);
        assert!(echo[0].starts_with("TIDEMILL_ORIGINS_ECHO has null"));
        let cookie = Config {
            token_cookie: Some("session".to_owned()),
            token_public_key: secret("a"),
            ..with("*", "same-origin")
        };
        assert!(cookie.warnings()[0].contains("the cookie of TIDEMILL_TOKEN_COOKIE"));
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_warned_about_and_not_repeated() {
        let short = |text: &str| {
            let config = Config {
                token_secret: secret(text),
                ..Config::default()
            };
            let warnings = config.warnings();
            assert!(warnings.iter().all(|line| !line.contains("hunter2")));
            warnings.iter().any(|line| line.contains("RFC 7518"))
        };
        let (least, less) = ("a".repeat(32), "a".repeat(31));
        assert!(short("hunter2"));
        assert!(short(&less));
        assert!(!short(&least));
        assert!(!short(&format!("{least}\r\n\r\n{least}\n")));
        assert!(short(&format!("{least}\n{less}")));
        assert!(!short("{\"keys\":[\n]}"));
    }

    #[test]
    fn a_path_in_the_place_of_a_secret_is_warned_about() {
        let is_noticed = |text: &str| {
            let config = Config {
                api_key: secret(text),
                ..Config::default()
            };
            let warnings = config.warnings();
            warnings
                .iter()
                .any(|line| line.contains("set TIDEMILL_API_KEY_FILE"))
        };
        assert!(is_noticed("/run/secrets/api-key"));
        for text in ["hunter2", "/hunter2", "/run/hunter2==", "//+8a/hunter2"] {
            assert!(!is_noticed(text), "{text}");
        }
    }

    #[test]
    fn trusting_everybody_is_warned_about() {
        let warnings = |network: &str| {
            let config = Config {
                trusted_proxies: vec![Network::parse(network).unwrap()],
                ..Config::default()
            };
            config.warnings()
        };
        assert!(warnings("0.0.0.0/0")[0].contains("has 0.0.0.0/0: "));
        assert!(warnings("::/0")[0].contains("has ::/0: "));
        assert_eq!(warnings("10.0.0.0/8"), [""; 0]);
    }
}
