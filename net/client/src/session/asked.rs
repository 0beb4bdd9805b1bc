//! What is asked on behalf of a session, and what the answer, or its failure, says to it.

use ringbolt_wire::list::TokensBuf;
use ringbolt_wire::message::{Ack, ErrorCode, ReadLevel, ReadOptions, Token};

use super::Session;
use crate::error::Error;

/// A read that is about to be sent.
pub(crate) struct Reading<'a> {
    session: &'a Session,
    /// With which it is sent.
    level: ReadLevel,
    /// Whether it was asked for at level session, and is linearizable in its stead.
    stands_in: bool,
    tokens: TokensBuf,
    since: u64,
}

/// A write that is about to be sent, of one partition.
pub(crate) struct Writing<'a> {
    session: &'a Session,
    partition: u16,
    /// Whether its token comes from a quorum, and so after all that was committed before.
    proves: bool,
    since: u64,
}

impl Session {
    /// Begins a read of these partitions at the level that its caller wants.
    pub(crate) fn read(
        &self,
        wanted: ReadLevel,
        partitions: impl IntoIterator<Item = u16, IntoIter: Clone>,
    ) -> Reading<'_> {
        let mut reading = Reading {
            session: self,
            level: wanted,
            stands_in: false,
            tokens: TokensBuf::new(),
            since: self.time(),
        };
        if wanted == ReadLevel::Session {
            let partitions = partitions.into_iter();
            self.with(|inner| {
                let mut told = inner.told.keys();
                let is_told = |told: &u16| partitions.clone().any(|partition| partition == *told);
                reading.stands_in = told.any(is_told);
                if reading.stands_in {
                    reading.level = ReadLevel::Linearizable;
                } else {
                    reading.tokens = partitions.filter_map(|p| inner.of(p)).collect();
                }
            });
        }
        reading
    }

    /// Begins a write of this partition.
    pub(crate) fn write(&self, ack: Ack, partition: u16) -> Writing<'_> {
        Writing {
            session: self,
            partition,
            proves: ack != Ack::Leader,
            since: self.time(),
        }
    }
}

impl Reading<'_> {
    /// How it is sent.
    pub(crate) fn options(&self) -> ReadOptions<'_> {
        ReadOptions {
            level: self.level,
            tokens: self.tokens.as_tokens(),
        }
    }

    /// It was answered, with these tokens. `false`: the answer does not show all that the session has
    /// seen, and the read is to be begun again.
    pub(crate) fn answered(&self, tokens: impl IntoIterator<Item = Token>) -> bool {
        match self.level {
            ReadLevel::Linearizable | ReadLevel::Strict => {
                self.session.see_proven(tokens, self.since) || !self.stands_in
            }
            ReadLevel::Session | ReadLevel::Stale { .. } => {
                self.session.see_all(tokens);
                true
            }
        }
    }

    /// It failed.
    pub(crate) fn failed(&self, error: Error) -> Error {
        if matches!(error, Error::Lost(_)) {
            self.session.lose(self.tokens.as_tokens());
        }
        error
    }
}

impl Writing<'_> {
    /// It was answered, with this token.
    pub(crate) fn answered(&self, token: Token) {
        if self.proves {
            self.session.see_proven([token], self.since);
        } else {
            self.session.see_all([token]);
        }
    }

    /// It failed: what that tells of the partition has no token.
    pub(crate) fn failed(&self, error: Error) -> Error {
        let tells = match &error {
            Error::ConditionFailed { .. } | Error::CommittedNotAll => true,
            Error::Invalid(reason) => reason.code == ErrorCode::NotANumber,
            _ => false,
        };
        if tells {
            self.session.tell([self.partition]);
        }
        error
    }
}
