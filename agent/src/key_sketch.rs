//! Which rows differ between two tables, from sketches of fixed size that each
//! side makes of its own rows while it computes the digest.
//!
//! A sketch is an invertible Bloom lookup table: each row is added (exclusive or)
//! to three of its cells; what both sides have in common cancels when one sketch
//! is subtracted from the other, and the rest can be read back as long as few rows
//! differ. Further levels hold a sample of the keys, one in 32 and so on, so that
//! of many differing rows some can still be named.
//!
//! Source: Eppstein, Goodrich, Uyeda, Varghese, "What's the Difference? Efficient
//! Set Reconciliation without Prior Context" (SIGCOMM 2011).

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Cells of each of the three parts of a level. Three times 30 cells give back
/// about 50 rows, which is 25 keys with a row on both sides.
const PART: usize = 30;
const PARTS: usize = 3;
/// Each level has one in 2^5 keys of the level before.
const SAMPLE_BITS: u32 = 5;
/// The last level has one key in 32,768.
const LEVELS: usize = 4;
/// Bytes of a key in a cell: its length and text.
const KEY: usize = 32;
/// Bytes of a row's hash, and of the check of a cell.
const HASH: usize = 8;
const ITEM: usize = KEY + 2 * HASH;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    count: i64,
    sum: [u8; ITEM],
}

impl Cell {
    const EMPTY: Self = Self {
        count: 0,
        sum: [0; ITEM],
    };

    fn add(&mut self, item: &[u8; ITEM], times: i64) {
        self.count = self.count.wrapping_add(times);
        for (sum, byte) in self.sum.iter_mut().zip(item) {
            *sum ^= byte;
        }
    }
}

/// The sketch of a table.
#[derive(Debug, Clone)]
pub struct Sketch {
    levels: Vec<Vec<Cell>>,
}

/// On which side a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Ours,
    Theirs,
    /// On both, with different values.
    Both,
}

/// The keys of differing rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differences {
    pub keys: BTreeMap<String, Side>,
    /// Whether these are all; otherwise a sample.
    pub complete: bool,
}

impl Default for Sketch {
    fn default() -> Self {
        Self {
            levels: vec![vec![Cell::EMPTY; PART * PARTS]; LEVELS],
        }
    }
}

impl Sketch {
    /// Adds a row by its key and the hash of its values.
    pub fn add(&mut self, key: &str, row: &[u8; 32]) {
        let mut item = [0; ITEM];
        item[..KEY].copy_from_slice(&field(key));
        item[KEY..KEY + HASH].copy_from_slice(&row[..HASH]);
        let hash = hash(&item[..KEY + HASH]);
        item[KEY + HASH..].copy_from_slice(&hash[..HASH]);
        let levels = 1 + sampled(&item[..KEY]);
        for level in self.levels.iter_mut().take(levels) {
            add(level, &item, 1);
        }
    }

    /// Adds a row of canonical values, of which `key` are the positions of its key.
    /// Without a key nothing is added.
    pub fn add_row(&mut self, values: &[Option<String>], key: &[usize], row: &[u8; 32]) {
        if key.is_empty() {
            return;
        }
        let texts: Vec<&str> = key
            .iter()
            .filter_map(|at| values.get(*at)?.as_deref())
            .collect();
        self.add(&texts.join(", "), row);
    }

    /// One text for each level that holds rows of a table of so many.
    pub fn texts(&self, rows: u64) -> Vec<String> {
        let holds = |level: usize| level == 0 || rows >> (SAMPLE_BITS * level as u32) > 0;
        let levels = self.levels.iter().enumerate();
        levels
            .filter(|(level, _)| holds(*level))
            .map(|(_, cells)| {
                let bytes: Vec<u8> = cells
                    .iter()
                    .flat_map(|cell| cell.count.to_be_bytes().into_iter().chain(cell.sum))
                    .collect();
                hex::encode(bytes)
            })
            .collect()
    }

    /// Compares with the texts of the other side. `None` where they are no sketch,
    /// or more rows differ than any level can give back.
    pub fn differences(&self, theirs: &[String]) -> Option<Differences> {
        let levels = self.levels.iter().zip(theirs).enumerate();
        for (level, (ours, text)) in levels {
            let mut left = ours.clone();
            for (cell, their) in left.iter_mut().zip(cells(text)?) {
                cell.count = cell.count.wrapping_sub(their.count);
                for (sum, byte) in cell.sum.iter_mut().zip(their.sum) {
                    *sum ^= byte;
                }
            }
            if let Some(keys) = peeled(left).filter(|keys| !keys.is_empty()) {
                return Some(Differences {
                    keys,
                    complete: level == 0,
                });
            }
        }
        None
    }
}

fn cells(text: &str) -> Option<Vec<Cell>> {
    let bytes = hex::decode(text).ok()?;
    let size = 8 + ITEM;
    (bytes.len() == size * PART * PARTS).then_some(())?;
    bytes
        .chunks_exact(size)
        .map(|chunk| {
            Some(Cell {
                count: i64::from_be_bytes(chunk.get(..8)?.try_into().ok()?),
                sum: chunk.get(8..)?.try_into().ok()?,
            })
        })
        .collect()
}

/// The rows that are left in the cells; `None` where they can't be told apart.
fn peeled(mut cells: Vec<Cell>) -> Option<BTreeMap<String, Side>> {
    let mut keys = BTreeMap::new();
    // Each round takes one row out; no level gives back more rows than cells.
    for _ in 0..=cells.len() {
        let Some(pure) = cells.iter().copied().find(is_single) else {
            return cells
                .iter()
                .all(|cell| *cell == Cell::EMPTY)
                .then_some(keys);
        };
        let side = if pure.count > 0 {
            Side::Ours
        } else {
            Side::Theirs
        };
        keys.entry(name(&pure.sum))
            .and_modify(|known| *known = if *known == side { side } else { Side::Both })
            .or_insert(side);
        add(&mut cells, &pure.sum, -pure.count);
    }
    None
}

fn is_single(cell: &Cell) -> bool {
    cell.count.abs() == 1 && hash(&cell.sum[..KEY + HASH])[..HASH] == cell.sum[KEY + HASH..]
}

fn add(level: &mut [Cell], item: &[u8; ITEM], times: i64) {
    let hash = hash(&item[..KEY + HASH]);
    for part in 0..PARTS {
        let at = usize::from(u16::from_be_bytes([
            hash[HASH + 2 * part],
            hash[HASH + 2 * part + 1],
        ]));
        if let Some(cell) = level.get_mut(part * PART + at % PART) {
            cell.add(item, times);
        }
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// In how many levels after the first a key is.
fn sampled(key: &[u8]) -> usize {
    let hash = hash(key);
    let zeros = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]).trailing_zeros();
    (zeros / SAMPLE_BITS) as usize
}

/// Length and text; a long key is shortened and told apart by a part of its hash.
fn field(key: &str) -> [u8; KEY] {
    let text = if key.len() < KEY {
        key.to_owned()
    } else {
        let end = (0..=KEY - 10).rev().find(|at| key.is_char_boundary(*at));
        let digits = hex::encode(&hash(key.as_bytes())[..4]);
        format!("{}~{digits}", &key[..end.unwrap_or(0)])
    };
    let mut field = [0; KEY];
    // At most KEY - 1 bytes, so the length fits.
    field[0] = text.len() as u8;
    field[1..=text.len()].copy_from_slice(text.as_bytes());
    field
}

fn name(item: &[u8; ITEM]) -> String {
    let length = usize::from(item[0]).min(KEY - 1);
    String::from_utf8_lossy(&item[1..=length]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(rows: impl IntoIterator<Item = (u32, u32)>) -> (Sketch, u64) {
        let (mut sketch, mut count) = (Sketch::default(), 0);
        for (key, value) in rows {
            sketch.add(&key.to_string(), &hash(&value.to_be_bytes()));
            count += 1;
        }
        (sketch, count)
    }

    fn compared(
        ours: impl IntoIterator<Item = (u32, u32)>,
        theirs: impl IntoIterator<Item = (u32, u32)>,
    ) -> Option<Differences> {
        let (theirs, rows) = sketch(theirs);
        sketch(ours).0.differences(&theirs.texts(rows))
    }

    #[test]
    fn few_differences_are_all_named_with_their_side() {
        let theirs = (0..3000).filter(|key| *key != 8).map(|key| (key, 0));
        let ours = (0..3000)
            .filter(|key| *key != 9)
            .map(|key| (key, u32::from(key == 7)));
        let found = compared(ours, theirs).unwrap();
        assert!(found.complete);
        let expected = [("7", Side::Both), ("8", Side::Ours), ("9", Side::Theirs)];
        assert_eq!(
            found.keys,
            expected.map(|(key, side)| (key.to_owned(), side)).into()
        );
    }

    #[test]
    fn of_many_differences_a_sample_is_named() {
        let found = compared((0..3000).map(|key| (key, 1)), (0..3000).map(|key| (key, 2))).unwrap();
        assert!(!found.complete);
        assert!(found.keys.values().all(|side| *side == Side::Both));
        assert!(!found.keys.is_empty() && found.keys.len() <= PART * PARTS);
    }

    #[test]
    fn equal_tables_and_foreign_texts_name_nothing() {
        let rows = || (0..100).map(|key| (key, key));
        assert_eq!(compared(rows(), rows()), None);
        assert_eq!(sketch(rows()).0.differences(&["00".to_owned()]), None);
    }

    #[test]
    fn long_keys_are_shortened_and_stay_apart() {
        let (a, b) = ("é".repeat(40), format!("{}x", "é".repeat(40)));
        assert_ne!(field(&a), field(&b));
        assert!(usize::from(field(&a)[0]) < KEY);
    }
}
