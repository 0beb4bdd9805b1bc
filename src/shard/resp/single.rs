//! Commands on one key: each is one request, and mostly answered or proposed at once.

use std::rc::Rc;

use ringbolt_engine::env::Env;
use ringbolt_wire::list::check_key;
use ringbolt_wire::message::{
    Condition, KeyspaceId, PartitionId, ReadOptions, Request, Ttl, WriteOp, WriteOptions,
};
use ringbolt_wire::partition_of;

use super::super::Inner;
use super::super::counters::add;
use super::super::mail::Scope;
use super::super::read::Glance;
use super::super::reply::meta;
use super::super::trace::{Op, Outcome};
use super::input::Taken;
use super::{Asked, give_back};
use crate::resp::ClusterMode;
use crate::resp::cluster::Cluster;
use crate::resp::command::{Look, WriteWant};
use crate::resp::connection::{Keys, Touches, Want};
use crate::resp::{render, reply};

impl<E: Env> Inner<E> {
    pub(super) fn look(self: &Rc<Self>, asked: &Asked, key: &[u8], look: Look) -> Taken {
        let mut hash = None;
        if !self.is_free(asked.key) {
            let touches = Touches::read(Keys::One(self.hash(asked.keyspace, key)));
            if self.must_wait(asked.key, &touches) {
                return Taken::MustWait;
            }
            hash = Some(touches);
        }
        if check_key(key).is_err() {
            // No record has such a key.
            self.say(asked.key, |out| render::absent(out, look, asked.version));
            return Taken::Yes;
        }
        let partition = partition_of(key, self.config.map.partitions());
        if self.is_moved(asked, key, partition) || self.look_at_once(asked, partition, key, look) {
            return Taken::Yes;
        }
        let touches =
            hash.unwrap_or_else(|| Touches::read(Keys::One(self.hash(asked.keyspace, key))));
        let number = self.expect(asked, Want::Look(look), touches, 1);
        let (keyspace, read) = (asked.keyspace, ReadOptions::default());
        let request = if render::needs_value(look) {
            Request::Get {
                keyspace,
                read,
                key,
            }
        } else {
            Request::Stat {
                keyspace,
                read,
                key,
            }
        };
        let origin = self.origin_of(asked, number, asked.len, Op::of_kind(request.kind() as u8));
        self.send_request(&request, Scope::Whole, origin);
        Taken::Yes
    }

    /// Answers from memory, if this core leads the key's partition and knows that it does.
    fn look_at_once(&self, asked: &Asked, partition: PartitionId, key: &[u8], look: Look) -> bool {
        if !self.leads_here(partition) {
            return false;
        }
        let wall_ms = self.clock.get().wall_ms;
        let told = self.peek(asked.keyspace, partition, key, |found| {
            self.say(asked.key, |out| match found {
                Some((row, value)) => {
                    let (meta, length) = (meta(row), value.len() as u64);
                    render::present(out, look, &meta, length, value, wall_ms);
                }
                None => render::absent(out, look, asked.version),
            });
        });
        if told {
            add(&self.counters.gets_total, 1);
            self.touch_key(partition, asked.keyspace, key, false);
            let trace = self.account.begin(Op::Get);
            self.account.answered(&trace, Outcome::Ok, asked.len as u32);
        }
        told
    }

    /// Tells what is in memory of a key, or that it is absent. `false` if that cannot be said at
    /// once.
    pub(super) fn peek(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        key: &[u8],
        tell: impl FnOnce(Option<(&ringbolt_engine::row::RowMeta, &[u8])>),
    ) -> bool {
        let level = ReadOptions::default().level;
        let Ok((seen, at)) = self.view(partition, keyspace, level) else {
            return false;
        };
        let committed = self.with_replica(partition, |replica| replica.commit());
        if committed.is_none_or(|committed| committed > seen.index) {
            return false;
        }
        let mut tell = Some(tell);
        let glance = self.glance((partition, keyspace, level), key, at, |row, value| {
            if let Some(tell) = tell.take() {
                tell(Some((row, value)));
            }
        });
        match glance {
            Glance::Told => true,
            Glance::Absent => {
                if let Some(tell) = tell {
                    tell(None);
                }
                true
            }
            Glance::Expiring | Glance::NeedsDisk(_) | Glance::Unproven => false,
        }
    }

    pub(super) fn write_one(
        self: &Rc<Self>,
        asked: &Asked,
        op: &WriteOp<'_>,
        want: WriteWant,
    ) -> Taken {
        let key = op.key();
        let looks = looks(op);
        let keys = Keys::One(self.hash(asked.keyspace, key));
        let touches = Touches::write(keys, !looks);
        if self.must_wait(asked.key, &touches) {
            return Taken::MustWait;
        }
        if check_key(key).is_err() && matches!(op, WriteOp::Delete { .. } | WriteOp::Touch { .. }) {
            self.say(asked.key, |out| reply::integer(out, 0));
            return Taken::Yes;
        }
        let partition = partition_of(key, self.config.map.partitions());
        if self.is_moved(asked, key, partition) {
            return Taken::Yes;
        }
        let number = self.expect(asked, Want::Write(want), touches, 1);
        if self.put_part(asked, number, partition, op, asked.len) && looks {
            self.with_connection(asked.key, |connection, _| connection.set_ordered(number));
        }
        Taken::Yes
    }

    /// Asks for one write of a command. `true` if it is decided already.
    pub(super) fn put_part(
        self: &Rc<Self>,
        asked: &Asked,
        number: u64,
        partition: PartitionId,
        op: &WriteOp<'_>,
        cost: usize,
    ) -> bool {
        let origin = self.origin_of(asked, number, cost, Op::Put);
        let options = WriteOptions::default();
        let request = Request::Write {
            keyspace: asked.keyspace,
            options,
            op: *op,
        };
        if !self.leads_here(partition) || check_key(op.key()).is_err() {
            self.send_request(&request, Scope::Whole, origin);
            return false;
        }
        self.touch_key(partition, asked.keyspace, op.key(), true);
        if !looks(op) {
            return self.write(origin, partition, asked.keyspace, &options, op, &[]);
        }
        // It may have to be decided once more, after a look at the disk.
        let mut frame = self.resp.request.take();
        let decided = match request.encode(number, 0, &mut frame) {
            Ok(()) => self.write(origin, partition, asked.keyspace, &options, op, &frame),
            Err(error) => {
                self.fail(&origin, error.code(), 0, error.detail(), &error.to_string());
                true
            }
        };
        give_back(&self.resp.request, frame);
        decided
    }

    /// Whether this core serves as the partition's leader.
    pub(super) fn leads_here(&self, partition: PartitionId) -> bool {
        self.config.map.core_of(partition) == self.config.core
            && self.with_replica(partition, |replica| replica.serves()) == Some(true)
    }

    /// Tells a client that knows clusters that another node leads the key's partition, if so.
    fn is_moved(&self, asked: &Asked, key: &[u8], partition: PartitionId) -> bool {
        match self.moved(key, partition) {
            Some(text) => {
                self.say_error(asked.key, &text);
                true
            }
            None => false,
        }
    }

    /// Where a client that knows clusters is sent for a key that another node leads.
    pub(super) fn moved(&self, key: &[u8], partition: PartitionId) -> Option<String> {
        if self.resp.options.mode == ClusterMode::Forward {
            return None;
        }
        let leader = self.config.cluster.leader(partition);
        if leader == self.config.cluster.here() {
            return None;
        }
        self.resp_cluster().moved(key, leader)
    }

    pub(super) fn resp_cluster(&self) -> Cluster<'_> {
        Cluster {
            view: &self.config.cluster,
            options: &self.resp.options,
            partitions: self.config.map.partitions(),
        }
    }
}

/// Whether a write is decided by what is there.
fn looks(op: &WriteOp<'_>) -> bool {
    match op {
        WriteOp::Put { ttl, condition, .. } => *ttl == Ttl::Keep || *condition != Condition::None,
        WriteOp::Delete { condition, .. } => *condition != Condition::None,
        WriteOp::Increment { .. } | WriteOp::Touch { .. } => true,
    }
}
