//! `Mailbox<T>`: a queue and a waker, the only thing that two threads share.
//!
//! Sending never blocks. A batch costs one wake: the sender wakes only if nobody did since the
//! receiver last looked. The receiver clears that flag *before* it drains, so a mail sent while it
//! drains is either seen now or wakes it again.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crossbeam_queue::SegQueue;

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

#[derive(Debug)]
struct Shared<T> {
    queue: SegQueue<T>,
    awake: AtomicBool,
    waker: mio::Waker,
}

impl<T> Mailbox<T> {
    /// A mailbox that wakes `poll` with `token`.
    pub fn new(poll: &mio::Poll, token: mio::Token) -> io::Result<Self> {
        let waker = mio::Waker::new(poll.registry(), token)?;
        let shared = Shared {
            queue: SegQueue::new(),
            awake: AtomicBool::new(false),
            waker,
        };
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
        self.shared.awake.store(false, Ordering::SeqCst);
    }

    pub fn pop(&self) -> Option<T> {
        self.shared.queue.pop()
    }

    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }
}

impl<T> Sender<T> {
    /// Hands `mail` over. In order for one sender.
    pub fn send(&self, mail: T) {
        self.shared.queue.push(mail);
        if !self.shared.awake.swap(true, Ordering::SeqCst) {
            // An eventfd's counter cannot overflow here: one write a batch. Should the write fail
            // all the same, the reactor finds the mail at its next tick.
            if let Err(error) = self.shared.waker.wake() {
                log::debug!("cannot wake a reactor error=\"{error}\"");
            }
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
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
