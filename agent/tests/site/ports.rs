//! Ports for the programs of a test.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A free port below the range from which the kernel assigns ports: one from that
/// range may be assigned to some connection before the program binds it. Each test
/// is a process, and processes with close ids draw from separate ports.
pub fn free_port() -> u16 {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    loop {
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        assert!(drawn < 20, "no port is free");
        let port = 10_000 + (std::process::id() % 1_000) * 20 + drawn;
        let port = u16::try_from(port).expect("it is below 30,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
