//! A chat: every path below `/room/` is a channel, and all who are there hear each other, on
//! whatever reactor they are.
//!
//! ```text
//! cargo run --release --example chat
//! npx wscat -c ws://localhost:7000/room/tea
//! ```
//!
//! Start the second line in two terminals and talk.

use tidemill::{
    Accept, Config, Failure, Handler, Incoming, Message, Peer, PublishError, Reason, Refusal,
    Reply, ReplyKind, Upgrade, Verdict, server,
};

const BUSY: &str = "(too much is being said, try again)";

pub struct Chat;

impl Handler for Chat {
    /// The room, which is the channel.
    type State = String;

    fn upgrade(&mut self, incoming: &Incoming<'_>, _: &Upgrade<'_>) -> Verdict<String> {
        match incoming.request.path().strip_prefix("/room/") {
            Some(room) if (1..=200).contains(&room.len()) => Accept::new(room.to_owned()).into(),
            _ => Refusal::from(Reason::UnknownPath).into(),
        }
    }

    fn open(&mut self, peer: &mut Peer<'_>, room: &mut String) -> Result<(), Failure> {
        Ok(peer.subscribe(room)?)
    }

    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        room: &mut String,
        message: Message<'_>,
    ) -> Result<(), Failure> {
        match peer.publish(room, message) {
            Err(PublishError::Busy) => peer.send_text(BUSY),
            result => result?,
        }
        Ok(())
    }

    fn reply(&mut self, peer: &mut Peer<'_>, _: &mut String, reply: Reply) -> Result<(), Failure> {
        if let ReplyKind::Busy = reply.answer {
            peer.send_text(BUSY);
        }
        Ok(())
    }
}

fn main() -> Result<(), server::ServerError> {
    server::run(&Config::default(), |_| Chat)
}
