//! `Bystanders`: twenty open connections that echo all the time, whatever others do to the server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{client::Client, server::Server, socket};

const COUNT: usize = 20;

pub struct Bystanders {
    over: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Bystanders {
    #[track_caller]
    pub fn of(server: &Server) -> Self {
        let config = Arc::new(server.config());
        let open = |number| {
            let stream = crate::client::stream(server.address, number).unwrap();
            let client = Client::over(stream, Arc::clone(&config), "localhost").unwrap();
            client.upgraded("/echo")
        };
        let mut clients: Vec<Client> = (0..COUNT).map(open).collect();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut rounds = 0;
            while rounds < 2 || !is_over.load(Relaxed) {
                for (number, client) in clients.iter_mut().enumerate() {
                    client.echo(&socket::noise((rounds * COUNT + number) as u64, 50));
                }
                rounds += 1;
                thread::park_timeout(Duration::from_millis(2));
            }
            clients.into_iter().for_each(Client::close);
            rounds
        });
        Self { over, thread }
    }

    /// All of them are well, and close in order.
    #[track_caller]
    pub fn are_well(self) {
        self.over.store(true, Relaxed);
        let rounds = self.thread.join().expect("a bystander was harmed");
        assert!(rounds >= 2);
    }
}

/// Does this to a server in whose presence twenty others echo; then it must serve on, and end in
/// order.
#[track_caller]
pub fn undisturbed(server: Server, attack: impl FnOnce(&Server)) {
    let bystanders = Bystanders::of(&server);
    attack(&server);
    bystanders.are_well();
    server.open().close();
    server.stop();
}
