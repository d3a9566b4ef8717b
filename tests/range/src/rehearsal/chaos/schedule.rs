//! What happens to a run and when: everything follows from one seed.

use crate::range::host_names;
use serde::Serialize;
use std::time::Duration;

/// A cutover of the rehearsal takes about this long. Later strikes meet its end, or a
/// rollback.
const SPAN: Duration = Duration::from_secs(35);

/// Largest number of strikes in one run: an operator who has more trouble than that
/// in half a minute stops.
const STRIKES: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    Cutover,
    Restart,
}

/// The direction in which a link carries nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    ToCoordinator,
    ToAgent,
    Both,
}

/// What happens to a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// SIGKILL, and a start after the strike's duration.
    Kill,
    /// SIGSTOP, and SIGCONT after the duration.
    Stop,
    /// Its link to the coordinator carries nothing for the duration; what was sent
    /// arrives afterwards, as TCP retransmits it.
    Cut(Direction),
    /// Its connection to the coordinator breaks.
    Reset,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Strike {
    /// Milliseconds after the run began.
    pub at_ms: u64,
    /// How long it lasts, milliseconds.
    pub for_ms: u64,
    /// `coordinator`, or the host of an agent.
    pub victim: String,
    pub trouble: Trouble,
}

/// The strikes on one run, by time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schedule {
    pub seed: u64,
    pub subject: Subject,
    pub strikes: Vec<Strike>,
}

impl Schedule {
    /// The schedule of this seed, for a range with that many application hosts.
    #[must_use]
    pub fn of(seed: u64, apps: u8) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let subject = if random.u8(0..5) == 0 {
            Subject::Restart
        } else {
            Subject::Cutover
        };
        let span = match subject {
            Subject::Cutover => SPAN,
            Subject::Restart => SPAN / 4,
        };
        let hosts = host_names(apps);
        let mut strikes: Vec<Strike> = (0..random.usize(1..=STRIKES))
            .map(|_| strike(&mut random, span, &hosts))
            .collect();
        strikes.sort_by_key(|strike| strike.at_ms);
        Self {
            seed,
            subject,
            strikes,
        }
    }
}

fn strike(random: &mut fastrand::Rng, span: Duration, hosts: &[String]) -> Strike {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let of_agent = random.u8(0..3) > 0;
    let host = hosts[random.usize(0..hosts.len())].clone();
    let trouble = match random.u8(0..if of_agent { 6 } else { 3 }) {
        0 | 1 => Trouble::Kill,
        2 => Trouble::Stop,
        3 => Trouble::Cut(Direction::ToCoordinator),
        4 => Trouble::Cut(Direction::ToAgent),
        5 => [Trouble::Cut(Direction::Both), Trouble::Reset][random.usize(0..2)],
        _ => unreachable!("outside of the range that was asked for"),
    };
    // Mostly short, as a restart or a reconnect is; now and then longer than keepalives
    // and promises last.
    let longest = [500, 4_000, 20_000][random.usize(0..3)];
    Strike {
        at_ms: random.u64(0..millis(span)),
        for_ms: random.u64(0..longest),
        victim: if of_agent {
            host
        } else {
            "coordinator".to_owned()
        },
        trouble,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_repeats_its_schedule_and_another_gives_another() {
        assert_eq!(Schedule::of(7, 3), Schedule::of(7, 3));
        assert_ne!(Schedule::of(7, 3).strikes, Schedule::of(8, 3).strikes);
    }

    #[test]
    fn every_daemon_and_every_trouble_has_its_turn() {
        let all: Vec<Strike> = (0..300)
            .flat_map(|seed| Schedule::of(seed, 3).strikes)
            .collect();
        let victims: BTreeSet<&str> = all.iter().map(|strike| strike.victim.as_str()).collect();
        let expected = host_names(3);
        let mut expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
        expected.insert("coordinator");
        assert_eq!(victims, expected);
        let troubles: BTreeSet<String> = all
            .iter()
            .map(|strike| format!("{:?}", strike.trouble))
            .collect();
        assert_eq!(troubles.len(), 6, "{troubles:?}");
        let links = |strike: &&Strike| matches!(strike.trouble, Trouble::Cut(_) | Trouble::Reset);
        let mut of_links = all.iter().filter(links);
        assert!(of_links.all(|strike| strike.victim != "coordinator"));
    }
}
