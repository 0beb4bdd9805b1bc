//! What a client has seen: the highest token of each partition, and which partitions it was told of
//! without a token.
//!
//! An error reply carries no token, and yet tells of data: which version a key has, that its value is
//! no number, that a write is committed. All of that is committed, so a linearizable read that is
//! begun afterwards covers it: until a token has come by such a way ([`asked`]), reads of that partition
//! at level session are made linearizable.
//!
//! A token that was answered `Lost` is kept until the caller has taken note ([`Session::forget_lost`]);
//! then the partition counts as told of, for what stands of what was seen there is committed.
//!
//! As bytes: the form's version (u8, 1), the cluster (u64), and the tokens in wire form, by
//! ascending partition, to the end. A partition that was told of without a token has one of term 0 and index
//! 0, beside its own if it has one: a token that every reader of this form takes, and that means nothing
//! to one that knows of no such partitions.

mod asked;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ringbolt_wire::message::{ErrorCode, Token, Tokens};

pub(crate) use self::asked::Writing;
use crate::error::Error;

/// The version of the form as bytes.
const FORM: u8 = 1;

/// Bounded by the number of partitions a token can name.
#[derive(Debug, Default)]
pub(crate) struct Session {
    inner: Mutex<Inner>,
    /// How often it was told of something without a token: the time by which answers and tellings
    /// are ordered.
    tellings: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// (term, index) by partition; (0, 0) for none.
    seen: Vec<(u64, u64)>,
    /// Partitions that were told of without a token, and which telling was the last.
    told: BTreeMap<u16, u64>,
    /// Tokens that were answered `Lost`, alone or with others.
    lost: BTreeMap<u16, (u64, u64)>,
}

impl Inner {
    /// The highest token of a partition.
    fn seen(&mut self, partition: u16) -> &mut (u64, u64) {
        let at = usize::from(partition);
        if at >= self.seen.len() {
            self.seen.resize(at + 1, (0, 0));
        }
        &mut self.seen[at]
    }

    fn of(&self, partition: u16) -> Option<Token> {
        let &(term, index) = self.seen.get(usize::from(partition))?;
        token(partition, term, index)
    }

    fn all(&self) -> impl Iterator<Item = Token> + '_ {
        (0..)
            .zip(&self.seen)
            .filter_map(|(partition, &(term, index))| token(partition, term, index))
    }
}

impl Session {
    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn see_all(&self, tokens: impl IntoIterator<Item = Token>) {
        self.with(|inner| {
            for token in tokens {
                let seen = inner.seen(token.partition);
                *seen = (*seen).max((token.term, token.index));
            }
        });
    }

    /// Sees tokens of an answer that shows all that was committed when it was asked for, at the time
    /// `since`: what was told of before is then covered. Whether the tokens cover all that the session
    /// had seen too: a write that only the leader has acknowledged need not be committed.
    fn see_proven(&self, tokens: impl IntoIterator<Item = Token>, since: u64) -> bool {
        self.with(|inner| {
            let mut covers = true;
            for token in tokens {
                let seen = inner.seen(token.partition);
                covers &= *seen <= (token.term, token.index);
                *seen = (*seen).max((token.term, token.index));
                if let Some(&told) = inner.told.get(&token.partition)
                    && told <= since
                {
                    inner.told.remove(&token.partition);
                }
            }
            covers
        })
    }

    /// The time now.
    fn time(&self) -> u64 {
        self.tellings.load(Ordering::Acquire)
    }

    /// Something that is committed in these partitions was told of without a token.
    fn tell(&self, partitions: impl IntoIterator<Item = u16>) {
        self.with(|inner| self.tell_in(inner, partitions));
    }

    fn tell_in(&self, inner: &mut Inner, partitions: impl IntoIterator<Item = u16>) {
        let telling = self.tellings.fetch_add(1, Ordering::AcqRel) + 1;
        let told = partitions.into_iter().map(|partition| (partition, telling));
        inner.told.extend(told);
    }

    /// The partitions of which something was told without a token, ascending.
    pub(crate) fn told_of(&self) -> Vec<u16> {
        self.with(|inner| inner.told.keys().copied().collect())
    }

    pub(crate) fn all(&self) -> Vec<Token> {
        self.with(|inner| inner.all().collect())
    }

    pub(crate) fn export(&self, cluster: u64) -> Vec<u8> {
        let mut bytes = vec![FORM];
        bytes.extend_from_slice(&cluster.to_le_bytes());
        let mut tokens = self.with(|inner| {
            let told = inner.told.keys().map(|&partition| Token {
                partition,
                term: 0,
                index: 0,
            });
            told.chain(inner.all()).collect::<Vec<Token>>()
        });
        tokens.sort_by_key(|token| token.partition);
        for token in tokens {
            bytes.extend_from_slice(&token.to_wire());
        }
        bytes
    }

    /// Takes over an exported session: all or nothing.
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
        let told = tokens
            .iter()
            .filter(|token| (token.term, token.index) == (0, 0));
        self.tell(told.map(|token| token.partition));
        self.see_all(tokens.iter());
        Ok(())
    }

    /// One of these tokens was answered `Lost`.
    fn lose(&self, tokens: Tokens<'_>) {
        let lost = tokens
            .iter()
            .map(|token| (token.partition, (token.term, token.index)));
        self.with(|inner| inner.lost.extend(lost));
    }

    /// Forgets the tokens that were answered `Lost`, but for those that newer ones have replaced.
    pub(crate) fn forget_lost(&self) {
        self.with(|inner| {
            let mut lost = std::mem::take(&mut inner.lost);
            lost.retain(|&partition, lost| {
                let seen = inner.seen(partition);
                let is_it = seen == lost;
                if is_it {
                    *seen = (0, 0);
                }
                is_it
            });
            // What was read there before is not lost with it.
            self.tell_in(inner, lost.into_keys());
        });
    }
}

fn token(partition: u16, term: u64, index: u64) -> Option<Token> {
    ((term, index) != (0, 0)).then_some(Token {
        partition,
        term,
        index,
    })
}
