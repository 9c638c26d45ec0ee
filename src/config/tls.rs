//! The options about TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::group::Group;
use super::kind::{Kind, Text};
use super::settings::ClientAuth;
use super::spec::{Preset, Spec};
use super::table::ADDRESSES_MAX;
use super::value;

/// Certificates of one server.
const CERTIFICATES_MAX: usize = 64;

const CLIENT_AUTH_WORDS: &[(&str, ClientAuth)] = &[
    ("required", ClientAuth::Required),
    ("optional", ClientAuth::Optional),
];

pub(super) const LISTEN: Spec = Spec {
    name: "tls-listen",
    group: Group::Tls,
    placeholder: "ADDR,...",
    preset: Preset::Value("off"),
    help: "Addresses for wss:// and https://, beside LISTEN or with LISTEN=off instead of it",
    reason: "each costs every reactor a descriptor",
    kind: Kind::Text(Text {
        allowed: "off, or 1 to 16 addresses such as 0.0.0.0:7443",
        read: |text, config| {
            config.tls_listen = value::list_or_off(text, ADDRESSES_MAX, value::address)?;
            Ok(())
        },
        show: |config| value::show_list_or_off(&config.tls_listen),
    }),
};

pub(super) const CERT: Spec = Spec {
    name: "tls-cert",
    group: Group::Tls,
    placeholder: "FILE,...",
    preset: Preset::Nothing,
    help: "Certificate chains, the server's own first; the first file is for who asks for no name",
    reason: "PEM; several are chosen among by the name that the client asks for (SNI)",
    kind: Kind::Text(Text {
        allowed: "the paths of 1 to 64 readable files",
        read: |text, config| {
            config.tls_cert = value::list(text, CERTIFICATES_MAX, file)?;
            Ok(())
        },
        show: |config| show_files(&config.tls_cert),
    }),
};

pub(super) const KEY: Spec = Spec {
    name: "tls-key",
    group: Group::Tls,
    placeholder: "FILE,...",
    preset: Preset::Nothing,
    help: "The private key of each file in TLS_CERT, in the same order",
    reason: "PEM, not encrypted: PKCS#8, PKCS#1 or SEC1",
    kind: Kind::Text(Text {
        allowed: "the paths of as many readable files",
        read: |text, config| {
            config.tls_key = value::list(text, CERTIFICATES_MAX, file)?;
            Ok(())
        },
        show: |config| show_files(&config.tls_key),
    }),
};

pub(super) const SELF_SIGNED: Spec = Spec {
    name: "tls-self-signed",
    group: Group::Tls,
    placeholder: "BOOL",
    preset: Preset::Value("false"),
    help: "Make a certificate for localhost in memory, for development; no client trusts it",
    reason: "",
    kind: Kind::Bool(|config| &mut config.tls_self_signed),
};

pub(super) const CLIENT_CA: Spec = Spec {
    name: "tls-client-ca",
    group: Group::Tls,
    placeholder: "FILE",
    preset: Preset::Nothing,
    help: "Authorities, one of which must have signed a client's certificate",
    reason: "PEM",
    kind: Kind::Text(Text {
        allowed: "the path of a readable file",
        read: |text, config| {
            config.tls_client_ca = Some(text.into());
            Ok(())
        },
        show: |config| {
            config
                .tls_client_ca
                .as_deref()
                .map_or_else(String::new, show)
        },
    }),
};

pub(super) const CLIENT_AUTH: Spec = Spec {
    name: "tls-client-auth",
    group: Group::Tls,
    placeholder: "HOW",
    preset: Preset::Decided("required"),
    help: "With TLS_CLIENT_CA: whether a client may come without a certificate",
    reason: "",
    kind: Kind::Text(Text {
        allowed: "required or optional",
        read: |text, config| {
            config.tls_client_auth = Some(value::word(text, CLIENT_AUTH_WORDS)?);
            Ok(())
        },
        show: |config| {
            let shown = |auth| value::spelling(auth, CLIENT_AUTH_WORDS).to_owned();
            config.tls_client_auth.map_or_else(String::new, shown)
        },
    }),
};

pub(super) const RELOAD_INTERVAL: Spec = Spec {
    name: "tls-reload-interval",
    group: Group::Tls,
    placeholder: "TIME",
    preset: Preset::Value("30s"),
    help: "How often to look whether the files have changed; SIGHUP reads them at once",
    reason: "changed files are read anew, checked, and shown to whoever connects from then on",
    kind: Kind::TimeOrOff(
        Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
        |config| &mut config.tls_reload_interval,
    ),
};

#[expect(
    clippy::unnecessary_wraps,
    reason = "items of other lists can be wrong"
)]
fn file(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn show_files(files: &[PathBuf]) -> String {
    let files: Vec<String> = files.iter().map(|file| show(file)).collect();
    files.join(",")
}
