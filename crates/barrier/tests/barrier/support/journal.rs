//! A journal on a simulated disk, cheap to copy.

use std::sync::Arc;

/// Entries in the order in which they were written.
#[derive(Debug, Clone)]
pub struct Journal<T>(Vec<Arc<T>>);

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> Journal<T> {
    pub fn push(&mut self, entry: T) {
        self.0.push(Arc::new(entry));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn truncate(&mut self, entries: usize) {
        self.0.truncate(entries);
    }
}

impl<T: Clone> IntoIterator for Journal<T> {
    type Item = T;
    type IntoIter = std::iter::Map<std::vec::IntoIter<Arc<T>>, fn(Arc<T>) -> T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(Arc::unwrap_or_clone)
    }
}
