//! The smallest server: what comes in goes out. `cargo run --release --example echo`

use tidemill::{
    Accept, Config, Failure, Handler, Incoming, Message, Peer, Upgrade, Verdict, server,
};

struct Echo;

impl Handler for Echo {
    type State = ();

    fn upgrade(&mut self, _: &Incoming<'_>, _: &Upgrade<'_>) -> Verdict<()> {
        Accept::new(()).into()
    }

    fn message(
        &mut self,
        peer: &mut Peer<'_>,
        _: &mut (),
        message: Message<'_>,
    ) -> Result<(), Failure> {
        peer.send(message);
        Ok(())
    }
}

fn main() -> Result<(), server::ServerError> {
    server::run(&Config::default(), |_| Echo)
}
