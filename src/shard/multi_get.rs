//! Reads of several keys: those of other cores and nodes are asked there, and the answers joined in the
//! order of the keys. If one of them does not lead what it was asked of, or cannot be reached, the keys are
//! asked for again, partition by partition: a request on one partition finds its leader ([`super::forward`]).

use std::rc::Rc;

use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::row::{ReadAt, RowKeyBuf};
use ringbolt_engine::tree::Row;
use ringbolt_wire::codec::ValuesBuilder;
use ringbolt_wire::list::KeysBuf;
use ringbolt_wire::message::{
    ErrorCode, Keys, KeyspaceId, Meta, PartitionId, ReadLevel, ReadOptions, Request, Response,
    Token,
};
use ringbolt_wire::{frame, partition_of};

use super::forward::is_elsewhere;
use super::gather::Target;
use super::input::by_leader;
use super::mail::{Origin, Scope};
use super::read::decode_reply;
use super::reply::{Refusal, meta};
use super::trace::Wait;
use super::{Inner, micros};

/// The value of a key, if there is one.
type Found<'a> = Option<(Meta, &'a [u8])>;
/// Whom to ask for which keys, and of each key of the request whose share it is in.
type Split<T> = (Vec<(T, KeysBuf)>, Vec<usize>);

/// What the cores have answered to their shares of a multi-get.
struct Shares<'a> {
    tokens: Vec<Token>,
    values: Vec<Vec<Found<'a>>>,
}

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
        let by_leader = by_leader(read);
        let by_target = |partition| self.target_of(partition, by_leader);
        let (shares, order) = match self.split(keys, by_target) {
            Ok(split) => split,
            Err(refusal) => return self.refuse(&origin, &refusal),
        };
        let is_here = |(target, _): &(Target, _)| *target == self.target_here();
        if shares.iter().all(is_here) {
            return self.multi_get_here(origin, scope, keyspace, read, keys, bytes);
        }
        let partitions = self.config.map.partitions();
        let mut asked_of = keys.iter().map(|key| partition_of(key, partitions));
        if let Some(one) = asked_of.next()
            && asked_of.all(|partition| partition == one)
        {
            if self.owned(one, origin, bytes)
                && self.serves_here(one, by_leader, &origin, scope, bytes)
            {
                self.multi_get_here(origin, scope, keyspace, read, keys, bytes);
            }
            return;
        }
        let asked = match share_frames(shares, origin.request_id, keyspace, read) {
            Ok(asked) => asked,
            Err(refusal) => return self.refuse(&origin, &refusal),
        };
        // Only where others may have to be asked is the request needed once more.
        let cluster = &self.config.cluster;
        let mut asked_of = keys.iter().map(|key| partition_of(key, partitions));
        let may_be_elsewhere = asked_of.any(|partition| !cluster.holds(partition));
        let kept = may_be_elsewhere.then(|| bytes.to_vec());
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let sent: Vec<_> = asked
                .iter()
                .map(|(target, frame)| (*target, &frame[..]))
                .collect();
            let replies = this.ask(&sent, Scope::Whole, &origin).await;
            let mut origin = origin;
            origin.trace.mark(Wait::Forward, this.now_us());
            match (shares_of(&replies), kept) {
                (Ok(shares), _) => this.merge_values(&origin, &order, shares),
                (Err(Ok(Response::Error(error))), Some(frame)) if is_elsewhere(error.code) => {
                    this.multi_get_by_partition(origin, &frame).await;
                }
                (Err(other), _) => this.pass_on(&origin, other),
            }
        });
    }

    /// Asks for the keys of each partition by themselves, so that each partition finds its leader: see
    /// [`super::forward`].
    async fn multi_get_by_partition(self: &Rc<Self>, mut origin: Origin, frame: &[u8]) {
        let request = frame::open(frame).and_then(|view| Request::decode(&view));
        let Ok(Request::MultiGet {
            keyspace,
            read,
            keys,
        }) = request
        else {
            let message = "the request cannot be read again";
            return self.refuse(&origin, &Refusal::new(ErrorCode::BadRequest, 0, message));
        };
        let asked = self
            .split(&keys, |partition| partition)
            .and_then(|(shares, order)| {
                let asked = share_frames(shares, origin.request_id, keyspace, &read)?;
                Ok((asked, order))
            });
        let (asked, order) = match asked {
            Ok(asked) => asked,
            Err(refusal) => return self.refuse(&origin, &refusal),
        };
        let replies = self
            .ask_each(&asked, &origin, |this, (_, frame), origin| {
                this.execute_frame(origin, Scope::Whole, frame);
            })
            .await;
        origin.trace.mark(Wait::Forward, self.now_us());
        match shares_of(&replies) {
            Ok(shares) => self.merge_values(&origin, &order, shares),
            Err(other) => self.pass_on(&origin, other),
        }
    }

    /// Shares keys out by what each one's partition comes to.
    fn split<T: PartialEq>(
        &self,
        keys: &Keys<'_>,
        of: impl Fn(PartitionId) -> T,
    ) -> Result<Split<T>, Refusal> {
        let mut shares: Vec<(T, KeysBuf)> = Vec::new();
        let mut order = Vec::with_capacity(keys.len());
        for key in keys.iter() {
            let target = of(partition_of(key, self.config.map.partitions()));
            let share = match shares.iter().position(|(known, _)| *known == target) {
                Some(share) => share,
                None => {
                    shares.push((target, KeysBuf::new()));
                    shares.len() - 1
                }
            };
            if shares[share].1.push(key).is_err() {
                let message = "a key is empty or too long";
                return Err(Refusal::new(ErrorCode::BadRequest, 0, message));
            }
            order.push(share);
        }
        Ok((shares, order))
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
    fn merge_values(&self, origin: &Origin, order: &[usize], shares: Shares<'_>) {
        let Shares { tokens, values } = shares;
        let mut shares: Vec<_> = values.into_iter().map(Vec::into_iter).collect();
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

/// Requests for the shares of a multi-get.
fn share_frames<T>(
    shares: Vec<(T, KeysBuf)>,
    request_id: u64,
    keyspace: KeyspaceId,
    read: &ReadOptions<'_>,
) -> Result<Vec<(T, Vec<u8>)>, Refusal> {
    let frame_of = |(target, keys): (T, KeysBuf)| {
        let request = Request::MultiGet {
            keyspace,
            read: *read,
            keys: keys.as_keys(),
        };
        let mut frame = Vec::new();
        match request.encode(request_id, 0, &mut frame) {
            Ok(()) => Ok((target, frame)),
            Err(error) => Err(Refusal::new(
                error.code(),
                error.detail(),
                error.to_string(),
            )),
        }
    };
    shares.into_iter().map(frame_of).collect()
}

/// The values that the cores found. Fails with the first answer that is none.
fn shares_of(replies: &[Vec<u8>]) -> Result<Shares<'_>, Result<Response<'_>, Refusal>> {
    let mut shares = Shares {
        tokens: Vec::new(),
        values: Vec::with_capacity(replies.len()),
    };
    for reply in replies {
        match decode_reply(reply) {
            Ok(Response::Values { tokens, values }) => {
                shares.tokens.extend(tokens);
                shares.values.push(values);
            }
            other => return Err(other),
        }
    }
    Ok(shares)
}
