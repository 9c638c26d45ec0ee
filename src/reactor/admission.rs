//! Who is let in: by address, by origin, by token. The rules are the gate's; here they are asked,
//! with what the socket and the clock have to say.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::{Core, refusals::Page};
use crate::{
    connection::{Connection, Flags, Link, Stage},
    gate::{
        Credentials, Journey,
        address::{Crowd, Entry, Standing, Ticket},
        forwarded::{self, Forwarded, Said},
        token::{Claims, TokenError},
    },
    handler::{Door, Handler, OriginList, Reason, Refusal, Request, TokenDoor, is_relayed},
    metrics::Operation,
    protocol::proxy::{self, PREAMBLE_BYTES_MAX, Preamble},
    slots::Key,
    sys,
};

/// A newcomer's place in the table of addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    pub ticket: Option<(Ticket, Standing)>,
    /// Why there is none for it: it may ask, and is told.
    pub refusal: Option<Reason>,
    /// It speaks for others, and is not counted itself.
    pub is_trusted: bool,
}

impl<H: Handler> Core<H> {
    /// Looks a newcomer up by its address; `None` if it is not even told why it is refused.
    pub(super) fn place(&mut self, remote: SocketAddr, flags: Flags) -> Option<Place> {
        if flags.has(Flags::ADMIN) {
            return Some(Place::default());
        }
        if self.trusts(remote.ip()) {
            return Some(Place {
                is_trusted: true,
                ..Place::default()
            });
        }
        match self.enter(remote.ip()) {
            Ok((ticket, refusal)) => Some(Place {
                ticket,
                refusal,
                is_trusted: false,
            }),
            Err(reason) => {
                self.block.refused.add(reason as usize);
                let remote = Remote(Some(remote.ip()));
                self.note_refusal(reason, &remote, None, None);
                None
            }
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let mut networks = self.settings.trusted_proxies.iter();
        networks.any(|network| network.contains(address))
    }

    /// Counts a connection from this address: its ticket, and why it is to be refused if it is; or
    /// only that, when too many of them are being told already.
    #[expect(clippy::type_complexity, reason = "taken apart where it is called")]
    fn enter(
        &self,
        address: IpAddr,
    ) -> Result<(Option<(Ticket, Standing)>, Option<Reason>), Reason> {
        let Some(addresses) = &self.gate.addresses else {
            return Ok((None, None));
        };
        match addresses.enter(address, self.now) {
            Entry::Admitted(ticket) => Ok((Some((ticket, Standing::HalfOpen)), None)),
            Entry::Refused(ticket, crowd) => {
                Ok((Some((ticket, Standing::Refused)), Some(crowded(crowd))))
            }
            Entry::Dropped(crowd) => Err(crowded(crowd)),
        }
    }

    /// Gives a ticket back that no slot ever had.
    pub(super) fn forfeit(&self, ticket: Option<(Ticket, Standing)>) {
        if let (Some(addresses), Some((ticket, standing))) = (&self.gate.addresses, ticket) {
            addresses.leave(ticket, standing, self.now);
        }
    }

    /// Forgets who was in a slot.
    pub(super) fn give_back(&mut self, slot: u32) {
        let ticket = self.visitors.go(slot);
        self.forfeit(ticket);
    }

    /// A request has come completely: its connection is not half open any more.
    pub(super) fn arrive(&mut self, key: Key) {
        if let Some(ticket) = self.visitors.arrive(key.slot)
            && let Some(addresses) = &self.gate.addresses
        {
            addresses.opened(ticket);
        }
    }

    /// Reads for whom a proxy speaks (the PROXY protocol), before anything else that comes. True
    /// once that is known, and the connection may go on.
    pub(super) fn preamble(
        &mut self,
        buffer: &mut [u8],
        key: Key,
        connection: &mut Connection<H::State>,
    ) -> bool {
        let link = &mut connection.link;
        let window = buffer.len().min(PREAMBLE_BYTES_MAX);
        let came = match link.transport.peek(&mut buffer[..window]) {
            Ok(None) => return false,
            Ok(Some(0)) => {
                self.bury(key, connection);
                return false;
            }
            Ok(Some(came)) => came,
            Err(error) => {
                self.lost(key, connection, Operation::Receive, &error);
                return false;
            }
        };
        let (length, source) = match proxy::read(&buffer[..came]) {
            Ok(Preamble::Incomplete) if link.flags.has(Flags::READ_CLOSED) => {
                // What is missing will not come, nor will an event.
                return self.dismiss(Reason::ProxyHeader, key, connection);
            }
            Ok(Preamble::Incomplete) => return false,
            Ok(Preamble::Complete { length, source }) => (length, source),
            Err(error) => {
                log::debug!("no PROXY header id={} error=\"{error}\"", self.conn_id(key));
                return self.dismiss(Reason::ProxyHeader, key, connection);
            }
        };
        if let Err(error) = link.transport.skip(&mut buffer[..length]) {
            self.lost(key, connection, Operation::Receive, &error);
            return false;
        }
        link.stage = Stage::Http(None);
        let Some(source) = source else {
            return true;
        };
        let is_trusted = self.trusts(source.ip());
        self.visitors.set_source(key.slot, source, is_trusted);
        if is_trusted {
            return true;
        }
        match self.enter(source.ip()) {
            Ok((ticket, refusal)) => {
                self.visitors.set_ticket(key.slot, ticket);
                connection.link.shed = connection.link.shed.or(refusal);
                true
            }
            Err(reason) => self.dismiss(reason, key, connection),
        }
    }

    /// Ends a connection that is not told why.
    fn dismiss(&mut self, reason: Reason, key: Key, connection: &mut Connection<H::State>) -> bool {
        self.block.refused.add(reason as usize);
        let remote = self.remote_of(key, &connection.link);
        self.note_refusal(reason, &remote, None, None);
        self.bury(key, connection);
        false
    }

    /// What a trusted peer says of whom it speaks for, in this request. From then on the connection
    /// counts as that one's.
    pub(super) fn locate<'r>(
        &mut self,
        request: &Request<'r>,
        key: Key,
        link: &mut Link,
    ) -> Result<Forwarded<'r>, Reason> {
        let is_secure = link.transport.tls().is_some();
        if !self.visitors.is_trusted(key.slot) {
            return Ok(Forwarded {
                client: None,
                host: None,
                is_secure: Some(is_secure),
            });
        }
        // Of what is there once, the last is what the nearest proxy has added.
        let said = Said {
            x_forwarded_for: request.headers("X-Forwarded-For").collect(),
            forwarded: request.headers("Forwarded").collect(),
            x_forwarded_host: request.headers("X-Forwarded-Host").last(),
            x_forwarded_proto: request.headers("X-Forwarded-Proto").last(),
        };
        let told = forwarded::read(&said, &self.settings.trusted_proxies)
            .map_err(|_| Reason::Forwarded)?;
        let before = self.visitors.remote(key.slot).map(|remote| remote.ip());
        let client = told.client.map(|address| SocketAddr::new(address, 0));
        self.visitors.set_client(key.slot, client);
        if told.client == before && self.visitors.has_ticket(key.slot) {
            return Ok(told);
        }
        // Proxies keep connections, and put requests of many clients on one.
        let ticket = self.visitors.take_ticket(key.slot);
        self.forfeit(ticket);
        if let Some(address) = told.client {
            let (ticket, refusal) = match self.enter(address) {
                Ok(entered) => entered,
                Err(reason) => (None, Some(reason)),
            };
            self.visitors.set_ticket(key.slot, ticket);
            link.shed = link.shed.or(refusal);
        }
        Ok(told)
    }

    /// Whether a page of this origin may connect here. No origin, no page: RFC 6455, 10.2.
    pub(super) fn check_origin<'r>(
        &self,
        request: &Request<'r>,
        door: Door,
        told: &Forwarded<'r>,
    ) -> Result<(), (Refusal, Page<'r>)> {
        let mut origins = request.headers("Origin");
        let (Some(origin), Some(list)) = (origins.next(), door.origins) else {
            return Ok(());
        };
        let host = told.host.unwrap_or(request.host());
        let journey = Journey {
            origin,
            host,
            is_secure: told.is_secure,
            is_relayed: is_relayed(request),
        };
        let policy = self.gate.policy();
        if origins.next().is_none() && policy.allows_origin(list, &journey) {
            return Ok(());
        }
        let page = Page {
            variable: policy.variable(list),
            origin,
            host,
        };
        Err((Reason::Origin.into(), page))
    }

    /// Whom the token of a request names. `Ok(None)`: there is none, and none is needed.
    pub(super) fn check_token(
        &self,
        request: &Request<'_>,
        door: Door,
    ) -> Result<Option<Claims>, Reason> {
        if door.token == TokenDoor::Ignored || !self.settings.keeps_visitors {
            return Ok(None);
        }
        let policy = self.gate.policy();
        let found = Credentials {
            authorization: request.header("Authorization"),
            query: request.query(),
            cookies: request.headers("Cookie"),
            // Browsers send it along whichever page connects: where any page may, it is no proof.
            cookie_name: policy.token_cookie().filter(|_| trusts_cookies(door)),
        };
        match found.find() {
            Some(token) if policy.takes_tokens() => {
                let claims = self.gate.tokens.verify(token, sys::unix_seconds());
                let claims = claims.and_then(Claims::for_connection);
                claims.map(Some).map_err(untrusted)
            }
            None if door.token == TokenDoor::Asked && policy.token_is_required() => {
                Err(Reason::TokenMissing)
            }
            _ => Ok(None),
        }
    }

    /// The address of a peer, as far as anybody knows it.
    pub(super) fn remote_of(&self, key: Key, link: &Link) -> Remote {
        let named = self.visitors.remote(key.slot);
        let remote = named.or_else(|| link.transport.remote().ok());
        Remote(remote.map(|remote| remote.ip()))
    }
}

/// An address for a log line; that of a peer that has reset its connection is not known any more.
#[derive(Debug)]
pub struct Remote(Option<IpAddr>);

impl fmt::Display for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.to_canonical().fmt(formatter),
            None => formatter.write_str("gone"),
        }
    }
}

/// Whether only pages that were named may connect.
fn trusts_cookies(door: Door) -> bool {
    !matches!(door.origins, None | Some(OriginList::Native))
}

fn crowded(crowd: Crowd) -> Reason {
    match crowd {
        Crowd::Connections => Reason::AddressCap,
        Crowd::HalfOpen => Reason::HalfOpen,
        Crowd::Rate { .. } => Reason::ConnectRate,
    }
}

fn untrusted(error: TokenError) -> Reason {
    match error {
        TokenError::Malformed => Reason::TokenMalformed,
        TokenError::Algorithm => Reason::TokenAlgorithm,
        TokenError::UnknownKey => Reason::TokenKey,
        TokenError::Signature => Reason::TokenSignature,
        TokenError::Expired => Reason::TokenExpired,
        TokenError::NotYet => Reason::TokenEarly,
        TokenError::Issuer => Reason::TokenIssuer,
        TokenError::Audience | TokenError::Purpose => Reason::TokenAudience,
        TokenError::Revoked => Reason::TokenRevoked,
        TokenError::NoKeys => Reason::TokenKeys,
    }
}
