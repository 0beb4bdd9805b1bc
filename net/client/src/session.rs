//! What a client has seen: the highest token of each partition.
//!
//! As bytes: the form's version (u8, 1), the cluster (u64), and the tokens in wire form, by
//! ascending partition, to the end.

use std::sync::{Mutex, PoisonError};

use ringbolt_wire::list::TokensBuf;
use ringbolt_wire::message::{ErrorCode, Token, Tokens};

use crate::error::Error;

/// The version of the form as bytes.
const FORM: u8 = 1;

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

    pub(crate) fn export(&self, cluster: u64) -> Vec<u8> {
        let mut bytes = vec![FORM];
        bytes.extend_from_slice(&cluster.to_le_bytes());
        for token in self.all() {
            bytes.extend_from_slice(&token.to_wire());
        }
        bytes
    }

    /// Takes an exported session's tokens: all or none.
    pub(crate) fn import(&self, bytes: &[u8], cluster: u64, partitions: u16) -> Result<(), Error> {
        let bad = |what: &str| Error::invalid(ErrorCode::BadRequest, what);
        let no_session = || bad("these are not the bytes of a session");
        let (&[form], rest) = bytes.split_first_chunk().ok_or_else(no_session)?;
        if form != FORM {
            return Err(bad("this session was exported by another version"));
        }
        let (of, tokens) = rest.split_first_chunk().ok_or_else(no_session)?;
        let tokens = Tokens::from_wire(tokens).map_err(|_| no_session())?;
        if u64::from_le_bytes(*of) != cluster {
            return Err(bad("this session is of another cluster"));
        }
        if tokens.iter().any(|token| token.partition >= partitions) {
            return Err(no_session());
        }
        self.see_all(tokens.iter());
        Ok(())
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

    #[test]
    fn a_session_survives_as_bytes() {
        let session = Session::default();
        for partition in [7, 0] {
            session.see(Token {
                partition,
                term: 3,
                index: 9,
            });
        }
        let bytes = session.export(5);
        assert_eq!(bytes.len(), 9 + 2 * 18);
        let other = Session::default();
        other.import(&bytes, 5, 8).unwrap();
        assert_eq!(other.all(), session.all());
        // It goes only forward.
        other.import(&Session::default().export(5), 5, 8).unwrap();
        assert_eq!(other.all(), session.all());

        let fresh = Session::default();
        assert!(fresh.import(&bytes, 6, 8).is_err());
        assert!(fresh.import(&bytes, 5, 4).is_err());
        for length in (0..bytes.len()).filter(|&length| length != 9 && length != 27) {
            assert!(fresh.import(&bytes[..length], 5, 8).is_err(), "{length}");
        }
        let other_form = [&[2], &bytes[1..]].concat();
        assert!(fresh.import(&other_form, 5, 8).is_err());
        assert_eq!(fresh.all(), []);
    }
}
