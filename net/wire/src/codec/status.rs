use crate::WireError;
use crate::message::{MemberStatus, NodeStatus, ReplicaStatus, Role};
use crate::read::Reader;

/// Shortest replica in a status, in bytes: all but its members.
const REPLICA_BYTES_MIN: usize = 50;
/// Length of a member, in bytes.
const MEMBER_BYTES: usize = 17;
/// What a member's flags say.
const ALIVE: u8 = 1;
const VOTES: u8 = 2;

pub(super) fn write_status(out: &mut Vec<u8>, status: &NodeStatus) {
    out.extend_from_slice(&status.here.to_le_bytes());
    out.extend_from_slice(&status.wall_ms.to_le_bytes());
    out.extend_from_slice(&(status.replicas.len() as u32).to_le_bytes());
    for replica in &status.replicas {
        out.extend_from_slice(&replica.partition.to_le_bytes());
        out.push(match replica.role {
            Role::Follower => 0,
            Role::Elected => 1,
            Role::Leader => 2,
        });
        out.push(0);
        out.extend_from_slice(&replica.leader.to_le_bytes());
        for number in [
            replica.term,
            replica.last,
            replica.commit,
            replica.applied,
            replica.elections,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&(replica.members.len() as u16).to_le_bytes());
        for member in &replica.members {
            out.extend_from_slice(&member.replica.to_le_bytes());
            out.extend_from_slice(&member.stored.to_le_bytes());
            let alive = if member.alive { ALIVE } else { 0 };
            out.push(alive | if member.votes { VOTES } else { 0 });
        }
    }
}

pub(super) fn read_status(body: &mut Reader<'_>) -> Result<NodeStatus, WireError> {
    let here = body.u32()?;
    let wall_ms = body.u64()?;
    let count = body.count(REPLICA_BYTES_MIN)?;
    let mut replicas = Vec::with_capacity(count);
    for _ in 0..count {
        replicas.push(read_replica(body)?);
    }
    Ok(NodeStatus {
        here,
        wall_ms,
        replicas,
    })
}

fn read_replica(body: &mut Reader<'_>) -> Result<ReplicaStatus, WireError> {
    let partition = body.u16()?;
    let role = match body.u8()? {
        0 => Role::Follower,
        1 => Role::Elected,
        2 => Role::Leader,
        _ => {
            return Err(WireError::Malformed {
                what: "a replica's role is not known",
            });
        }
    };
    body.reserved::<1>()?;
    let mut replica = ReplicaStatus {
        partition,
        role,
        leader: body.u32()?,
        term: body.u64()?,
        last: body.u64()?,
        commit: body.u64()?,
        applied: body.u64()?,
        elections: body.u64()?,
        members: Vec::new(),
    };
    let count = usize::from(body.u16()?);
    body.check_count(count, MEMBER_BYTES)?;
    replica.members.reserve_exact(count);
    for _ in 0..count {
        let (id, stored, flags) = (body.u64()?, body.u64()?, body.u8()?);
        if flags & !(ALIVE | VOTES) != 0 {
            return Err(WireError::Malformed {
                what: "a member has unknown flags",
            });
        }
        replica.members.push(MemberStatus {
            replica: id,
            stored,
            alive: flags & ALIVE != 0,
            votes: flags & VOTES != 0,
        });
    }
    Ok(replica)
}
