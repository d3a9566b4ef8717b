//! Sequences: NEXTVAL, CURRVAL, and the LAST_NUMBER that the dictionary shows.

use super::datum::Datum;
use super::errors::{Outcome, ora, stop};
use super::exec::Exec;
use super::privileges;

#[derive(Debug, Clone)]
pub struct Sequence {
    /// INCREMENT BY, never 0.
    pub increment: i128,
    pub minimum: i128,
    pub maximum: i128,
    pub cycle: bool,
    /// CACHE_SIZE, 0 for NOCACHE.
    pub cache: i128,
    pub ordered: bool,
    /// The number that NEXTVAL gives next.
    pub next: i128,
    /// LAST_NUMBER: the first number that is not in the cache; what is set
    /// aside in memory is lost when the instance stops.
    pub last_number: i128,
}

impl Sequence {
    /// A new sequence starting at a number.
    pub fn starting(at: i128) -> Self {
        Self {
            increment: 1,
            minimum: 1,
            maximum: 10_i128.pow(28) - 1,
            cycle: false,
            cache: 20,
            ordered: false,
            next: at,
            last_number: at,
        }
    }

    /// Starts over at a number.
    pub fn restart(&mut self, at: i128) {
        self.next = at;
        self.last_number = at;
    }

    /// Takes the next number; `None` at the end.
    pub fn take(&mut self) -> Option<i128> {
        if self.next > self.maximum || self.next < self.minimum {
            if !self.cycle {
                return None;
            }
            let first = if self.increment > 0 {
                self.minimum
            } else {
                self.maximum
            };
            self.restart(first);
        }
        let number = self.next;
        let spent = if self.increment > 0 {
            number >= self.last_number
        } else {
            number <= self.last_number
        };
        self.next += self.increment;
        if spent {
            self.last_number = number + self.increment * self.cache.max(1);
        }
        Some(number)
    }
}

impl Exec<'_> {
    fn sequence_key(&self, owner: Option<&str>, name: &str) -> Outcome<(String, String)> {
        let key = (owner.unwrap_or(&self.schema).to_owned(), name.to_owned());
        if !self.st.sequences.contains_key(&key) {
            return stop(2289, "sequence does not exist");
        }
        privileges::may_use(
            self.st,
            self.key,
            &key.0,
            &key.1,
            "SELECT",
            "SELECT ANY SEQUENCE",
        )
        .map_err(|_| ora(2289, "sequence does not exist"))?;
        Ok(key)
    }

    pub fn next_value(&mut self, owner: Option<&str>, name: &str) -> Outcome<Datum> {
        let key = self.sequence_key(owner, name)?;
        let Some(number) = self.st.sequences.get_mut(&key).and_then(Sequence::take) else {
            let text = format!(
                "sequence {}.{}.NEXTVAL exceeds MAXVALUE or goes below MINVALUE and cannot be instantiated",
                key.0, key.1
            );
            return stop(8004, text);
        };
        let value = Datum::int(number);
        if let Some(session) = self.st.sessions.get_mut(&self.key) {
            session.currvals.insert(key, value.clone());
        }
        Ok(value)
    }

    pub fn current_value(&mut self, owner: Option<&str>, name: &str) -> Outcome<Datum> {
        let key = self.sequence_key(owner, name)?;
        let known = self
            .st
            .session(self.key)
            .and_then(|s| s.currvals.get(&key).cloned());
        known.ok_or_else(|| {
            let text = format!(
                "sequence {}.CURRVAL is not yet defined in this session",
                key.1
            );
            ora(8002, text).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_number_runs_a_cache_ahead() {
        let mut sequence = Sequence::starting(1);
        assert_eq!(sequence.last_number, 1);
        assert_eq!(sequence.take(), Some(1));
        assert_eq!(sequence.last_number, 21);
        for _ in 2..=20 {
            sequence.take();
        }
        assert_eq!((sequence.take(), sequence.last_number), (Some(21), 41));
    }

    #[test]
    fn a_descending_cycle_starts_over_at_its_maximum() {
        let mut sequence = Sequence {
            increment: -1,
            minimum: 1,
            maximum: 3,
            cycle: true,
            cache: 0,
            ..Sequence::starting(2)
        };
        let taken: Vec<_> = (0..4).map(|_| sequence.take()).collect();
        assert_eq!(taken, [Some(2), Some(1), Some(3), Some(2)]);
    }

    #[test]
    fn without_cycle_it_ends() {
        let mut sequence = Sequence {
            maximum: 2,
            ..Sequence::starting(2)
        };
        assert_eq!((sequence.take(), sequence.take()), (Some(2), None));
    }
}
