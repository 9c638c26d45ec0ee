//! Which servers a benchmark starts: the options that all of them have in common.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::servers::{FLOOR, Kind, Variables};

/// The options.
#[derive(Args)]
pub struct Selection {
    /// Servers to run, by the names in the report, those of --extra among them; an unknown name is
    /// answered with all there are.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    #[command(flatten)]
    tidemills: Tidemills,
    /// Another server, which echoes at /echo, with {port} where its port belongs, and over TLS
    /// {cert} and {key} where the paths of those files do.
    #[arg(long, value_name = "NAME=COMMAND")]
    extra: Vec<String>,
}

/// Which tidemill, and which other one.
#[derive(Args)]
pub struct Tidemills {
    /// The tidemill to measure [default: the release build of this tree].
    #[arg(long, value_name = "PATH")]
    tidemill: Option<PathBuf>,
    /// An earlier tidemill to compare it with.
    #[arg(long, value_name = "PATH")]
    tidemill_before: Option<PathBuf>,
}

impl Tidemills {
    /// The tidemill to measure, by that name.
    ///
    /// # Errors
    /// It is not there.
    pub fn now(&self, name: &str, variables: Variables) -> Result<Kind, String> {
        let path = self.tidemill.clone().unwrap_or_else(release_build);
        Kind::tidemill(name, &from_here(&path), variables)
    }

    /// The earlier one, if one is given.
    ///
    /// # Errors
    /// It is not there.
    pub fn before(&self, name: &str, variables: Variables) -> Result<Option<Kind>, String> {
        let path = self.tidemill_before.as_deref().map(from_here);
        path.map(|path| Kind::tidemill(name, &path, variables))
            .transpose()
    }
}

/// The servers of this package, which only a benchmark knows the paths of.
pub struct Binaries {
    pub floor: &'static str,
    pub tokio_tungstenite: &'static str,
    pub fastwebsockets: &'static str,
}

impl Selection {
    /// The servers to run, in the order of a report; without `--servers` those of `default` and
    /// all that were given a path or a command. A tidemill gets `variables`.
    ///
    /// # Errors
    /// An unknown name, a binary that is not there, a command without a port.
    pub fn kinds(
        &self,
        binaries: &Binaries,
        default: &[&str],
        variables: Variables,
    ) -> Result<Vec<Kind>, String> {
        let peers = vec![
            Kind::peer(FLOOR, binaries.floor),
            Kind::peer("tokio-tungstenite", binaries.tokio_tungstenite),
            Kind::peer("fastwebsockets", binaries.fastwebsockets),
        ];
        self.among(peers, default, variables)
    }

    /// The same with other peers, of which the floor is the first.
    ///
    /// # Errors
    /// Those of [`Self::kinds`].
    pub fn among(
        &self,
        peers: Vec<Kind>,
        default: &[&str],
        variables: Variables,
    ) -> Result<Vec<Kind>, String> {
        let known: Vec<_> = peers.iter().map(|kind| kind.name.clone()).collect();
        let wanted = |name: &str, given| self.wants(name, given || default.contains(&name));
        let mut kinds = peers;
        kinds.retain(|kind| wanted(&kind.name, false));
        let mut extras = Vec::new();
        if wanted("tidemill", self.tidemills.tidemill.is_some()) {
            extras.push(self.tidemill("tidemill", variables)?);
        }
        if wanted("tidemill-before", true) {
            extras.extend(self.tidemills.before("tidemill-before", variables)?);
        }
        for definition in &self.extra {
            let kind = Kind::extra(definition)?;
            if wanted(&kind.name, true) {
                extras.push(kind);
            }
        }
        let after_floor = kinds.iter().take_while(|kind| kind.name == FLOOR).count();
        kinds.splice(after_floor..after_floor, extras);
        match self
            .servers
            .iter()
            .find(|name| kinds.iter().all(|kind| kind.name != **name))
        {
            Some(unknown) => Err(format!(
                "no server {unknown}, there is {}, tidemill, and what --tidemill-before and \
                 --extra name",
                known.join(", ")
            )),
            None => Ok(kinds),
        }
    }

    /// Whether a server runs, `by_default` where none are named.
    pub fn wants(&self, name: &str, by_default: bool) -> bool {
        match &self.servers[..] {
            [] => by_default,
            servers => servers.iter().any(|server| server == name),
        }
    }

    /// The tidemill to measure, by another name if need be.
    ///
    /// # Errors
    /// It is not there.
    pub fn tidemill(&self, name: &str, variables: Variables) -> Result<Kind, String> {
        self.tidemills.now(name, variables)
    }
}

/// Where `cargo build --release` puts the server, as far as the environment tells.
fn release_build() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target).join("release/tidemill"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/tidemill"),
    }
}

/// Cargo runs a benchmark in the directory of its package. A path is meant from where the user
/// is, which the shell's variable still tells.
fn from_here(path: &Path) -> PathBuf {
    match std::env::var_os("PWD") {
        Some(here) => Path::new(&here).join(path),
        None => path.into(),
    }
}
