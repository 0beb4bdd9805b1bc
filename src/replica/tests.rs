use super::*;

use std::collections::{BTreeMap, VecDeque};

const PARTITION: PartitionId = 7;

/// Replicas joined by a network that keeps order and can be cut. What is logged is durable when
/// [`Group::settle`] says so.
struct Group {
    replicas: BTreeMap<u64, Replica>,
    applied: BTreeMap<u64, Vec<(LogId, Vec<u8>)>>,
    network: VecDeque<Outgoing>,
    /// Work that is not durable yet.
    unstable: VecDeque<(u64, u64, Vec<Outgoing>)>,
    cut: Vec<u64>,
    now: Duration,
}

fn start(id: u64, voters: &[u64], preferred: Option<u64>) -> Start {
    Start {
        partition: PARTITION,
        id,
        voters: voters.to_vec(),
        preferred,
    }
}

impl Group {
    fn new(voters: &[u64]) -> Self {
        let replicas = voters
            .iter()
            .map(|id| {
                (
                    *id,
                    Replica::new(&start(*id, voters, None), None, 0).unwrap(),
                )
            })
            .collect();
        Self {
            replicas,
            applied: BTreeMap::new(),
            network: VecDeque::new(),
            unstable: VecDeque::new(),
            cut: Vec::new(),
            now: Duration::from_secs(1),
        }
    }

    fn work(&mut self) -> bool {
        let mut worked = false;
        for (id, replica) in &mut self.replicas {
            while let Some(work) = replica.take_work(self.now) {
                worked = true;
                self.network.extend(work.messages);
                self.unstable
                    .push_back((*id, work.number, work.messages_later));
                for entry in &work.committed {
                    let payload = payload_of(PARTITION, entry).into_owned();
                    let at = id_of(entry);
                    let (head, mut effects) =
                        decode_payload_trusted(PARTITION, at, &payload).unwrap();
                    if let Some(Effect::Membership { change }) = effects.next() {
                        replica.change_applied(at, change).unwrap();
                    }
                    replica.applied(&head);
                    self.applied
                        .entry(*id)
                        .or_default()
                        .push((at, payload.clone()));
                }
                replica.applied_all();
            }
        }
        worked
    }

    /// Everything under way becomes durable and arrives.
    fn settle(&mut self) {
        loop {
            let mut worked = self.work();
            while let Some((id, number, messages)) = self.unstable.pop_front() {
                self.replicas.get_mut(&id).unwrap().persisted(number);
                self.network.extend(messages);
                worked = true;
            }
            while let Some(out) = self.network.pop_front() {
                worked = true;
                let (from, to) = (out.message.from, out.message.to);
                if self.cut.contains(&from) || self.cut.contains(&to) {
                    continue;
                }
                if let Some(replica) = self.replicas.get_mut(&to) {
                    replica.step(out.message, out.stamp, out.echo);
                }
            }
            if !worked {
                break;
            }
        }
    }

    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.now += TICK;
            for replica in self.replicas.values_mut() {
                replica.tick();
            }
            self.settle();
        }
    }

    fn leader(&self) -> Option<u64> {
        let mut serving = self
            .replicas
            .iter()
            .filter(|(id, replica)| replica.serves() && !self.cut.contains(id));
        let leader = serving.next().map(|(id, _)| *id);
        assert!(serving.next().is_none(), "two leaders serve");
        leader
    }

    fn put(&mut self, at: u64, value: &[u8]) -> LogId {
        let replica = self.replicas.get_mut(&at).unwrap();
        let head = replica.next_head(0, 0, 5);
        let effect = Effect::Put {
            keyspace: 0,
            key: b"k",
            value,
            expires_ms: 0,
            created_ms: 0,
        };
        let payload = encode_payload(&head, &[effect]).unwrap();
        replica.propose(&head, payload);
        head.id
    }
}

#[test]
fn no_two_voters_stand_for_election_at_once() {
    let mut group = Group::new(&[1, 2, 3]);
    for _ in 0..10 {
        group.cut.clear();
        group.ticks(4 * ELECTION_TICKS_MAX);
        let mut timeouts: Vec<usize> = group
            .replicas
            .values()
            .map(|replica| replica.raft.raft.randomized_election_timeout())
            .collect();
        timeouts.sort_unstable();
        let apart = timeouts.windows(2).map(|pair| pair[1] - pair[0]).min();
        assert!(apart >= Some(2), "{timeouts:?}");
        let leader = group.leader().expect("nothing fails");
        group.cut.push(leader);
        group.ticks(ELECTION_TICKS_MAX);
        let next = group.leader().expect("a quorum is left");
        assert_ne!(next, leader);
    }
}

#[test]
fn one_alone_serves_as_soon_as_its_vote_and_first_entry_are_durable() {
    let mut group = Group::new(&[1]);
    group.replicas.get_mut(&1).unwrap().campaign();
    assert!(!group.replicas[&1].serves());
    group.settle();
    let replica = &group.replicas[&1];
    assert!(replica.serves() && replica.is_alone() && replica.has_lease(Duration::MAX));
    let id = group.put(1, b"v");
    assert_eq!(id.index, 2);
    assert!(
        group.replicas[&1].payload(2).is_some(),
        "a proposal can be looked at"
    );
    group.settle();
    assert_eq!(group.replicas[&1].applied_id(), id);
}

#[test]
fn what_a_quorum_has_stored_is_applied_by_all_and_what_a_cut_off_leader_took_never() {
    let mut group = Group::new(&[1, 2, 3]);
    group.ticks(30);
    let old = group.leader().expect("a leader within 1.5 s");
    let kept = group.put(old, b"kept");
    group.settle();
    group.ticks(2);
    for replica in group.replicas.values() {
        assert_eq!(replica.applied_id(), kept);
    }
    group.cut = vec![old];
    let lost = group.put(old, b"lost");
    group.settle();
    assert_eq!(
        group.replicas[&old].applied_id(),
        kept,
        "no quorum, no commit"
    );
    group.ticks(40);
    assert!(
        !group.replicas[&old].leads(),
        "a leader without a quorum steps down"
    );
    let new = group.leader().expect("the others go on");
    let other = group.put(new, b"other");
    group.settle();
    group.cut.clear();
    group.ticks(40);
    assert!(other.index >= lost.index && other.term > lost.term);
    for replica in group.replicas.values() {
        assert_eq!(replica.applied_id(), group.replicas[&new].applied_id());
    }
    let logs: Vec<_> = group.applied.values().collect();
    assert!(
        logs.windows(2).all(|pair| pair[0] == pair[1]),
        "all applied the same"
    );
    assert!(!logs[0].iter().any(|(id, _)| *id == lost));
}

#[test]
fn the_lease_ends_before_another_can_be_elected() {
    let mut group = Group::new(&[1, 2, 3]);
    group.ticks(30);
    let old = group.leader().unwrap();
    assert!(group.replicas[&old].has_lease(group.now));
    group.cut = vec![old];
    let mut gap = None;
    for _ in 0..40 {
        group.ticks(1);
        let lease = group.replicas[&old].has_lease(group.now);
        if let Some(new) = group.leader() {
            assert!(!lease, "{new} serves while {old} has its lease");
        } else if !lease {
            gap.get_or_insert(group.now);
        }
    }
    assert!(gap.is_some() && group.leader().is_some());
}

#[test]
fn a_transfer_spoils_the_lease_of_its_term() {
    let mut group = Group::new(&[1, 2, 3]);
    group.ticks(30);
    let old = group.leader().unwrap();
    let to = if old == 1 { 2 } else { 1 };
    group.cut = vec![to];
    group.replicas.get_mut(&old).unwrap().transfer(to);
    group.settle();
    assert!(
        !group.replicas[&old].serves(),
        "no proposals while handing over"
    );
    group.ticks(12);
    assert_eq!(group.leader(), Some(old), "given up after a while");
    assert!(!group.replicas[&old].has_lease(group.now));
    group.cut.clear();
    group.ticks(2);
    group.replicas.get_mut(&old).unwrap().transfer(to);
    group.ticks(4);
    assert_eq!(group.leader(), Some(to));
    assert!(group.replicas[&to].has_lease(group.now));
}

#[test]
fn rounds_are_answered_by_a_quorum_only() {
    let mut group = Group::new(&[1, 2, 3]);
    group.ticks(30);
    let leader = group.leader().unwrap();
    let replica = group.replicas.get_mut(&leader).unwrap();
    let round = replica.read_round();
    let work = replica.take_work(Duration::ZERO).unwrap();
    assert!(work.reads.is_empty());
    group.network.extend(work.messages);
    while let Some(out) = group.network.pop_front() {
        let to = group.replicas.get_mut(&out.message.to).unwrap();
        to.step(out.message, out.stamp, out.echo);
        if let Some(work) = to.take_work(Duration::ZERO) {
            to.persisted(work.number);
            group.network.extend(work.messages_later);
            if !work.reads.is_empty() {
                assert_eq!(work.reads[0].0, round);
                return;
            }
        }
    }
    panic!("the round was never answered");
}

#[test]
fn followers_know_how_old_they_are() {
    let mut group = Group::new(&[1, 2, 3]);
    group.ticks(30);
    let leader = group.leader().unwrap();
    let follower = if leader == 1 { 2 } else { 1 };
    let age = group.replicas[&follower].age(group.now);
    assert!(age <= 3 * TICK, "{age:?}");
    group.cut = vec![follower];
    group.ticks(20);
    let age = group.replicas[&follower].age(group.now);
    assert!(age >= 20 * TICK, "{age:?}");
    assert_eq!(group.replicas[&leader].age(group.now), Duration::ZERO);
}

#[test]
fn the_preferred_replica_is_given_the_lead() {
    let voters = [1, 2, 3];
    let mut group = Group::new(&[]);
    for id in voters {
        let replica = Replica::new(&start(id, &voters, Some(3)), None, 0).unwrap();
        group.replicas.insert(id, replica);
    }
    group.cut = vec![3];
    group.ticks(40);
    assert!(matches!(group.leader(), Some(1 | 2)));
    group.cut.clear();
    group.ticks(HANDOVER_TICKS as usize + 20);
    assert_eq!(group.leader(), Some(3));
}

#[test]
fn nonsense_from_a_peer_is_dropped() {
    let mut group = Group::new(&[1, 2, 3]);
    group.ticks(30);
    let leader = group.leader().unwrap();
    let follower = if leader == 1 { 2 } else { 1 };
    let term = group.replicas[&leader].term();
    let message = |kind: MessageType, index, commit| {
        let mut message = Message::default();
        message.set_msg_type(kind);
        message.from = leader;
        message.to = follower;
        message.term = term;
        message.index = index;
        message.commit = commit;
        message
    };
    let mut holes = message(MessageType::MsgAppend, 1, 0);
    let entry = Entry {
        term,
        index: 9,
        ..Entry::default()
    };
    holes.set_entries(vec![entry].into());
    let before = group.replicas[&follower].last_index();
    for message in [
        message(MessageType::MsgHeartbeat, 0, 1 << 40),
        message(MessageType::MsgSnapshot, 0, 0),
        message(MessageType::MsgPropose, 0, 0),
        message(MessageType::MsgHup, 0, 0),
        holes,
    ] {
        let replica = group.replicas.get_mut(&follower).unwrap();
        replica.step(message, Duration::ZERO, Duration::ZERO);
        group.settle();
    }
    assert_eq!(group.replicas[&follower].last_index(), before);
    let mut ahead = message(MessageType::MsgAppendResponse, 1 << 40, 0);
    (ahead.from, ahead.to) = (follower, leader);
    let replica = group.replicas.get_mut(&leader).unwrap();
    replica.step(ahead, Duration::ZERO, Duration::ZERO);
    group.settle();
    assert_eq!(group.leader(), Some(leader));
}

#[test]
fn a_member_is_swapped_through_a_joint_state() {
    let mut group = Group::new(&[1, 2, 3]);
    group.ticks(30);
    let leader = group.leader().unwrap();
    let gone = if leader == 3 { 2 } else { 3 };
    let learn = Change {
        steps: vec![Step::AddLearner(9)],
    };
    let replica = group.replicas.get_mut(&leader).unwrap();
    assert!(replica.propose_change(&learn, 9).is_some());
    group.settle();
    assert_eq!(group.replicas[&leader].membership().conf.learners, [9]);
    let swap = Change {
        steps: vec![Step::AddVoter(9), Step::Remove(gone)],
    };
    let replica = group.replicas.get_mut(&leader).unwrap();
    assert!(replica.propose_change(&swap, 9).is_some());
    group.settle();
    let conf = &group.replicas[&leader].membership().conf;
    // The new member has stored nothing: the joint state needs it and waits.
    assert!(conf.voters.contains(&9) && conf.voters_outgoing.contains(&gone));
    let encoded = group.replicas[&leader].membership().encode();
    assert_eq!(
        Membership::decode(&encoded).as_ref(),
        Some(group.replicas[&leader].membership())
    );
}

#[test]
fn memberships_and_changes_come_back() {
    let change = Change {
        steps: vec![Step::AddVoter(1), Step::AddLearner(2), Step::Remove(3)],
    };
    assert_eq!(Change::decode(&change.encode()), Some(change));
    assert_eq!(Change::decode(&[1, 1]), None);
    assert_eq!(Membership::decode(&[]), None);
    assert!(commits_alone(&[]));
    assert!(commits_alone(&Membership::of_voters(&[5]).encode()));
    assert!(!commits_alone(&Membership::of_voters(&[5, 6, 7]).encode()));
    assert_eq!(node_of(replica_id(3, 4)), 3);
}
