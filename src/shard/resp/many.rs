//! Commands on many keys: a request for each key, or for each partition, all under way at once.

use std::rc::Rc;

use ahash::AHashSet;
use ringbolt_engine::env::Env;
use ringbolt_wire::list::{KeysBuf, WriteOpsBuf, check_key};
use ringbolt_wire::message::{
    Condition, PartitionId, ReadOptions, Request, Ttl, WriteOp, WriteOptions,
};
use ringbolt_wire::partition_of;

use super::super::Inner;
use super::super::mail::Scope;
use super::super::trace::Op;
use super::Asked;
use super::input::Taken;
use crate::resp::ClusterMode;
use crate::resp::connection::{Keys, Touches, Want};
use crate::resp::reply;

impl<E: Env> Inner<E> {
    fn hashes(&self, asked: &Asked, keys: &[&[u8]], step: usize) -> Keys {
        let keys = keys.iter().step_by(step);
        Keys::Many(keys.map(|key| self.hash(asked.keyspace, key)).collect())
    }

    /// Tells a client that knows clusters that another node leads all keys, if so. Keys of several nodes
    /// are a matter of this node's: it asks the others.
    fn all_moved(&self, asked: &Asked, keys: &[&[u8]], step: usize) -> bool {
        if self.resp.options.mode == ClusterMode::Forward {
            return false;
        }
        let partitions = self.config.map.partitions();
        let moved = |key: &[u8]| self.moved(key, partition_of(key, partitions));
        let leader = |key: &[u8]| self.config.cluster.leader(partition_of(key, partitions));
        let Some(first) = keys.first() else {
            return false;
        };
        let same = keys
            .iter()
            .step_by(step)
            .all(|key| leader(key) == leader(first));
        match moved(first).filter(|_| same) {
            Some(text) => {
                self.say_error(asked.key, &text);
                true
            }
            None => false,
        }
    }

    pub(super) fn delete(self: &Rc<Self>, asked: &Asked, keys: &[&[u8]]) -> Taken {
        let touches = Touches::write(self.hashes(asked, keys, 1), false);
        if self.must_wait(asked.key, &touches) {
            return Taken::MustWait;
        }
        if self.all_moved(asked, keys, 1) {
            return Taken::Yes;
        }
        let storable = |key: &&&[u8]| check_key(key).is_ok();
        let parts = keys.iter().filter(storable).count();
        if parts == 0 {
            self.say(asked.key, |out| reply::integer(out, 0));
            return Taken::Yes;
        }
        let number = self.expect(asked, Want::Sum(0), touches, parts as u32);
        let mut costs = Costs::new(asked.len, parts);
        let mut decided = true;
        for key in keys.iter().filter(storable) {
            let partition = partition_of(key, self.config.map.partitions());
            let op = WriteOp::Delete {
                key,
                condition: Condition::Present,
            };
            decided &= self.put_part(asked, number, partition, &op, costs.next());
        }
        if decided {
            self.with_connection(asked.key, |connection, _| connection.set_ordered(number));
        }
        Taken::Yes
    }

    pub(super) fn exists(self: &Rc<Self>, asked: &Asked, keys: &[&[u8]]) -> Taken {
        let touches = Touches::read(self.hashes(asked, keys, 1));
        if self.must_wait(asked.key, &touches) {
            return Taken::MustWait;
        }
        if self.all_moved(asked, keys, 1) {
            return Taken::Yes;
        }
        let mut sum = 0;
        let mut others = Vec::new();
        for key in keys.iter().filter(|key| check_key(key).is_ok()) {
            let partition = partition_of(key, self.config.map.partitions());
            let here = self.leads_here(partition)
                && self.peek(asked.keyspace, partition, key, |found| {
                    sum += i64::from(found.is_some());
                });
            if !here {
                others.push(key);
            }
        }
        if others.is_empty() {
            self.say(asked.key, |out| reply::integer(out, sum));
            return Taken::Yes;
        }
        let number = self.expect(asked, Want::Sum(sum), touches, others.len() as u32);
        let mut costs = Costs::new(asked.len, others.len());
        for key in others {
            let request = Request::Stat {
                keyspace: asked.keyspace,
                read: ReadOptions::default(),
                key,
            };
            let origin = self.origin_of(asked, number, costs.next(), Op::Stat);
            self.send_request(&request, Scope::Whole, origin);
        }
        Taken::Yes
    }

    pub(super) fn get_many(self: &Rc<Self>, asked: &Asked, keys: &[&[u8]]) -> Taken {
        let touches = Touches::read(self.hashes(asked, keys, 1));
        if self.must_wait(asked.key, &touches) {
            return Taken::MustWait;
        }
        if self.all_moved(asked, keys, 1) {
            return Taken::Yes;
        }
        let mut list = KeysBuf::new();
        if keys.iter().any(|key| list.push(key).is_err()) {
            self.say_error(asked.key, "ERR a key is empty or too long");
            return Taken::Yes;
        }
        let number = self.expect(asked, Want::Values, touches, 1);
        let request = Request::MultiGet {
            keyspace: asked.keyspace,
            read: ReadOptions::default(),
            keys: list.as_keys(),
        };
        let origin = self.origin_of(asked, number, asked.len, Op::MultiGet);
        self.send_request(&request, Scope::Whole, origin);
        Taken::Yes
    }

    pub(super) fn set_many(self: &Rc<Self>, asked: &Asked, pairs: &[&[u8]]) -> Taken {
        let touches = Touches::write(self.hashes(asked, pairs, 2), true);
        if self.must_wait(asked.key, &touches) {
            return Taken::MustWait;
        }
        if self.all_moved(asked, pairs, 2) {
            return Taken::Yes;
        }
        // Of a key that occurs twice the last value counts, and a batch has a key once.
        let mut seen = AHashSet::with_capacity(pairs.len() / 2);
        let mut groups: Vec<(PartitionId, WriteOpsBuf)> = Vec::new();
        for pair in pairs.rchunks_exact(2) {
            let [key, value] = *pair else {
                continue;
            };
            if !seen.insert(key) {
                continue;
            }
            let partition = partition_of(key, self.config.map.partitions());
            let known = groups.iter().position(|(known, _)| *known == partition);
            let group = known.unwrap_or_else(|| {
                groups.push((partition, WriteOpsBuf::new()));
                groups.len() - 1
            });
            let op = WriteOp::Put {
                key,
                value,
                ttl: Ttl::Default,
                condition: Condition::None,
            };
            if let Err(error) = groups[group].1.push(&op) {
                self.say_error(asked.key, &format!("ERR {error}"));
                return Taken::Yes;
            }
        }
        let number = self.expect(asked, Want::AllOk, touches, groups.len() as u32);
        let mut costs = Costs::new(asked.len, groups.len());
        for (partition, ops) in &groups {
            let ops = ops.as_ops();
            let origin = self.origin_of(asked, number, costs.next(), Op::Batch);
            let (keyspace, options) = (asked.keyspace, WriteOptions::default());
            if !self.leads_here(*partition) {
                let request = Request::Batch {
                    keyspace,
                    options,
                    ops,
                };
                self.send_request(&request, Scope::Whole, origin);
                continue;
            }
            // Nothing in them needs a look at the disk, after which the frame would be needed.
            match (ops.iter().next(), ops.len()) {
                (Some(op), 1) => {
                    self.write(origin, *partition, keyspace, &options, &op, &[]);
                }
                _ => self.batch(origin, *partition, keyspace, &options, &ops, &[]),
            }
        }
        Taken::Yes
    }

    pub(super) fn flush(self: &Rc<Self>, asked: &Asked, all: bool) -> Taken {
        if self.must_wait(asked.key, &Touches::ALL) {
            return Taken::MustWait;
        }
        let mut keyspaces = vec![asked.keyspace];
        if all {
            let known = self.keyspaces.borrow();
            let names = self.resp.options.databases.iter();
            keyspaces = names
                .filter_map(|name| Some(known.by_name(name)?.id))
                .collect();
        }
        let here = self.config.cluster.here();
        let local = self.resp.options.mode == ClusterMode::Moved;
        let partitions: Vec<PartitionId> = (0..self.config.map.partitions())
            .filter(|&partition| !local || self.config.cluster.leader(partition) == here)
            .collect();
        let parts = keyspaces.len() * partitions.len();
        if parts == 0 {
            self.say(asked.key, |out| out.extend_from_slice(reply::OK));
            return Taken::Yes;
        }
        let number = self.expect(asked, Want::AllOk, Touches::ALL, parts as u32);
        let mut costs = Costs::new(asked.len, parts);
        for &keyspace in &keyspaces {
            for &partition in &partitions {
                let request = Request::Clear {
                    keyspace,
                    partition,
                };
                let origin = self.origin_of(asked, number, costs.next(), Op::Other);
                self.send_request(&request, Scope::Whole, origin);
            }
        }
        Taken::Yes
    }
}

/// Shares a command's bytes out over its parts, so that each gives back its own.
struct Costs {
    each: usize,
    first: usize,
}

impl Costs {
    fn new(bytes: usize, parts: usize) -> Self {
        let each = bytes / parts.max(1);
        Self {
            each,
            first: bytes - each * parts.max(1),
        }
    }

    fn next(&mut self) -> usize {
        self.each + std::mem::take(&mut self.first)
    }
}
