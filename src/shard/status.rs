//! What the node knows of its replicas: the answer to `Status`.

use std::rc::Rc;

use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_wire::message::{MemberStatus, NodeStatus, ReplicaStatus, Response, Role};

use super::Inner;
use super::mail::{Origin, Scope};
use super::read::decode_reply;
use crate::replica::{Replica, node_of};

impl<E: Env> Inner<E> {
    /// The replicas of all cores of this node.
    pub(super) fn status(self: &Rc<Self>, origin: Origin, scope: Scope, bytes: &[u8]) {
        if scope == Scope::Share || self.config.map.cores() == 1 {
            return self.answer(&origin, &Response::Status(self.own_status()));
        }
        let this = Rc::clone(self);
        let frame = bytes.to_vec();
        self.env.spawn(TaskClass::Foreground, async move {
            let cores = this.cores_here();
            let asked: Vec<_> = cores.iter().map(|core| (*core, &frame[..])).collect();
            let replies = this.ask(&asked, Scope::Share, &origin).await;
            let mut all = this.no_status();
            for reply in &replies {
                match decode_reply(reply) {
                    Ok(Response::Status(status)) => all.replicas.extend(status.replicas),
                    other => return this.pass_on(&origin, other),
                }
            }
            all.replicas.sort_by_key(|replica| replica.partition);
            this.answer(&origin, &Response::Status(all));
        });
    }

    fn no_status(&self) -> NodeStatus {
        NodeStatus {
            here: self.config.cluster.here(),
            wall_ms: self.clock.get().wall_ms,
            replicas: Vec::new(),
        }
    }

    /// The replicas of this core.
    fn own_status(&self) -> NodeStatus {
        NodeStatus {
            replicas: self.own_replicas(),
            ..self.no_status()
        }
    }

    /// What each replica of this core is at.
    pub(super) fn own_replicas(&self) -> Vec<ReplicaStatus> {
        let replicas = self.replicas.borrow();
        let own = replicas.iter().zip(0..).filter_map(|(replica, partition)| {
            let replica = replica.as_ref()?;
            Some(ReplicaStatus {
                partition,
                ..status_of(replica)
            })
        });
        own.collect()
    }
}

/// All of a replica but its partition.
fn status_of(replica: &Replica) -> ReplicaStatus {
    let leads = replica.leads();
    let conf = &replica.membership().conf;
    let member = |(id, stored, alive): (u64, u64, bool)| MemberStatus {
        replica: id,
        // What a follower has heard of others says nothing.
        stored: if leads { stored } else { 0 },
        alive: leads && (alive || id == replica.id()),
        votes: conf.voters.contains(&id) || conf.voters_outgoing.contains(&id),
    };
    let mut members: Vec<MemberStatus> = replica.progress().map(member).collect();
    members.sort_by_key(|member| member.replica);
    ReplicaStatus {
        partition: 0,
        role: match (replica.serves(), leads) {
            (true, _) => Role::Leader,
            (false, true) => Role::Elected,
            (false, false) => Role::Follower,
        },
        leader: node_of(replica.leader()),
        term: replica.term(),
        last: replica.last_index(),
        commit: replica.commit(),
        applied: replica.applied_id().index,
        elections: replica.elections(),
        members,
    }
}
