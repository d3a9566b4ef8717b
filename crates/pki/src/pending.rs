//! Handshakes in progress, and which of them make room for others.
//!
//! Whoever reaches the port can open connections and say nothing. Such a peer must
//! not keep agents and operators out, so the number of handshakes is bounded for
//! each address, part of the room is kept for addresses from which a party has
//! connected before, and a connection that has sent nothing makes room for one
//! that is new.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::{AbortHandle, Id};
use tokio::time::Instant;

/// How long a connection may be silent before it makes room: clients send their
/// first message at once, so this is a slow network's round trip.
const SILENT: Duration = Duration::from_millis(500);
/// Addresses that are remembered: more than a fleet has.
const KNOWN: usize = 16_384;

/// Limits of handshakes in progress.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub total: usize,
    /// For all addresses together from which no party has connected.
    pub unknown: usize,
    /// For each such address.
    pub unknown_address: usize,
}

impl Limits {
    pub(crate) fn of(total: usize) -> Self {
        Self {
            total,
            unknown: total - total / 4,
            unknown_address: total / 8,
        }
    }
}

#[derive(Debug)]
struct Handshake {
    address: IpAddr,
    since: Instant,
    /// The peer has sent something.
    spoke: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Handshake {
    fn is_silent(&self) -> bool {
        !self.spoke.load(Ordering::Relaxed) && self.since.elapsed() >= SILENT
    }
}

/// What to do with a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// This one must end first.
    InsteadOf(Id),
    /// Its address has too many, or all that there are for unknown addresses are
    /// in use.
    None,
}

#[derive(Debug)]
pub(crate) struct Pending {
    limits: Limits,
    handshakes: HashMap<Id, Handshake>,
    /// Addresses from which a party has connected.
    known: HashSet<IpAddr>,
}

impl Pending {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            handshakes: HashMap::new(),
            known: HashSet::new(),
        }
    }

    /// Whether a connection from a known address would have to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.handshakes.len() >= self.limits.total && self.oldest_silent(|_| true).is_none()
    }

    pub(crate) fn room_for(&self, address: IpAddr) -> Room {
        // Users of this host can keep its operators out in other ways.
        let known = |address: &IpAddr| address.is_loopback() || self.known.contains(address);
        let unknown = |handshake: &Handshake| !known(&handshake.address);
        if !known(&address) {
            let own = |handshake: &Handshake| handshake.address == address;
            if self.count(own) >= self.limits.unknown_address {
                return self.instead_of(own);
            }
            if self.count(unknown) >= self.limits.unknown {
                return self.instead_of(unknown);
            }
        }
        if self.handshakes.len() < self.limits.total {
            return Room::Free;
        }
        match self.instead_of(unknown) {
            Room::None => self.instead_of(|_| true),
            room => room,
        }
    }

    fn count(&self, which: impl Fn(&Handshake) -> bool) -> usize {
        self.handshakes.values().filter(|h| which(h)).count()
    }

    fn instead_of(&self, which: impl Fn(&Handshake) -> bool) -> Room {
        self.oldest_silent(which)
            .map_or(Room::None, Room::InsteadOf)
    }

    fn oldest_silent(&self, which: impl Fn(&Handshake) -> bool) -> Option<Id> {
        let silent = self
            .handshakes
            .iter()
            .filter(|(_, h)| which(h) && h.is_silent());
        silent.min_by_key(|(_, h)| h.since).map(|(id, _)| *id)
    }

    pub(crate) fn began(&mut self, address: IpAddr, spoke: Arc<AtomicBool>, task: AbortHandle) {
        let handshake = Handshake {
            address,
            since: now(),
            spoke,
            task,
        };
        self.handshakes.insert(handshake.task.id(), handshake);
    }

    /// Ends a handshake to make room; gives its address.
    pub(crate) fn end(&mut self, id: Id) -> Option<IpAddr> {
        let handshake = self.handshakes.remove(&id)?;
        handshake.task.abort();
        Some(handshake.address)
    }

    /// A handshake has ended; `accepted`: it has proved an identity.
    pub(crate) fn ended(&mut self, id: Id, accepted: bool) {
        let Some(handshake) = self.handshakes.remove(&id) else {
            return;
        };
        if accepted {
            if self.known.len() >= KNOWN {
                self.known.clear();
            }
            self.known.insert(handshake.address);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "an interval of this process")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 66));
    const OFFICE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    /// A handshake that says nothing, or has spoken.
    fn begin(pending: &mut Pending, address: IpAddr, spoke: bool) -> Id {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let id = task.id();
        pending.began(address, Arc::new(AtomicBool::new(spoke)), task);
        id
    }

    fn known(pending: &mut Pending, address: IpAddr) {
        let id = begin(pending, address, true);
        pending.ended(id, true);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_share_and_its_silent_connections_make_room() {
        let mut pending = Pending::new(Limits::of(16));
        let first = begin(&mut pending, STRANGER, false);
        begin(&mut pending, STRANGER, true);
        assert_eq!(pending.room_for(STRANGER), Room::None, "two of 16");
        assert_eq!(pending.room_for(OFFICE), Room::Free);
        tokio::time::advance(SILENT).await;
        assert_eq!(pending.room_for(STRANGER), Room::InsteadOf(first));
        assert_eq!(pending.end(first), Some(STRANGER));
        assert_eq!(pending.room_for(STRANGER), Room::Free);
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_kept_for_addresses_of_parties() {
        let mut pending = Pending::new(Limits::of(16));
        known(&mut pending, OFFICE);
        for stranger in 0..12 {
            let address = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, stranger));
            assert_eq!(pending.room_for(address), Room::Free);
            begin(&mut pending, address, true);
        }
        assert_eq!(pending.room_for(STRANGER), Room::None);
        assert_eq!(pending.room_for(OFFICE), Room::Free);
        for _ in 0..4 {
            begin(&mut pending, OFFICE, true);
        }
        assert!(pending.is_full());
        assert_eq!(pending.room_for(OFFICE), Room::None, "it waits");
        let silent = begin(&mut pending, OFFICE, false);
        tokio::time::advance(SILENT).await;
        assert_eq!(pending.room_for(OFFICE), Room::InsteadOf(silent));
    }
}
