//! `Homes`: the channels that live on one reactor, in order.
//!
//! A home gives each publication its offset and knows which reactors want it. It exists while
//! somebody is interested.

use std::collections::HashMap;

use super::Channel;

/// The channels of one reactor. See the module's text.
///
/// Invariant: every channel here has interest, and every interest has a subscription.
#[derive(Debug, Default)]
pub struct Homes {
    channels: HashMap<Channel, Home>,
}

#[derive(Debug, Default)]
struct Home {
    /// Of the last publication; 0 before the first.
    offset: u64,
    interest: Vec<Interest>,
}

/// A reactor with subscribers to a channel.
#[derive(Debug)]
pub struct Interest {
    pub reactor: u16,
    subscriptions: u32,
}

impl Homes {
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// A subscription on `reactor` begins; gives the offset of the last publication it misses.
    pub fn subscribe(&mut self, channel: &Channel, reactor: u16) -> u64 {
        let home = match self.channels.get_mut(channel) {
            Some(home) => home,
            None => self.channels.entry(Channel::clone(channel)).or_default(),
        };
        let known = home
            .interest
            .iter_mut()
            .find(|known| known.reactor == reactor);
        match known {
            Some(known) => known.subscriptions += 1,
            None => home.interest.push(Interest {
                reactor,
                subscriptions: 1,
            }),
        }
        home.offset
    }

    /// A subscription on `reactor` ends. With the last one the channel does.
    pub fn unsubscribe(&mut self, channel: &str, reactor: u16) {
        let Some(home) = self.channels.get_mut(channel) else {
            debug_assert!(false, "a subscription ends that never began");
            return;
        };
        let mut known = home.interest.iter();
        if let Some(index) = known.position(|known| known.reactor == reactor) {
            home.interest[index].subscriptions -= 1;
            if home.interest[index].subscriptions == 0 {
                home.interest.swap_remove(index);
            }
        }
        if home.interest.is_empty() {
            self.channels.remove(channel);
        }
    }

    /// Orders a publication: its offset, and who wants it. `None` when one of those is full: then
    /// nobody gets it.
    pub fn publish(
        &mut self,
        channel: &str,
        is_full: impl Fn(u16) -> bool,
    ) -> Option<(u64, &[Interest])> {
        let Some(home) = self.channels.get_mut(channel) else {
            return Some((1, &[]));
        };
        if home.interest.iter().any(|known| is_full(known.reactor)) {
            return None;
        }
        home.offset += 1;
        Some((home.offset, &home.interest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(homes: &mut Homes, channel: &str) -> (u64, Vec<u16>) {
        let (offset, interest) = homes.publish(channel, |_| false).unwrap();
        let mut reactors: Vec<u16> = interest.iter().map(|known| known.reactor).collect();
        reactors.sort_unstable();
        (offset, reactors)
    }

    #[test]
    fn a_home_counts_from_one_and_ends_with_the_last_interest() {
        let mut homes = Homes::default();
        let channel = Channel::from("news");
        assert_eq!(publish(&mut homes, "news"), (1, vec![]));
        assert_eq!(homes.len(), 0);
        assert_eq!(homes.subscribe(&channel, 3), 0);
        assert_eq!(publish(&mut homes, "news"), (1, vec![3]));
        assert_eq!(homes.subscribe(&channel, 1), 1);
        assert_eq!(homes.subscribe(&channel, 3), 1);
        homes.unsubscribe("news", 3);
        assert_eq!(publish(&mut homes, "news"), (2, vec![1, 3]));
        homes.unsubscribe("news", 3);
        assert_eq!(publish(&mut homes, "news"), (3, vec![1]));
        homes.unsubscribe("news", 1);
        assert_eq!(homes.len(), 0);
        assert_eq!(homes.subscribe(&channel, 1), 0);
    }

    #[test]
    fn one_full_reactor_refuses_for_all_and_takes_no_offset() {
        let mut homes = Homes::default();
        let channel = Channel::from("news");
        homes.subscribe(&channel, 0);
        homes.subscribe(&channel, 1);
        assert!(homes.publish("news", |reactor| reactor == 1).is_none());
        assert_eq!(publish(&mut homes, "news"), (1, vec![0, 1]));
    }
}
