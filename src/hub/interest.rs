//! Who is interested in a channel: reactors, and how many subscriptions each of them has.

/// The reactors that have subscribers to a channel. Few, so that looking through them is quick.
#[derive(Debug, Default)]
pub struct Interests(Vec<Interest>);

#[derive(Debug)]
struct Interest {
    reactor: u16,
    subscriptions: u32,
    /// Those of the subscriptions that want to be told who comes and goes.
    watchers: u32,
}

impl Interests {
    /// A subscription begins.
    pub fn add(&mut self, reactor: u16, watches: bool) {
        let index = self.0.iter().position(|known| known.reactor == reactor);
        let index = index.unwrap_or_else(|| {
            // One at a time: most channels are wanted by few reactors, and there are many channels.
            self.0.reserve_exact(1);
            self.0.push(Interest {
                reactor,
                subscriptions: 0,
                watchers: 0,
            });
            self.0.len() - 1
        });
        self.0[index].subscriptions += 1;
        self.0[index].watchers += u32::from(watches);
    }

    /// A subscription ends that had begun.
    pub fn remove(&mut self, reactor: u16, watches: bool) {
        let Some(index) = self.0.iter().position(|known| known.reactor == reactor) else {
            debug_assert!(false, "a subscription ends that never began");
            return;
        };
        self.0[index].subscriptions -= 1;
        self.0[index].watchers -= u32::from(watches);
        if self.0[index].subscriptions == 0 {
            self.0.swap_remove(index);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn subscriptions(&self) -> u32 {
        self.0.iter().map(|known| known.subscriptions).sum()
    }

    pub fn reactors(&self) -> impl Iterator<Item = u16> {
        self.0.iter().map(|known| known.reactor)
    }

    /// The reactors with somebody who wants to be told who comes and goes.
    pub fn watching(&self) -> impl Iterator<Item = u16> {
        let known = self.0.iter().filter(|known| known.watchers > 0);
        known.map(|known| known.reactor)
    }
}
