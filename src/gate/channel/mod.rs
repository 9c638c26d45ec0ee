//! Who may do what with a channel: the one place that answers, for every dialect and the API.
//!
//! A permission belongs to the channel, not to the way by which somebody asks. The answer comes
//! from three things: the channel's name, its [`Namespace`], and what the [`Asker`] has proved.
//! What keeps peers out, in the order in which it is looked at:
//!
//! 1. **The namespace** must exist, and keep what is asked for. `/raw` and PieSocket, whose peers
//!    see bare frames without knowing whose they are, reach only namespaces with `raw`.
//! 2. **The name.** `private-`, `presence-` and `$` in front of it ask for a proof made for this
//!    very channel: a subscription token, a signature, a channel's JWT. So does every name in a
//!    `protected` namespace. A `#` lists the users that are let in. Nothing that is granted below
//!    opens these, neither for subscribing nor for anything else; being subscribed is proof, too.
//! 3. **The grants** of the namespace: `allow_subscribe_for_client` and the like. A proof replaces
//!    them for subscribing, and only for that.
//!
//! A name with a `*` is a pattern: `news.*` stands for all channels that begin with `news.`, and
//! `news:a.*` for those of a namespace. It can be subscribed to, by who may subscribe to those,
//! where the namespace has `allow_wildcards`; nothing else can be done with it. Names that ask for
//! a proof or list users are none of those that it stands for.
//!
//! What a proof is, and whether it is genuine, is the dialect's to find out; it never passes on
//! what it has not verified. How long a name may be is the hub's to say.

mod namespace;
#[cfg(test)]
mod table;

pub use namespace::{Circle, Exposure, Namespace, Namespaces};
use thiserror::Error;

pub use crate::config::{DEMO, SlowPolicy};

/// By which way somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `/raw/{channel}`: it knows no proof for a channel, only the connection's token.
    Raw,
    Native,
    Pusher,
    PieSocket,
    /// A server's request that was found to carry the API key, or an app's secret or signature.
    Api,
    /// The program that the server is a part of, which is not asked for anything.
    Handler,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Subscribe,
    Publish,
    /// To be told who is subscribed.
    Presence,
    /// To be told earlier publications, at will. What a subscriber missed while it was away comes
    /// with subscribing.
    History,
}

/// Who asks, and what is proved of them.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub via: Via,
    /// The user, as the connection's token or a signed sign-in says. An empty one is anonymous.
    pub user: Option<&'a str>,
    /// The peer showed what was made for this very channel, and it is genuine and in force.
    pub is_proven: bool,
    /// The connection is subscribed to the channel.
    pub is_subscribed: bool,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    #[error("a channel's name is not empty and has no control characters")]
    Name,
    #[error("there is no such namespace")]
    UnknownNamespace,
    #[error("a pattern such as news.* can be subscribed to, where wildcards are allowed")]
    Pattern,
    #[error("presence or history is not kept in this namespace")]
    NotKept,
    #[error("the namespace is not raw")]
    NotRaw,
    #[error("the channel needs a token of its own")]
    Unproven,
    #[error("the channel is for other users")]
    NotListed,
    #[error("not allowed in this namespace")]
    NotAllowed,
    #[error("not allowed in this namespace without a user id")]
    Anonymous,
}

impl Namespaces {
    /// Whether it is kept who is subscribed to this channel.
    pub fn keeps_presence(&self, channel: &str) -> bool {
        let namespace = self.of(channel);
        namespace.is_some_and(|namespace| namespace.presence || Kind::of(channel) == Kind::Presence)
    }

    /// Whether the asker may do this with the channel.
    pub fn permit(&self, asker: &Asker<'_>, action: Action, channel: &str) -> Result<(), Denied> {
        // Names with control characters are left for channels of our own.
        if channel.is_empty() || channel.contains(char::is_control) {
            return Err(Denied::Name);
        }
        if asker.via == Via::Handler {
            return Ok(());
        }
        let namespace = self.of(channel).ok_or(Denied::UnknownNamespace)?;
        let kind = Kind::of(channel);
        if let Some(star) = channel.find('*') {
            let is_allowed = namespace.allow_wildcards && action == Action::Subscribe;
            if !is_allowed || kind != Kind::Plain || !is_pattern(channel, star) {
                return Err(Denied::Pattern);
            }
        }
        let is_kept = match action {
            Action::Subscribe | Action::Publish => true,
            Action::Presence => self.keeps_presence(channel),
            Action::History => namespace.keeps_history(),
        };
        if !is_kept {
            return Err(Denied::NotKept);
        }
        match asker.via {
            Via::Api | Via::Handler => return Ok(()),
            Via::Raw | Via::PieSocket if !namespace.raw => return Err(Denied::NotRaw),
            Via::Raw | Via::Native | Via::Pusher | Via::PieSocket => {}
        }
        asker.pass_name(action, channel, kind, namespace)?;
        asker.pass_grants(action, kind, namespace)
    }
}

impl Asker<'_> {
    /// Whether the name lets the asker through.
    fn pass_name(
        &self,
        action: Action,
        channel: &str,
        kind: Kind,
        namespace: &Namespace,
    ) -> Result<(), Denied> {
        let is_inside = match action {
            Action::Subscribe => self.has_proof(),
            Action::Publish | Action::Presence | Action::History => {
                self.has_proof() || self.is_subscribed
            }
        };
        match kind {
            Kind::OneUser => {
                // It carries what the app's server has to say to one user, and nothing else.
                let is_own = self.via == Via::Pusher && self.is_user(&channel[ONE_USER.len()..]);
                match action {
                    Action::Subscribe if is_own => Ok(()),
                    Action::Subscribe => Err(Denied::NotListed),
                    Action::Publish | Action::Presence | Action::History => Err(Denied::NotAllowed),
                }
            }
            // Its subscribers expect ciphertext, which only the app's server makes.
            Kind::Encrypted if action == Action::Publish => Err(Denied::NotAllowed),
            _ if is_inside => Ok(()),
            Kind::Private | Kind::Presence | Kind::Encrypted | Kind::Dollar => {
                Err(Denied::Unproven)
            }
            Kind::Listed | Kind::Plain if namespace.protected => Err(Denied::Unproven),
            Kind::Listed if !namespace.allow_user_limited_channels => Err(Denied::Unproven),
            Kind::Listed if !self.is_listed(channel) => Err(Denied::NotListed),
            Kind::Listed | Kind::Plain => Ok(()),
        }
    }

    /// Whether the namespace, or what stands in for its grants, lets the asker through.
    fn pass_grants(&self, action: Action, kind: Kind, namespace: &Namespace) -> Result<(), Denied> {
        match (action, kind) {
            // The list has let the asker in.
            (Action::Subscribe, Kind::Listed | Kind::OneUser) => return Ok(()),
            (Action::Subscribe, _) if self.has_proof() => return Ok(()),
            // Members of such a channel are told of each other; that is what it is for.
            (Action::Presence, Kind::Presence) => return Ok(()),
            // A client event. Its name tells subscribers that it is not the server's; who
            // publishes in other ways needs a grant for that.
            (Action::Publish, Kind::Private | Kind::Presence)
                if self.via == Via::Pusher && self.is_subscribed =>
            {
                return Ok(());
            }
            (Action::Publish, _) if self.via == Via::Pusher => return Err(Denied::NotAllowed),
            _ => {}
        }
        let grants = namespace.grants(action);
        if !(grants.for_client || grants.for_subscriber && self.is_subscribed) {
            return Err(Denied::NotAllowed);
        }
        if !grants.for_anonymous && !self.is_known() {
            return Err(Denied::Anonymous);
        }
        Ok(())
    }

    fn has_proof(&self) -> bool {
        self.is_proven && self.via != Via::Raw
    }

    /// Whether somebody vouched for the peer. PieSocket's JWT is made for a channel, for a peer
    /// that may well have no name.
    fn is_known(&self) -> bool {
        self.user.is_some_and(|user| !user.is_empty())
            || (self.via == Via::PieSocket && self.is_proven)
    }

    fn is_user(&self, user: &str) -> bool {
        !user.is_empty() && self.user == Some(user)
    }

    /// Whether the asker is among the users behind the last `#`, separated by commas.
    fn is_listed(&self, channel: &str) -> bool {
        let list = channel.rsplit('#').next().unwrap_or_default();
        list.split(',').any(|user| self.is_user(user))
    }
}

/// What a channel's name says of it. Where it says several things, the one that lets fewer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// `private-`, `private-cache-`.
    Private,
    /// `private-encrypted-`, `private-encrypted-cache-`.
    Encrypted,
    /// `presence-`, `presence-cache-`.
    Presence,
    /// `$`.
    Dollar,
    /// `…#user` or `…#user,user`.
    Listed,
    /// `#server-to-user-{id}`: what a Pusher app's server says to one user.
    OneUser,
}

impl Kind {
    fn of(channel: &str) -> Self {
        let prefixes = [
            (ONE_USER, Self::OneUser),
            ("private-encrypted-", Self::Encrypted),
            ("private-", Self::Private),
            ("presence-", Self::Presence),
            ("$", Self::Dollar),
        ];
        let mut prefixes = prefixes.into_iter();
        match prefixes.find(|(prefix, _)| channel.starts_with(prefix)) {
            Some((_, kind)) => kind,
            None if channel.contains('#') => Self::Listed,
            None => Self::Plain,
        }
    }
}

/// Whether the `*` at `star`, the first one, stands where a pattern has it.
fn is_pattern(channel: &str, star: usize) -> bool {
    star + 1 == channel.len() && channel[..star].ends_with(['.', ':'])
}

const ONE_USER: &str = "#server-to-user-";
