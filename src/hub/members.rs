//! `Members`: who is subscribed to a channel, for those who may know.

use std::{collections::HashMap, sync::Arc};

use super::{Address, Member, Options, mail::Ticket};

/// The members of a channel.
///
/// A connection is in it once. One that subscribes again before the home has heard of the end of
/// its first subscription takes the place of its former self.
#[derive(Debug)]
pub struct Members<A> {
    entries: HashMap<A, Entry<A>>,
    /// How many of those that are present each user has.
    users: HashMap<Arc<str>, u32>,
    present: u32,
}

/// One member, by the subscription that made it one.
#[derive(Debug)]
pub struct Entry<A> {
    ticket: Ticket,
    pub member: Arc<Member<A>>,
    /// It is told of when the presence is asked for.
    is_present: bool,
    /// That it joined was told, so that it leaves must be, too.
    pub is_told: bool,
}

impl<A> Default for Members<A> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            users: HashMap::new(),
            present: 0,
        }
    }
}

impl<A: Address> Members<A> {
    /// Whether a channel with these options has members at all.
    pub fn are_kept(options: Options) -> bool {
        options.presence || options.join_leave
    }

    /// A subscription begins; gives the entry that it replaces.
    pub fn join(
        &mut self,
        client: A,
        ticket: Ticket,
        member: Arc<Member<A>>,
        options: Options,
    ) -> Option<Entry<A>> {
        let replaced = self.remove(client);
        if options.presence {
            self.present += 1;
            *self.users.entry(Arc::clone(&member.user)).or_default() += 1;
        }
        let entry = Entry {
            ticket,
            member,
            is_present: options.presence,
            is_told: options.join_leave,
        };
        self.entries.insert(client, entry);
        replaced
    }

    /// A subscription ends; gives its entry, if that is still there.
    pub fn leave(&mut self, client: A, ticket: Ticket) -> Option<Entry<A>> {
        let entry = self.entries.get(&client)?;
        if entry.ticket != ticket {
            return None;
        }
        self.remove(client)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn present(&self) -> impl Iterator<Item = &Arc<Member<A>>> {
        let entries = self.entries.values().filter(|entry| entry.is_present);
        entries.map(|entry| &entry.member)
    }

    /// How many connections are present, and of how many users.
    pub fn count(&self) -> (u32, u32) {
        (self.present, self.users.len() as u32)
    }

    fn remove(&mut self, client: A) -> Option<Entry<A>> {
        let entry = self.entries.remove(&client)?;
        if entry.is_present {
            self.present -= 1;
            if let Some(count) = self.users.get_mut(&entry.member.user) {
                *count -= 1;
                if *count == 0 {
                    self.users.remove(&entry.member.user);
                }
            }
        }
        Some(entry)
    }
}
