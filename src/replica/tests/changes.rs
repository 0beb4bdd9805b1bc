//! Changes of the members while replicas are restarted, or written to.

use ringbolt_engine::log::{HardState as LoggedVote, RecoveredEntry};

use super::*;

/// The replica as its log has it after a restart: nothing of it is in tables, and the last change of the
/// members is remembered.
fn restarted(group: &Group, id: u64) -> Replica {
    let replica = &group.replicas[&id];
    let applied = &group.applied[&id];
    let tail = applied.iter().map(|(id, payload)| RecoveredEntry {
        id: *id,
        payload: payload.clone(),
    });
    let found = RecoveredReplica {
        partition: PARTITION,
        hard: LoggedVote {
            replica_id: id,
            term: replica.term(),
            vote: id,
            commit: 0,
        },
        truncated: LogId::default(),
        last: replica.applied_id(),
        time_ms: 0,
        membership: replica.membership().encode(),
        applied: LogId::default(),
        tail: tail.collect(),
    };
    Replica::new(&start(id, &[], None), Some(&found), 0).unwrap()
}

#[test]
fn a_new_member_gets_a_snapshot_from_a_leader_that_was_restarted() {
    let voters = [1, 2, 3].map(|node| replica_id(node, 1));
    let mut group = Group::new(&voters);
    group.ticks(30);
    let leader = group.leader().unwrap();
    group.put(leader, b"before");
    group.settle();
    let added = replica_id(4, 1);
    let change = Change {
        steps: vec![Step::AddLearner(added)],
    };
    let replica = group.replicas.get_mut(&leader).unwrap();
    assert!(replica.propose_change(&change, 9).is_some());
    group.ticks(5);
    for id in voters {
        let again = restarted(&group, id);
        group.replicas.insert(id, again);
    }
    let blank = Replica::new(&start(added, &[], None), None, 0).unwrap();
    group.replicas.insert(added, blank);
    group.ticks(35);
    let leader = group.leader().unwrap();
    let applied = group.replicas[&leader].applied_id();
    assert_eq!(applied.index, 4);
    assert_eq!(group.replicas[&added].applied_id(), applied);
}

#[test]
fn what_is_written_while_a_joint_change_is_applied_keeps_its_place() {
    let voters = [1, 2, 3].map(|node| replica_id(node, 1));
    let mut group = Group::new(&voters);
    group.ticks(30);
    let leader = group.leader().unwrap();
    let added = replica_id(4, 1);
    let learn = Change {
        steps: vec![Step::AddLearner(added)],
    };
    let replica = group.replicas.get_mut(&leader).unwrap();
    assert!(replica.propose_change(&learn, 9).is_some());
    let blank = Replica::new(&start(added, &[], None), None, 0).unwrap();
    group.replicas.insert(added, blank);
    group.ticks(35);
    let leader = group.leader().unwrap();
    let gone = voters.into_iter().find(|id| *id != leader).unwrap();
    let swap = Change {
        steps: vec![Step::AddVoter(added), Step::Remove(gone)],
    };
    let replica = group.replicas.get_mut(&leader).unwrap();
    let joint = replica.propose_change(&swap, 9).unwrap();
    // What follows the joint membership's entry at once: raft appends the end of it in just this moment.
    group.meanwhile.push_back(b"meanwhile".to_vec());
    group.ticks(5);
    assert!(group.meanwhile.is_empty());
    let written = group.applied[&leader].iter().find_map(|(at, payload)| {
        let (head, mut effects) = decode_payload_trusted(PARTITION, *at, payload)?;
        let is_put = matches!(effects.next(), Some(Effect::Put { .. }));
        (is_put && at.index > joint.index).then_some((*at, head.id))
    });
    let (at, numbered) = written.expect("the write is applied");
    assert_eq!(at, numbered);
    assert_eq!(at.index, joint.index + 1);
}
