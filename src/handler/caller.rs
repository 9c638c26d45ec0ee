//! [`Caller`]: a plain request for the time of one call, and what comes back of what it asked.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use super::{
    Channel, Command, ConnId, Kind, Namespaces, Options, Payload, Publication, Publish,
    PublishError, Question, Reply, Response, options_of, user_channel,
};
use crate::{
    connection::Visitors,
    hub::{Address, Share},
    metrics::SERVER,
};

/// What becomes of a plain request.
#[derive(Debug)]
pub enum Answer {
    Now(Response),
    /// The response follows by [`Handler::answered`](super::Handler::answered). The connection is
    /// not read meanwhile.
    Later,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Now(response)
    }
}

/// What a waiting request hears.
#[derive(Debug)]
pub enum Heard {
    /// The home of a channel has answered.
    Reply(Reply),
    /// One reactor has answered [`Caller::residents`].
    Residents { tag: u32, residents: Vec<Resident> },
}

/// A connection, as a server may see it.
#[derive(Clone, Debug)]
pub struct Resident {
    pub id: ConnId,
    pub user: Option<Box<str>>,
    pub remote: Option<SocketAddr>,
    pub dialect: &'static str,
    /// In seconds since 1970.
    pub connected_at: i64,
    /// When something came from it last, in seconds since 1970.
    pub last_seen: i64,
    pub channels: Vec<Channel>,
}

/// What connections are sent directly.
#[derive(Clone, Debug)]
pub enum What {
    Payload(Payload),
    Command(Command),
}

/// What a call asks of other reactors that is not about a channel.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Tell(ConnId, Arc<Publication>),
    Everyone(Arc<Publication>),
    Count(Arc<Census>),
}

/// A question about the connections of each reactor.
#[derive(Debug)]
pub(crate) struct Census {
    pub asker: ConnId,
    pub tag: u32,
    /// The reserved channel of the user whose connections are asked for; `None`: all.
    pub user: Option<String>,
    pub limit: usize,
}

/// A plain HTTP request, for the time of one call. It may ask homes of channels as a connection
/// does; the answers come to [`Handler::answered`](super::Handler::answered).
#[derive(Debug)]
pub struct Caller<'a> {
    pub(crate) id: ConnId,
    pub(crate) hub: &'a mut Share<ConnId>,
    pub(crate) visitors: &'a Visitors,
    pub(crate) orders: &'a mut Vec<Order>,
}

impl Caller<'_> {
    /// The connection that the request came on.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// How many reactors there are.
    pub fn reactors(&self) -> u16 {
        self.hub.gauges().reactors()
    }

    pub fn namespaces(&self) -> &Namespaces {
        &self.visitors.gate().namespaces
    }

    /// What the namespace of a channel says; nothing is kept where there is no such namespace.
    pub fn options(&self, channel: &str) -> Options {
        options_of(self.namespaces(), channel)
    }

    /// Publishes; the home's answer comes to this request.
    ///
    /// # Errors
    /// As [`Peer::publish`](super::Peer::publish).
    pub fn publish(&mut self, publish: Publish<'_>) -> Result<(), PublishError> {
        self.hub.publish(Publish {
            asker: Some(self.id),
            dialect: SERVER as u8,
            ..publish
        })
    }

    /// Asks the home of a channel; how many answers will come.
    pub fn ask(&mut self, tag: u32, channel: &str, question: Question) -> u16 {
        self.hub.ask(self.id, tag, channel, question)
    }

    /// Sends something to all connections of a user. Nobody answers.
    ///
    /// # Errors
    /// `Busy` when too much waits already.
    pub fn tell_user(&mut self, user: &str, what: What) -> Result<(), PublishError> {
        let channel = user_channel(user);
        match what {
            What::Payload(payload) => {
                let publish = Publish::new(&channel, Options::default(), payload);
                self.hub.publish(Publish {
                    dialect: SERVER as u8,
                    ..publish
                })
            }
            What::Command(command) => self.hub.command(&channel, Arc::new(command)),
        }
    }

    /// Sends something to one connection. Nobody answers; one that is gone hears nothing.
    ///
    /// # Errors
    /// `Busy` when too much waits already.
    pub fn tell_client(&mut self, id: ConnId, what: What) -> Result<(), PublishError> {
        let publication = what.publication();
        let mail_bytes = self.hub.gauges();
        mail_bytes.charge(&publication, [id.reactor()])?;
        self.orders.push(Order::Tell(id, publication));
        Ok(())
    }

    /// Sends something to every connection. Nobody answers.
    ///
    /// # Errors
    /// `Busy` when too much waits already.
    pub fn tell_all(&mut self, what: What) -> Result<(), PublishError> {
        let publication = what.publication();
        let mail_bytes = self.hub.gauges();
        mail_bytes.charge(&publication, 0..mail_bytes.reactors())?;
        self.orders.push(Order::Everyone(publication));
        Ok(())
    }

    /// Asks each reactor for at most so many of its connections: those of one user, or any.
    /// [`Heard::Residents`] comes from each; how many.
    pub fn residents(&mut self, tag: u32, user: Option<&str>, limit: u32) -> u16 {
        let census = Census {
            asker: self.id,
            tag,
            user: user.map(user_channel),
            limit: limit as usize,
        };
        self.orders.push(Order::Count(Arc::new(census)));
        self.reactors()
    }
}

impl What {
    /// As a publication that no channel's home has ordered.
    pub(crate) fn publication(self) -> Arc<Publication> {
        let (kind, payload) = match self {
            Self::Payload(payload) => (Kind::Message, payload),
            Self::Command(command) => (Kind::Command(Arc::new(command)), NOTHING),
        };
        let mut publication = Publication::new(RESERVED_NAME.into(), 0, payload);
        publication.kind = kind;
        Arc::new(publication)
    }
}

/// In place of a channel.
const RESERVED_NAME: &str = "\u{1}";

const NOTHING: Payload = Payload::Binary(Bytes::new());
