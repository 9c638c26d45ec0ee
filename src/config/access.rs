//! The options about who may come in: origins, tokens, the API's key and trusted proxies.

use std::time::Duration;

use super::group::Group;
use super::kind::{Hidden, Kind, Text};
use super::network::Network;
use super::origins::Origins;
use super::spec::{Preset, Spec};
use super::text;
use super::url;
use super::value;

pub(super) const ORIGINS: Spec = Spec {
    name: "origins",
    group: Group::Access,
    placeholder: "ORIGIN,...",
    preset: Preset::Decided("same-origin"),
    help: "Whose pages may connect; by default loopback origins too while only this machine can",
    reason: "browsers say which page asks; who sends no Origin is no browser",
    kind: Kind::Text(Text {
        allowed: ORIGINS_ALLOWED,
        read: |text, config| {
            config.origins = Some(Origins::parse(text)?);
            Ok(())
        },
        show: |config| show_origins(config.origins.as_ref()),
    }),
};

pub(super) const ORIGINS_ECHO: Spec = Spec {
    name: "origins-echo",
    group: Group::Access,
    placeholder: "ORIGIN,...",
    preset: Preset::Decided("as ORIGINS"),
    help: "Whose pages may connect to /echo, where that differs",
    reason: "",
    kind: Kind::Text(Text {
        allowed: ORIGINS_ALLOWED,
        read: |text, config| {
            config.origins_echo = Some(Origins::parse(text)?);
            Ok(())
        },
        show: |config| show_origins(config.origins_echo.as_ref()),
    }),
};

pub(super) const ORIGINS_RAW: Spec = Spec {
    name: "origins-raw",
    group: Group::Access,
    placeholder: "ORIGIN,...",
    preset: Preset::Decided("as ORIGINS"),
    help: "Whose pages may connect to /raw/{channel}, where that differs",
    reason: "",
    kind: Kind::Text(Text {
        allowed: ORIGINS_ALLOWED,
        read: |text, config| {
            config.origins_raw = Some(Origins::parse(text)?);
            Ok(())
        },
        show: |config| show_origins(config.origins_raw.as_ref()),
    }),
};

pub(super) const ORIGINS_NATIVE: Spec = Spec {
    name: "origins-native",
    group: Group::Access,
    placeholder: "ORIGIN,...",
    preset: Preset::Decided("as ORIGINS, any with tokens"),
    help: "Whose pages may connect to /connection/websocket, where that differs",
    reason: "a token, where one is required, comes in the client's message and never in a cookie",
    kind: Kind::Text(Text {
        allowed: ORIGINS_ALLOWED,
        read: |text, config| {
            config.origins_native = Some(Origins::parse(text)?);
            Ok(())
        },
        show: |config| show_origins(config.origins_native.as_ref()),
    }),
};

pub(super) const TOKEN_SECRET: Spec = Spec {
    name: "token-secret",
    group: Group::Access,
    placeholder: "SECRET",
    preset: Preset::Nothing,
    help: "Secrets that tokens are signed with (HS256, HS384, HS512), one a line",
    reason: "each verifies, so that secrets can be changed; shorter ones than 32 bytes are guessed",
    kind: Kind::Secret(Hidden {
        allowed: "at most 64KiB of secrets, or of a JWK Set of oct keys",
        field: |config| &mut config.token_secret,
        check: no_pem,
    }),
};

pub(super) const TOKEN_PUBLIC_KEY: Spec = Spec {
    name: "token-public-key",
    group: Group::Access,
    placeholder: "KEY",
    preset: Preset::Nothing,
    help: "Public keys of those who sign tokens (RS256, ES256, EdDSA)",
    reason: "each verifies, so that keys can be changed",
    kind: Kind::Secret(Hidden {
        allowed: "at most 64KiB of PUBLIC KEY blocks in PEM (RSA, P-256, Ed25519), or of a JWK Set",
        field: |config| &mut config.token_public_key,
        check: no_private_key,
    }),
};

pub(super) const TOKEN_JWKS_URL: Spec = Spec {
    name: "token-jwks-url",
    group: Group::Access,
    placeholder: "URL",
    preset: Preset::Nothing,
    help: "Where to fetch public keys of tokens, as a JWK Set",
    reason: "on the way, plain HTTP lets anyone put keys of their own",
    kind: Kind::Text(Text {
        allowed: "https://HOST/PATH, or http:// with a loopback host",
        read: |text, config| {
            config.token_jwks_url = Some(url::jwks(text)?);
            Ok(())
        },
        show: |config| config.token_jwks_url.clone().unwrap_or_default(),
    }),
};

pub(super) const TOKEN_JWKS_INTERVAL: Spec = Spec {
    name: "token-jwks-interval",
    group: Group::Access,
    placeholder: "TIME",
    preset: Preset::Value("300s"),
    help: "How often to fetch them anew",
    reason: "a key that was withdrawn verifies until then",
    kind: Kind::Time(
        Duration::from_secs(10)..=Duration::from_secs(24 * 3600),
        |config| &mut config.token_jwks_interval,
    ),
};

pub(super) const TOKEN_REQUIRED: Spec = Spec {
    name: "token-required",
    group: Group::Access,
    placeholder: "BOOL",
    preset: Preset::Decided("true with a token key"),
    help: "Refuse who brings no token; one that is brought must be valid either way",
    reason: "",
    kind: Kind::AutoBool(|config| &mut config.token_required),
};

pub(super) const TOKEN_COOKIE: Spec = Spec {
    name: "token-cookie",
    group: Group::Access,
    placeholder: "NAME",
    preset: Preset::Nothing,
    help: "A cookie that a token may come in, behind Authorization: Bearer and ?token=",
    reason: "RFC 6265, 4.1.1: a name is a token of HTTP",
    kind: Kind::Text(Text {
        allowed: "the name of a cookie, at most 256 bytes",
        read: |text, config| {
            config.token_cookie = Some(text::token(text, "a cookie")?);
            Ok(())
        },
        show: |config| config.token_cookie.clone().unwrap_or_default(),
    }),
};

pub(super) const TOKEN_LEEWAY: Spec = Spec {
    name: "token-leeway",
    group: Group::Access,
    placeholder: "TIME",
    preset: Preset::Value("5s"),
    help: "How far the clock of who issues tokens may be from this machine's",
    reason: "an expired token is good for so much longer",
    kind: Kind::Time(Duration::ZERO..=Duration::from_secs(600), |config| {
        &mut config.token_leeway
    }),
};

pub(super) const TOKEN_ISSUER: Spec = Spec {
    name: "token-issuer",
    group: Group::Access,
    placeholder: "NAME,...",
    preset: Preset::Nothing,
    help: "Issuers, one of which a token must name as iss",
    reason: "they are compared exactly",
    kind: Kind::Text(Text {
        allowed: NAMES_ALLOWED,
        read: |text, config| {
            config.token_issuer = value::list(text, NAMES_MAX, name)?;
            Ok(())
        },
        show: |config| value::show_list(&config.token_issuer),
    }),
};

pub(super) const TOKEN_AUDIENCE: Spec = Spec {
    name: "token-audience",
    group: Group::Access,
    placeholder: "NAME,...",
    preset: Preset::Nothing,
    help: "Audiences, one of which a token must name in aud",
    reason: "they are compared exactly",
    kind: Kind::Text(Text {
        allowed: NAMES_ALLOWED,
        read: |text, config| {
            config.token_audience = value::list(text, NAMES_MAX, name)?;
            Ok(())
        },
        show: |config| value::show_list(&config.token_audience),
    }),
};

pub(super) const API_KEY: Spec = Spec {
    name: "api-key",
    group: Group::Access,
    placeholder: "KEY",
    preset: Preset::Nothing,
    help: "What X-API-Key must be for /api; without it /api answers 403",
    reason: "it is the value of a header field",
    kind: Kind::Secret(Hidden {
        allowed: "at most 4KiB of visible ASCII characters",
        field: |config| &mut config.api_key,
        check: header_value,
    }),
};

pub(super) const TRUSTED_PROXIES: Spec = Spec {
    name: "trusted-proxies",
    group: Group::Access,
    placeholder: "NETWORK,...",
    preset: Preset::Value("off"),
    help: "Proxies that are believed whom they speak for: X-Forwarded-*, Forwarded, PROXY",
    reason: "whoever is believed may claim any address and any host",
    kind: Kind::Text(Text {
        allowed: "off, or up to 256 addresses and networks such as 127.0.0.1,10.0.0.0/8",
        read: |text, config| {
            config.trusted_proxies = value::list_or_off(text, NETWORKS_MAX, Network::parse)?;
            Ok(())
        },
        show: |config| value::show_list_or_off(&config.trusted_proxies),
    }),
};

pub(super) const PROXY_PROTOCOL: Spec = Spec {
    name: "proxy-protocol",
    group: Group::Access,
    placeholder: "BOOL",
    preset: Preset::Value("false"),
    help: "TRUSTED_PROXIES begin every connection with a PROXY header (v1 or v2), nobody else does",
    reason: "",
    kind: Kind::Bool(|config| &mut config.proxy_protocol),
};

fn show_origins(origins: Option<&Origins>) -> String {
    origins.map_or_else(String::new, Origins::to_string)
}

/// Reads one issuer or audience.
fn name(text: &str) -> Result<String, String> {
    if text.len() > NAME_BYTES_MAX {
        return Err(format!("a name is longer than {NAME_BYTES_MAX} bytes"));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(bad) => Err(format!("{bad:?} cannot stand in a name")),
        None => Ok(text.to_owned()),
    }
}

/// A public key is known to the world: whoever has it could sign with it as a secret.
fn no_pem(secret: &str) -> Result<(), String> {
    match secret.contains("-----BEGIN ") {
        true => Err("a key in PEM is no secret of HMAC, set TIDEMILL_TOKEN_PUBLIC_KEY".to_owned()),
        false => Ok(()),
    }
}

fn no_private_key(keys: &str) -> Result<(), String> {
    match keys.contains("PRIVATE KEY-----") {
        true => Err(
            "a private key, which only who issues tokens may have: give its public half \
                     (openssl pkey -pubout)"
                .to_owned(),
        ),
        false => Ok(()),
    }
}

fn header_value(key: &str) -> Result<(), String> {
    if key.len() > API_KEY_BYTES_MAX {
        return Err("longer than 4KiB".to_owned());
    }
    match key.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(
            "a space, line break or other character that is not visible ASCII, write one \
                      key"
            .to_owned(),
        ),
    }
}

const ORIGINS_ALLOWED: &str =
    "same-origin, *, null, and origins such as https://example.com or https://*.example.com:8443";

const NAMES_ALLOWED: &str = "up to 64 names of at most 256 bytes, without commas";
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 256;
const NETWORKS_MAX: usize = 256;
const API_KEY_BYTES_MAX: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::{SECRET_BYTES_MAX, Secret};
    use crate::config::{Config, OPTIONS, Source};

    #[test]
    fn a_secret_is_kept_and_never_shown() {
        let secrets = OPTIONS.iter().filter(|spec| spec.is_secret());
        let names: Vec<&str> = secrets.clone().map(|spec| spec.name).collect();
        assert_eq!(names, ["token-secret", "token-public-key", "api-key"]);
        for spec in secrets {
            let mut config = Config::default();
            assert_eq!(spec.read("hunter2\r\n", &mut config), Ok(()));
            let all = [
                &config.token_secret,
                &config.token_public_key,
                &config.api_key,
            ];
            let set: Vec<&str> = all.into_iter().flatten().map(Secret::expose).collect();
            assert_eq!(set, ["hunter2"], "{}", spec.name);
            assert_eq!(spec.describe(&config), "(set)");
            assert!(!format!("{config:?}").contains("hunter2"));
            let error = spec.error("hunter2", Source::Variable, "wrong".to_owned());
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
            for text in [
                "",
                " \r\n",
                "off",
                "None\n",
                &"a".repeat(SECRET_BYTES_MAX + 1),
            ] {
                assert!(spec.read(text, &mut config).is_err(), "{}", spec.name);
            }
        }
    }

    #[test]
    fn a_key_of_the_wrong_kind_is_refused_and_not_repeated() {
        let wrong = [
            (
                "token-secret",
                "-----BEGIN PUBLIC KEY-----\nhunter2\n-----END",
            ),
            ("token-public-key", "-----BEGIN PRIVATE KEY-----\nhunter2"),
            (
                "token-public-key",
                "-----BEGIN RSA PRIVATE KEY-----\nhunter2",
            ),
            ("api-key", "hunter2 hunter2"),
            ("api-key", "hunter2\nhunter2"),
            ("api-key", "hünter2"),
        ];
        for (name, text) in wrong {
            let problem = Spec::named(name)
                .unwrap()
                .read(text, &mut Config::default());
            let problem = problem.unwrap_err();
            assert!(!problem.contains("nter2"), "{problem}");
        }
    }
}
