//! A hash by which an exploration recognises a state that it has seen.

use super::Sim;
use super::journal::Journal;
use lockstep_barrier::{coordinator, participant};
use std::hash::{Hash, Hasher};

/// Two independent 64-bit hashes. With 10⁸ states, the probability that two of them
/// have the same fingerprint is below 10⁻²².
#[derive(Debug, Clone, Copy)]
pub struct Mixer(u64, u64);

impl Mixer {
    pub fn new() -> Self {
        Self(0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344)
    }

    pub fn fingerprint(self) -> u128 {
        (u128::from(self.0) << 64) | u128::from(self.1)
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ self.1
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 29;
        self.1 = (self.1.rotate_left(23) ^ number).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
        self.1 ^= self.1 >> 31;
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

impl Sim {
    pub fn fingerprint(&self) -> u128 {
        self.mixed().fingerprint()
    }

    /// A hasher that has hashed this state; a budget is added to it.
    pub fn mixed(&self) -> Mixer {
        let mut mixer = Mixer::new();
        self.hash_into(&mut mixer);
        mixer
    }

    /// Everything on which the future depends. A process that is down is what its
    /// journal folds to.
    fn hash_into(&self, hasher: &mut impl Hasher) {
        self.now.hash(hasher);
        (self.term, self.salt, self.take_over).hash(hasher);
        match &self.run {
            Some(run) => run.hash(hasher),
            None => folded(&self.disk).hash(hasher),
        }
        for (name, agent) in &self.agents {
            match &agent.participant {
                Some(participant) => participant.hash(hasher),
                None => participant::State::fold(agent.disk.clone())
                    .expect("its own journal")
                    .hash(hasher),
            }
            (agent.boots, agent.losses, agent.connected).hash(hasher);
            (&agent.host, &agent.running, &agent.chores).hash(hasher);
            (&agent.refuses, &agent.breach).hash(hasher);
            (&self.orders[name], &self.replies[name]).hash(hasher);
        }
        if let Some(other) = &self.other {
            other.hash_into(hasher);
        }
        self.world.hash(hasher);
    }
}

fn folded(disk: &Journal<coordinator::Entry>) -> Option<coordinator::State> {
    (!disk.is_empty()).then(|| coordinator::State::fold(disk.clone()).expect("its own journal"))
}
