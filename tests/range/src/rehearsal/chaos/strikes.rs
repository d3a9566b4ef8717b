//! Carries out a schedule on a range.

use super::link::Links;
use super::schedule::{Strike, Trouble};
use crate::range::{Error, Range};
use std::time::{Duration, Instant};

/// The strikes of a run that has begun, and their ends, by time.
pub struct Strikes {
    began: Instant,
    /// Those to come, the next one last.
    moments: Vec<Moment>,
}

struct Moment {
    at: Duration,
    strike: Strike,
    ends: bool,
}

/// The role and name by which the range lists a victim.
fn listed(victim: &str) -> (&'static str, &str) {
    if victim == "coordinator" {
        ("coordinator", victim)
    } else {
        ("agent", victim)
    }
}

impl Strikes {
    pub fn new(strikes: &[Strike]) -> Self {
        let moments = strikes.iter().flat_map(|strike| {
            let moment = |at_ms, ends| Moment {
                at: Duration::from_millis(at_ms),
                strike: strike.clone(),
                ends,
            };
            let end = strike.at_ms.saturating_add(strike.for_ms);
            [moment(strike.at_ms, false), moment(end, true)]
        });
        let mut moments: Vec<Moment> = moments.collect();
        moments.sort_by_key(|moment| std::cmp::Reverse(moment.at));
        Self {
            began: Instant::now(),
            moments,
        }
    }

    /// Carries out what is due.
    ///
    /// # Errors
    /// A daemon doesn't come up again.
    pub fn due(&mut self, range: &mut Range, links: &Links) -> Result<(), Error> {
        let now = self.began.elapsed();
        while let Some(moment) = self.moments.pop_if(|moment| moment.at <= now) {
            moment.carry_out(range, links)?;
        }
        Ok(())
    }

    /// Ends what has been begun; what has not is left out.
    ///
    /// # Errors
    /// As [`Strikes::due`].
    pub fn end(&mut self, range: &mut Range, links: &Links) -> Result<(), Error> {
        let mut begins = self.moments.iter().filter(|moment| !moment.ends);
        let not_begun: Vec<Strike> = begins.by_ref().map(|begin| begin.strike.clone()).collect();
        while let Some(moment) = self.moments.pop() {
            if moment.ends && !not_begun.contains(&moment.strike) {
                moment.carry_out(range, links)?;
            }
        }
        Ok(())
    }
}

impl Moment {
    fn carry_out(self, range: &mut Range, links: &Links) -> Result<(), Error> {
        let Self { at, strike, ends } = self;
        let victim = strike.victim.as_str();
        let (role, name) = listed(victim);
        let word = if ends { "over" } else { "struck" };
        println!(
            "  {:>6.1} s {word}: {:?} {victim}",
            at.as_secs_f64(),
            strike.trouble
        );
        match (strike.trouble, ends) {
            (Trouble::Kill, false) => {
                range.kill(role, name);
            }
            (Trouble::Kill, true) => return start_again(range, role, name),
            (Trouble::Stop, ends) => {
                range.signal(role, name, if ends { libc::SIGCONT } else { libc::SIGSTOP });
            }
            (Trouble::Cut(direction), ends) => links.cut(victim, direction, !ends),
            (Trouble::Reset, false) => links.reset(victim),
            (Trouble::Reset, true) => {}
        }
        Ok(())
    }
}

/// Starts the daemon, unless an overlapping strike's end has done so.
fn start_again(range: &mut Range, role: &str, name: &str) -> Result<(), Error> {
    let processes = range.processes();
    let mut listed = processes.iter();
    if listed.any(|process| process.role == role && process.name == name) {
        return Ok(());
    }
    match range.host(name).cloned() {
        Some(host) => range.start_agent(&host),
        None => range.start_coordinator(),
    }
}
