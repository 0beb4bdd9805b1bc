//! Reads of several keys: those of other cores and nodes are asked there, and the answers joined in the
//! order of the keys.

use std::rc::Rc;

use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::row::{ReadAt, RowKeyBuf};
use ringbolt_engine::tree::Row;
use ringbolt_wire::codec::ValuesBuilder;
use ringbolt_wire::list::KeysBuf;
use ringbolt_wire::message::{
    ErrorCode, Keys, KeyspaceId, PartitionId, ReadLevel, ReadOptions, Request, Response, Token,
};
use ringbolt_wire::partition_of;

use super::gather::Target;
use super::input::by_leader;
use super::mail::{Origin, Scope};
use super::read::decode_reply;
use super::reply::{Refusal, meta};
use super::trace::Wait;
use super::{Inner, micros};

impl<E: Env> Inner<E> {
    /// Answers with the values of the keys that there are, and when each was written.
    pub(super) fn multi_get(
        self: &Rc<Self>,
        origin: Origin,
        scope: Scope,
        keyspace: KeyspaceId,
        read: &ReadOptions<'_>,
        keys: &Keys<'_>,
        bytes: &[u8],
    ) {
        let limit = self.config.limits.batch_ops_max as usize;
        if keys.len() > limit {
            let message = format!("{} keys are over the limit of {limit}", keys.len());
            let refusal = Refusal::new(ErrorCode::TooLarge, limit as u64, message);
            return self.refuse(&origin, &refusal);
        }
        let mut shares: Vec<(Target, KeysBuf)> = Vec::new();
        for key in keys.iter() {
            let target = self.target_of_key(key, read);
            let share = match shares.iter().position(|(known, _)| *known == target) {
                Some(share) => share,
                None => {
                    shares.push((target, KeysBuf::new()));
                    shares.len() - 1
                }
            };
            if shares[share].1.push(key).is_err() {
                let refusal = Refusal::new(ErrorCode::BadRequest, 0, "a key is empty or too long");
                return self.refuse(&origin, &refusal);
            }
        }
        if shares
            .iter()
            .all(|(target, _)| *target == self.target_here())
        {
            return self.multi_get_here(origin, scope, keyspace, read, keys, bytes);
        }
        let mut asked = Vec::with_capacity(shares.len());
        for (target, keys) in &shares {
            let keys = keys.as_keys();
            let request = Request::MultiGet {
                keyspace,
                read: *read,
                keys,
            };
            let mut frame = Vec::new();
            if let Err(error) = request.encode(origin.request_id, 0, &mut frame) {
                return self.fail(&origin, error.code(), 0, error.detail(), &error.to_string());
            }
            asked.push((*target, frame));
        }
        let order: Vec<usize> = keys
            .iter()
            .map(|key| {
                let target = self.target_of_key(key, read);
                let share = asked.iter().position(|(known, _)| *known == target);
                share.unwrap_or_default()
            })
            .collect();
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let asked: Vec<_> = asked
                .iter()
                .map(|(target, frame)| (*target, &frame[..]))
                .collect();
            let replies = this.ask(&asked, Scope::Whole, &origin).await;
            let mut origin = origin;
            origin.trace.mark(Wait::Forward, this.now_us());
            this.merge_values(&origin, &order, &replies);
        });
    }

    /// Reads this core's keys of a multi-get; in the order asked.
    fn multi_get_here(
        self: &Rc<Self>,
        origin: Origin,
        scope: Scope,
        keyspace: KeyspaceId,
        read: &ReadOptions<'_>,
        keys: &Keys<'_>,
        bytes: &[u8],
    ) {
        let mut wanted = Vec::with_capacity(keys.len());
        let mut seen: Vec<Token> = Vec::new();
        let mut behind = Vec::new();
        for key in keys.iter() {
            let partition = partition_of(key, self.config.map.partitions());
            let (token, at) = match self.view(partition, keyspace, read.level) {
                Ok(view) => view,
                Err(refusal) => return self.refuse(&origin, &refusal),
            };
            if !seen.iter().any(|other| other.partition == partition) {
                let index = match self.wanted(&origin, partition, read, token) {
                    Ok(index) => index,
                    Err(refusal) => return self.refuse(&origin, &refusal),
                };
                behind.extend(index.map(|index| (partition, index)));
                seen.push(token);
            }
            self.touch(&origin, partition, keyspace, key, false);
            wanted.push((partition, RowKeyBuf::of(partition, keyspace, key), at));
        }
        if !behind.is_empty() {
            return self.defer(&origin, scope, behind, bytes);
        }
        let this = Rc::clone(self);
        let (frame, level) = (bytes.to_vec(), read.level);
        self.env.spawn(TaskClass::Foreground, async move {
            this.finish_multi_get(origin, scope, (&wanted, level), &seen, &frame)
                .await;
        });
    }

    /// Puts the cores' shares of a multi-get back into the order asked: `order` says of each key
    /// whose share it is in.
    fn merge_values(&self, origin: &Origin, order: &[usize], replies: &[Vec<u8>]) {
        let mut shares = Vec::with_capacity(replies.len());
        let mut tokens = Vec::new();
        for reply in replies {
            match decode_reply(reply) {
                Ok(Response::Values {
                    tokens: seen,
                    values,
                }) => {
                    tokens.extend(seen);
                    shares.push(values.into_iter());
                }
                other => return self.pass_on(origin, other),
            }
        }
        self.reply(origin, |out| {
            let mut values = ValuesBuilder::begin(out, origin.request_id);
            for &share in order {
                match shares.get_mut(share).and_then(Iterator::next).flatten() {
                    Some((meta, value)) => values.push(out, &meta, value),
                    None => values.push_absent(out),
                }
            }
            values.finish(out, tokens);
        });
    }

    fn target_of_key(&self, key: &[u8], read: &ReadOptions<'_>) -> Target {
        let partition = partition_of(key, self.config.map.partitions());
        self.target_of(partition, by_leader(read))
    }

    async fn finish_multi_get(
        &self,
        mut origin: Origin,
        scope: Scope,
        (wanted, level): (&[(PartitionId, RowKeyBuf, ReadAt)], ReadLevel),
        seen: &[Token],
        frame: &[u8],
    ) {
        let tree = self.engine.tree();
        let reads = wanted.iter().map(|(_, key, at)| tree.get(key, *at));
        let rows = futures_util::future::try_join_all(reads).await;
        origin.trace.mark(Wait::Disk, self.now_us());
        let rows: Vec<Option<Row>> = match rows {
            Ok(rows) => rows,
            Err(error) => return self.refuse(&origin, &Refusal::from(error)),
        };
        let proven = self.prove_reads(seen.iter().copied(), level).await;
        let now = self.env.now();
        origin.trace.mark(Wait::Proof, micros(now));
        if let Err(refusal) = proven {
            return self.refuse(&origin, &refusal);
        }
        if now > origin.deadline {
            return self.too_late(&origin);
        }
        let expiring = rows.iter().zip(wanted).find_map(|(row, (partition, ..))| {
            row.as_ref()
                .is_some_and(|row| self.expires_here(*partition, &row.meta))
                .then_some(*partition)
        });
        if let Some(partition) = expiring {
            return self.defer_for_time(&origin, scope, partition, frame);
        }
        let bytes: usize = rows.iter().flatten().map(|row| row.value.len() + 64).sum();
        let limit = self.config.limits.frame_bytes_max();
        if bytes > limit as usize {
            let message = format!("the values exceed a reply of {limit} bytes: ask for fewer keys");
            let refusal = Refusal::new(ErrorCode::TooLarge, u64::from(limit), message);
            return self.refuse(&origin, &refusal);
        }
        self.reply(&origin, |out| {
            let mut values = ValuesBuilder::begin(out, origin.request_id);
            for row in &rows {
                match row {
                    Some(row) => values.push(out, &meta(&row.meta), &row.value),
                    None => values.push_absent(out),
                }
            }
            let seen = seen.iter().map(|token| self.shown(token.partition));
            values.finish(out, seen);
        });
    }
}
