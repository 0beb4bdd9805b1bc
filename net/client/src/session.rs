//! What a client has seen: the highest token of each partition.

use std::sync::{Mutex, PoisonError};

use ringbolt_wire::list::TokensBuf;
use ringbolt_wire::message::Token;

/// Bounded by the number of partitions a token can name.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// (term, index) by partition; (0, 0) for none.
    seen: Mutex<Vec<(u64, u64)>>,
}

impl Session {
    fn with<R>(&self, f: impl FnOnce(&mut Vec<(u64, u64)>) -> R) -> R {
        f(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn see(&self, token: Token) {
        self.see_all([token]);
    }

    pub(crate) fn see_all(&self, tokens: impl IntoIterator<Item = Token>) {
        self.with(|seen| {
            for token in tokens {
                let at = usize::from(token.partition);
                if at >= seen.len() {
                    seen.resize(at + 1, (0, 0));
                }
                seen[at] = seen[at].max((token.term, token.index));
            }
        });
    }

    pub(crate) fn of(&self, partition: u16) -> Option<Token> {
        self.with(|seen| {
            let &(term, index) = seen.get(usize::from(partition))?;
            token(partition, term, index)
        })
    }

    pub(crate) fn of_all(&self, partitions: impl IntoIterator<Item = u16>) -> TokensBuf {
        partitions
            .into_iter()
            .filter_map(|partition| self.of(partition))
            .collect()
    }

    pub(crate) fn all(&self) -> Vec<Token> {
        self.with(|seen| {
            (0..)
                .zip(&*seen)
                .filter_map(|(partition, &(term, index))| token(partition, term, index))
                .collect()
        })
    }

    pub(crate) fn forget(&self) {
        self.with(Vec::clear);
    }
}

fn token(partition: u16, term: u64, index: u64) -> Option<Token> {
    ((term, index) != (0, 0)).then_some(Token {
        partition,
        term,
        index,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_of_each_partition_is_kept() {
        let session = Session::default();
        let token = |partition, term, index| Token {
            partition,
            term,
            index,
        };
        session.see_all([token(3, 1, 9), token(0, 2, 1), token(3, 1, 4)]);
        assert_eq!(session.all(), [token(0, 2, 1), token(3, 1, 9)]);
        // A later term wins over a higher index.
        session.see(token(3, 2, 1));
        assert_eq!(session.of(3), Some(token(3, 2, 1)));
        assert_eq!(session.of(1), None);
        assert_eq!(session.of(400), None);
        assert_eq!(session.of_all([0, 1, 3]).as_tokens().len(), 2);
        session.forget();
        assert_eq!(session.all(), []);
    }
}
