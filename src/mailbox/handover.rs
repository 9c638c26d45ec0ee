//! Who does what first when mail changes hands, apart from what it is done with: so that a model
//! checker can try every interleaving, and every stale value that a processor may show.
//!
//! A flag is up while the receiver has been woken and has not opened since. A sender puts its mail
//! down, then raises the flag, and wakes if it was down. The receiver, when woken, lowers the flag,
//! then drains. All of them *swap*, and of two swaps the later sees the earlier: either the sender
//! finds the flag down, and wakes, or the receiver finds it up, and by release and acquire the mail
//! of everyone who raised it. A load or a store in place of a swap would need sequential
//! consistency, of the queue as well as of the flag.
//!
//! A receiver that leaves mail behind must look whether the queue is empty before it sleeps.

use std::{
    io,
    sync::atomic::Ordering::{self, Acquire, Relaxed, Release},
};

/// Where mail is put down. What a receiver takes from it, it must see whole.
pub(super) trait Queue<T> {
    fn push(&self, mail: T);
}

/// An atomic boolean.
pub(super) trait Flag {
    fn swap(&self, raised: bool, ordering: Ordering) -> bool;
}

/// Ends the receiver's sleep, the next one if it does not sleep now.
pub(super) trait Waker {
    fn wake(&self) -> io::Result<()>;
}

/// What senders and receiver share.
#[derive(Debug)]
pub(super) struct Handover<Q, F, W> {
    pub queue: Q,
    awake: F,
    waker: W,
}

impl<Q, F: Flag, W: Waker> Handover<Q, F, W> {
    /// With a flag that is down.
    pub fn new(queue: Q, awake: F, waker: W) -> Self {
        Self {
            queue,
            awake,
            waker,
        }
    }

    /// Hands `mail` over. After an error it is in the queue, and the next sender wakes.
    pub fn send<T>(&self, mail: T) -> io::Result<()>
    where
        Q: Queue<T>,
    {
        self.queue.push(mail);
        self.notify()
    }

    /// Wakes the receiver for what this thread has pushed.
    pub fn notify(&self) -> io::Result<()> {
        if self.awake.swap(true, Release) {
            return Ok(());
        }
        // Another swap, for it keeps what others have released.
        self.waker.wake().inspect_err(|_| {
            self.awake.swap(false, Relaxed);
        })
    }

    /// The receiver is awake and will drain after this.
    pub fn open(&self) {
        self.awake.swap(false, Acquire);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::Ordering::AcqRel};

    use loom::{
        sync::atomic::{AtomicBool, AtomicUsize},
        thread::{self, Thread},
    };

    use super::*;

    /// Mails of each of the two senders. They are numbered from 1, the second sender's from 11.
    const MAILS: [usize; 2] = [2, 1];
    const MAILS_SUM: usize = MAILS[0] + MAILS[1];

    /// Thread switches where none is needed. The faults below need one.
    const PREEMPTIONS_MAX: usize = 3;

    type Model = Handover<Slots, ModelFlag, Sleep>;

    /// A queue that promises nothing beyond release and acquire. With a lock or sequential
    /// consistency in it, it would do the flag's work, and hide what is wrong with a flag.
    struct Slots {
        taken: AtomicUsize,
        slots: [AtomicUsize; MAILS_SUM],
    }

    impl Slots {
        /// What the receiver finds after it took `position` mails.
        fn at(&self, position: usize) -> Option<usize> {
            let slot = self.slots.get(position)?;
            Some(slot.load(Acquire)).filter(|mail| *mail > 0)
        }
    }

    impl Queue<usize> for Slots {
        fn push(&self, mail: usize) {
            let position = self.taken.fetch_add(1, Relaxed);
            self.slots[position].store(mail, Release);
        }
    }

    struct ModelFlag {
        flag: AtomicBool,
        fault: Fault,
    }

    impl Flag for ModelFlag {
        fn swap(&self, raised: bool, ordering: Ordering) -> bool {
            match (self.fault, raised) {
                (Fault::SenderIsRelaxed, true) | (Fault::ReceiverIsRelaxed, false) => {
                    self.flag.swap(raised, Relaxed)
                }
                (Fault::SenderLooksFirst, true) => {
                    self.flag.load(Acquire) || self.flag.swap(raised, AcqRel)
                }
                _ => self.flag.swap(raised, ordering),
            }
        }
    }

    /// A poll with nothing in it but a waker. Who sleeps in vain is a deadlock, which loom reports.
    struct Sleep {
        is_pending: AtomicBool,
        sleeper: Thread,
        /// Loom need not see these.
        wakes: std::sync::atomic::AtomicUsize,
        fails_at: Option<usize>,
    }

    impl Sleep {
        fn sleep(&self) {
            while !self.glance() {
                thread::park();
            }
        }

        /// A sleep of no length: whether a wake was pending.
        fn glance(&self) -> bool {
            self.is_pending.swap(false, Relaxed)
        }
    }

    impl Waker for Sleep {
        fn wake(&self) -> io::Result<()> {
            let number = self.wakes.fetch_add(1, Relaxed);
            if self.fails_at == Some(number) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.is_pending.swap(true, Relaxed);
            self.sleeper.unpark();
            Ok(())
        }
    }

    /// What is done wrong, to see that the model notices.
    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        None,
        SenderIsRelaxed,
        SenderLooksFirst,
        SenderRaisesBeforePush,
        ReceiverIsRelaxed,
        ReceiverOpensAfterDrain,
        ReceiverDoesNotLook,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Receiver {
        /// Drains to the end, and sleeps again without a look.
        Trusting,
        /// Takes one mail a turn, and sleeps only if there is no other: the reactor.
        Budgeted,
        /// Opens every turn, woken or not, and drains to the end: the load tool.
        Eager,
    }

    impl Receiver {
        /// Turns until every mail is here: the mails as they came, and how often it opened.
        fn receive(self, model: &Model, fault: Fault, count: usize) -> (Vec<usize>, usize) {
            let looks = self != Self::Trusting && fault != Fault::ReceiverDoesNotLook;
            let budget = if self == Self::Budgeted { 1 } else { count };
            let (mut mails, mut opens, mut is_woken) = (Vec::new(), 0, false);
            loop {
                let opens_now = is_woken || self == Self::Eager;
                opens += usize::from(opens_now);
                if opens_now && fault != Fault::ReceiverOpensAfterDrain {
                    model.open();
                }
                let found = (mails.len()..).map_while(|position| model.queue.at(position));
                mails.extend(found.take(budget));
                if opens_now && fault == Fault::ReceiverOpensAfterDrain {
                    model.open();
                }
                if mails.len() == count {
                    return (mails, opens);
                }
                is_woken = if looks && model.queue.at(mails.len()).is_some() {
                    model.waker.glance()
                } else {
                    model.waker.sleep();
                    true
                };
            }
        }
    }

    /// To be called by the thread that will receive.
    fn model(fault: Fault, fails_at: Option<usize>) -> Arc<Model> {
        let slots = Slots {
            taken: AtomicUsize::new(0),
            slots: std::array::from_fn(|_| AtomicUsize::new(0)),
        };
        let flag = ModelFlag {
            flag: AtomicBool::new(false),
            fault,
        };
        let sleep = Sleep {
            is_pending: AtomicBool::new(false),
            sleeper: thread::current(),
            wakes: Default::default(),
            fails_at,
        };
        Arc::new(Handover::new(slots, flag, sleep))
    }

    fn send(model: &Model, fault: Fault, mail: usize) {
        if fault == Fault::SenderRaisesBeforePush {
            let is_awake = model.awake.swap(true, Release);
            model.queue.push(mail);
            if !is_awake {
                model.waker.wake().unwrap();
            }
        } else {
            model.send(mail).unwrap();
        }
    }

    fn explore(program: impl Fn() + Send + Sync + 'static) {
        let mut explorer = loom::model::Builder::new();
        explorer.preemption_bound.get_or_insert(PREEMPTIONS_MAX);
        explorer.check(program);
    }

    /// Two senders and a receiver: each mail arrives once, those of one sender in order, and no
    /// more wakes than were asked for.
    fn try_everything(receiver: Receiver, fault: Fault) {
        explore(move || {
            let model = model(fault, None);
            for (sender, count) in MAILS.into_iter().enumerate() {
                let model = Arc::clone(&model);
                thread::spawn(move || {
                    for mail in 1..=count {
                        send(&model, fault, sender * 10 + mail);
                    }
                });
            }
            let (mails, opens) = receiver.receive(&model, fault, MAILS_SUM);
            for (sender, count) in MAILS.into_iter().enumerate() {
                let from_sender = mails.iter().filter(|mail| **mail / 10 == sender);
                let numbers: Vec<_> = from_sender.map(|mail| mail % 10).collect();
                assert!(numbers.iter().copied().eq(1..=count), "{numbers:?}");
            }
            let wakes = model.waker.wakes.load(Relaxed);
            assert!(wakes <= opens + 1, "{wakes} wakes for {opens} turns");
        });
    }

    #[test]
    fn who_drains_to_the_end_can_sleep_without_a_look() {
        try_everything(Receiver::Trusting, Fault::None);
    }

    #[test]
    fn who_leaves_mail_behind_looks_before_sleeping() {
        try_everything(Receiver::Budgeted, Fault::None);
    }

    #[test]
    fn who_opens_without_being_woken_misses_nothing() {
        try_everything(Receiver::Eager, Fault::None);
    }

    #[test]
    fn after_a_failed_wake_the_next_sender_wakes() {
        explore(|| {
            let model = model(Fault::None, Some(0));
            let sender = Arc::clone(&model);
            thread::spawn(move || {
                assert!(sender.send(1).is_err());
                assert!(sender.send(2).is_ok());
            });
            let (mails, _) = Receiver::Trusting.receive(&model, Fault::None, 2);
            assert_eq!(mails, [1, 2]);
        });
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_flag_raised_before_the_push_loses_a_wake() {
        try_everything(Receiver::Trusting, Fault::SenderRaisesBeforePush);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_flag_raised_without_release_loses_a_wake() {
        try_everything(Receiver::Trusting, Fault::SenderIsRelaxed);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_look_that_saves_the_swap_loses_a_wake() {
        try_everything(Receiver::Trusting, Fault::SenderLooksFirst);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_flag_lowered_after_the_drain_loses_a_wake() {
        try_everything(Receiver::Trusting, Fault::ReceiverOpensAfterDrain);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_flag_lowered_without_acquire_loses_a_wake() {
        try_everything(Receiver::Trusting, Fault::ReceiverIsRelaxed);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn mail_left_behind_without_a_look_stays() {
        try_everything(Receiver::Budgeted, Fault::ReceiverDoesNotLook);
    }
}
