//! State for each connection, headers, close codes and a page of plain HTTP.
//!
//! ```text
//! cargo run --release --example session
//! npx wscat -c "ws://localhost:7000/count" -H "X-Name: Ann"
//! curl http://localhost:7000/visitors
//! ```
//!
//! A client names itself in a header, and every text it sends is counted. `bye` closes the
//! connection with 1000, binary is refused with 1003, and without a name there is no upgrade.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tidemill::{
    Accept, Answer, Caller, CloseCode, Config, ConnId, Failure, Handler, Incoming, Message, Peer,
    Reason, Refusal, Response, Upgrade, Verdict, server,
};

/// One for each reactor; what all of them share is behind an `Arc`.
struct Counter {
    visitors: Arc<AtomicUsize>,
}

/// What is remembered of one connection.
struct Visitor {
    name: String,
    messages: usize,
}

impl Handler for Counter {
    type State = Visitor;

    fn upgrade(&mut self, incoming: &Incoming<'_>, upgrade: &Upgrade<'_>) -> Verdict<Visitor> {
        if incoming.request.path() != "/count" {
            return Refusal::from(Reason::UnknownPath).into();
        }
        let Some(name) = incoming.request.header("X-Name") else {
            let answer = Response::new(400).body("text/plain", "say who you are in X-Name\n");
            return Verdict::Answer(answer);
        };
        let accept = Accept::new(Visitor {
            name: name.to_owned(),
            messages: 0,
        });
        let accept = accept
            .header("X-Greeting", format!("hello {name}"))
            .text_only();
        match upgrade.protocols().find(|protocol| *protocol == "count") {
            Some(protocol) => accept.protocol(protocol).into(),
            None => accept.into(),
        }
    }

    fn open(&mut self, peer: &mut Peer<'_>, visitor: &mut Visitor) -> Result<(), Failure> {
        self.visitors.fetch_add(1, Ordering::Relaxed);
        peer.send_text(&format!("welcome, {}", visitor.name));
        Ok(())
    }

    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        visitor: &mut Visitor,
        message: Message<'_>,
    ) -> Result<(), Failure> {
        visitor.messages += 1;
        match message {
            Message::Text("bye") => peer.close(CloseCode::Normal, "see you"),
            Message::Text(text) => peer.send_text(&format!("{}: {text}", visitor.messages)),
            // `text_only` lets no binary message come this far.
            Message::Binary(_) => return Err(Failure::new("binary in spite of text_only")),
        }
        Ok(())
    }

    fn close(&mut self, id: ConnId, visitor: Visitor, code: CloseCode, reason: &str) {
        self.visitors.fetch_sub(1, Ordering::Relaxed);
        let Visitor { name, messages } = visitor;
        println!("{id}: {name} left after {messages} messages with {code} {reason}");
    }

    fn request(&mut self, _: &mut Caller<'_>, incoming: &Incoming<'_>, _: &[u8]) -> Answer {
        match incoming.request.path() {
            "/visitors" => {
                let count = self.visitors.load(Ordering::Relaxed);
                let body = format!("{{\"visitors\":{count}}}\n");
                Response::new(200).body("application/json", body).into()
            }
            _ => Refusal::from(Reason::UnknownPath).response().into(),
        }
    }
}

fn main() -> Result<(), server::ServerError> {
    let visitors = Arc::new(AtomicUsize::new(0));
    server::run(&Config::default(), move |_| Counter {
        visitors: Arc::clone(&visitors),
    })
}
