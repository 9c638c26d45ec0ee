//! `Mailbox<T>`: a queue and a waker, the only thing that two threads share.
//!
//! Sending never blocks. A batch costs one wake: the sender wakes only if nobody did since the
//! receiver last looked. The receiver clears that flag *before* it drains, so a mail sent while it
//! drains is either seen now or wakes it again: `handover` has that order, and tries all others.

mod handover;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crossbeam_queue::SegQueue;

use handover::{Flag, Handover, Queue, Waker};

/// The receiving end; lives with one reactor.
#[derive(Debug)]
pub struct Mailbox<T> {
    shared: Arc<Shared<T>>,
}

/// The sending end; any thread may hold a clone.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

type Shared<T> = Handover<SegQueue<T>, AtomicBool, mio::Waker>;

impl<T> Mailbox<T> {
    /// A mailbox that wakes `poll` with `token`.
    pub fn new(poll: &mio::Poll, token: mio::Token) -> io::Result<Self> {
        let waker = mio::Waker::new(poll.registry(), token)?;
        let shared = Handover::new(SegQueue::new(), AtomicBool::new(false), waker);
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    pub fn sender(&self) -> Sender<T> {
        Sender {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Call when woken, before the first [`Mailbox::pop`].
    pub fn open(&self) {
        self.shared.open();
    }

    pub fn pop(&self) -> Option<T> {
        self.shared.queue.pop()
    }

    /// Whoever stops popping before there is nothing must look here before the next sleep.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }
}

impl<T> Sender<T> {
    /// Hands `mail` over. In order for one sender.
    pub fn send(&self, mail: T) {
        note(self.shared.send(mail));
    }

    /// Puts `mail` down without waking anybody: [`Sender::notify`] must follow. What is put down
    /// before it is found together.
    pub fn put(&self, mail: T) {
        self.shared.queue.push(mail);
    }

    /// Wakes the receiver for what this thread has put down.
    pub fn notify(&self) {
        note(self.shared.notify());
    }
}

fn note(woken: io::Result<()>) {
    // An eventfd's counter cannot overflow here: one write a batch. Should the write fail all the
    // same, the reactor finds the mail in its next turn, for which the next mail wakes it.
    if let Err(error) = woken {
        log::debug!("cannot wake a reactor error=\"{error}\"");
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Queue<T> for SegQueue<T> {
    fn push(&self, mail: T) {
        Self::push(self, mail);
    }
}

impl Flag for AtomicBool {
    fn swap(&self, raised: bool, ordering: Ordering) -> bool {
        Self::swap(self, raised, ordering)
    }
}

impl Waker for mio::Waker {
    fn wake(&self) -> io::Result<()> {
        Self::wake(self)
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    #[test]
    fn mail_from_many_threads_arrives_once_each_and_in_order() {
        const WAKE: mio::Token = mio::Token(0);
        let mut poll = mio::Poll::new().unwrap();
        let mailbox = Mailbox::new(&poll, WAKE).unwrap();
        let threads: Vec<_> = (0..4u32)
            .map(|thread| {
                let sender = mailbox.sender();
                thread::spawn(move || (0..10_000u32).for_each(|n| sender.send((thread, n))))
            })
            .collect();
        let mut next = [0u32; 4];
        let mut events = mio::Events::with_capacity(4);
        while next.iter().sum::<u32>() < 40_000 {
            poll.poll(&mut events, Some(Duration::from_secs(10)))
                .unwrap();
            assert!(!events.is_empty(), "a wake was lost: {next:?}");
            mailbox.open();
            while let Some((thread, n)) = mailbox.pop() {
                assert_eq!(next[thread as usize], n);
                next[thread as usize] += 1;
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(mailbox.is_empty());
    }
}
