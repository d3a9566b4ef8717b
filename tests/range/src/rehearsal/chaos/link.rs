//! The links between agents and the coordinator: each agent connects through a
//! forwarder, which can stop to carry bytes as a partition does, or break.

use super::schedule::Direction;
use crate::range::layout::ports;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often a link that carries nothing is checked.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
struct Link {
    to_coordinator: AtomicBool,
    to_agent: AtomicBool,
    /// Counts the times that its connections were broken.
    breaks: AtomicU64,
}

impl Link {
    fn is_cut(&self, towards_agent: bool) -> bool {
        let cut = if towards_agent {
            &self.to_agent
        } else {
            &self.to_coordinator
        };
        cut.load(Ordering::SeqCst)
    }
}

/// The links of all agents, by host. They last as long as the process.
#[derive(Debug)]
pub struct Links(BTreeMap<String, Arc<Link>>);

impl Links {
    /// Opens a link for each host.
    ///
    /// # Errors
    /// A port is in use.
    pub fn open(hosts: &[(String, Ipv4Addr)]) -> io::Result<Self> {
        let mut links = BTreeMap::new();
        for (host, address) in hosts {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports::link(*address)))?;
            let link = Arc::new(Link::default());
            let forwarding = Arc::clone(&link);
            std::thread::spawn(move || {
                for agent in listener.incoming().flatten() {
                    // The coordinator may be down: the agent's connection closes.
                    if let Ok(coordinator) =
                        TcpStream::connect((Ipv4Addr::LOCALHOST, ports::COORDINATOR))
                    {
                        let _ = forward(&forwarding, &agent, &coordinator);
                    }
                }
            });
            links.insert(host.clone(), link);
        }
        Ok(Self(links))
    }

    /// Stops to carry bytes in this direction, or carries them again.
    pub fn cut(&self, host: &str, direction: Direction, cut: bool) {
        if let Some(link) = self.0.get(host) {
            if direction != Direction::ToAgent {
                link.to_coordinator.store(cut, Ordering::SeqCst);
            }
            if direction != Direction::ToCoordinator {
                link.to_agent.store(cut, Ordering::SeqCst);
            }
        }
    }

    /// Breaks the agent's connections.
    pub fn reset(&self, host: &str) {
        if let Some(link) = self.0.get(host) {
            link.breaks.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Carries both directions of one connection, each in a thread of its own.
fn forward(link: &Arc<Link>, agent: &TcpStream, coordinator: &TcpStream) -> io::Result<()> {
    for (from, to, towards_agent) in [(agent, coordinator, false), (coordinator, agent, true)] {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        // A read returns often enough to notice a break.
        from.set_read_timeout(Some(PAUSE))?;
        let link = Arc::clone(link);
        std::thread::spawn(move || carry(&link, from, to, towards_agent));
    }
    Ok(())
}

fn carry(link: &Link, mut from: TcpStream, mut to: TcpStream, towards_agent: bool) {
    let breaks = link.breaks.load(Ordering::SeqCst);
    let mut buffer = [0; 16 << 10];
    let broken = || link.breaks.load(Ordering::SeqCst) != breaks;
    while !broken() {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if is_timeout(&error) => continue,
            Err(_) => break,
        };
        while link.is_cut(towards_agent) && !broken() {
            std::thread::sleep(PAUSE);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // A partition also holds up the news that the other side has closed.
    while link.is_cut(towards_agent) && !broken() {
        std::thread::sleep(PAUSE);
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn a_cut_delays_and_a_reset_closes() {
        let (mut agent, agent_side) = pair();
        let (coordinator_side, mut coordinator) = pair();
        let link = Arc::new(Link::default());
        forward(&link, &agent_side, &coordinator_side).unwrap();
        let links = Links(BTreeMap::from([("app-1".to_owned(), Arc::clone(&link))]));
        links.cut("app-1", Direction::ToCoordinator, true);
        agent.write_all(b"vote").unwrap();
        coordinator.set_nonblocking(true).unwrap();
        let mut got = [0; 4];
        std::thread::sleep(PAUSE * 5);
        assert!(is_timeout(&coordinator.read(&mut got).unwrap_err()));
        coordinator.set_nonblocking(false).unwrap();
        coordinator.write_all(b"ping").unwrap();
        agent.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ping", "the other direction is open");
        links.cut("app-1", Direction::Both, false);
        coordinator.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"vote", "nothing was dropped");
        links.reset("app-1");
        assert_eq!(agent.read(&mut got).unwrap_or(0), 0);
    }
}
