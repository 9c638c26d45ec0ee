//! [`Publisher`]: a program speaks to its server's subscribers, from any thread.

use std::{fmt, sync::Arc};

use crate::{
    gate::Gate,
    handler::{
        ConnId, Options, Order, Payload, Publish, PublishError, What, options_of, user_channel,
    },
    hub::{self, Address, Limits, MailBytes},
    mailbox::Sender,
    metrics::SERVER,
    reactor::Mail,
};

/// Publishes from any thread; a clone publishes to the same server. What one thread publishes to
/// one channel keeps its order. Nothing blocks: where too much waits already, the caller is told.
///
/// ```no_run
/// use tidemill::{Config, Payload, dialect::Router, server::Server};
///
/// let config = Config::default();
/// let server = {
///     let config = config.clone();
///     Server::start(&config.clone(), move |registry| Router::new(&config, registry))?
/// };
/// let publisher = server.publisher();
/// publisher.publish("metrics", Payload::Json(r#"{"cpu":0.5}"#.into()))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Publisher(Arc<Shared>);

struct Shared {
    reactors: Vec<Sender<Mail>>,
    mail_bytes: Arc<MailBytes>,
    limits: Limits,
    gate: Arc<Gate>,
}

impl Publisher {
    pub(super) fn new(
        reactors: &[Sender<Mail>],
        mail_bytes: &Arc<MailBytes>,
        limits: Limits,
        gate: &Arc<Gate>,
    ) -> Self {
        Self(Arc::new(Shared {
            reactors: reactors.to_vec(),
            mail_bytes: Arc::clone(mail_bytes),
            limits,
            gate: Arc::clone(gate),
        }))
    }

    /// Publishes to all who are subscribed to a channel.
    ///
    /// # Errors
    /// `Name` when the channel's name is empty, too long or has control characters; `Busy` when
    /// `TIDEMILL_MAX_MAIL_BYTES` of publications wait already: it passes.
    pub fn publish(&self, channel: &str, payload: Payload) -> Result<(), PublishError> {
        if channel.contains(char::is_control) {
            return Err(PublishError::Name);
        }
        let options = options_of(&self.0.gate.namespaces, channel);
        self.post(Publish::new(channel, options, payload))
    }

    /// Sends something to all connections of a user, in whatever dialect.
    ///
    /// # Errors
    /// `Busy`, as [`Publisher::publish`].
    pub fn send_to_user(&self, user: &str, what: What) -> Result<(), PublishError> {
        let channel = user_channel(user);
        let Shared {
            limits, mail_bytes, ..
        } = &*self.0;
        match what {
            What::Payload(payload) => {
                self.post(Publish::new(&channel, Options::default(), payload))
            }
            What::Command(command) => {
                let command = Arc::new(command);
                let mail = hub::Mail::command_from_outside(&channel, command, limits, mail_bytes);
                self.send(mail?);
                Ok(())
            }
        }
    }

    /// Sends something to one connection; one that is gone hears nothing.
    ///
    /// # Errors
    /// `Busy`, as [`Publisher::publish`].
    pub fn send_to(&self, id: ConnId, what: What) -> Result<(), PublishError> {
        let reactor = id.reactor();
        let publication = what.publication();
        self.0.mail_bytes.charge(&publication, [reactor])?;
        self.0.reactors[usize::from(reactor)].send(Mail::Order(Order::Tell(id, publication)));
        Ok(())
    }

    /// Sends something to every connection.
    ///
    /// # Errors
    /// `Busy`, as [`Publisher::publish`].
    pub fn broadcast(&self, what: What) -> Result<(), PublishError> {
        let publication = what.publication();
        let mail_bytes = &self.0.mail_bytes;
        mail_bytes.charge(&publication, 0..mail_bytes.reactors())?;
        for reactor in &self.0.reactors {
            reactor.send(Mail::Order(Order::Everyone(Arc::clone(&publication))));
        }
        Ok(())
    }

    fn post(&self, publish: Publish<'_>) -> Result<(), PublishError> {
        let publish = Publish {
            dialect: SERVER as u8,
            ..publish
        };
        let mail = hub::Mail::from_outside(publish, &self.0.limits, &self.0.mail_bytes);
        self.send(mail?);
        Ok(())
    }

    fn send(&self, (to, mail): (u16, hub::Mail<ConnId>)) {
        self.0.reactors[usize::from(to)].send(Mail::Hub(mail));
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Publisher").finish_non_exhaustive()
    }
}
