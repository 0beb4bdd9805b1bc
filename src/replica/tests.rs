use std::collections::{BTreeMap, VecDeque};

use ringbolt_engine::entry::Effect;
use ringbolt_engine::log::{decode_payload_trusted, encode_payload};

use super::leadership::HANDOVER_TICKS;
use super::*;

mod changes;
mod sleep;

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
    /// Writes that whoever leads proposes between applying entries and saying so, as clients may.
    meanwhile: VecDeque<Vec<u8>>,
    /// How many messages still arrive; those after are lost.
    arriving: usize,
    now: Duration,
}

fn start(id: u64, voters: &[u64], preferred: Option<u64>) -> Start {
    Start {
        partition: PARTITION,
        id,
        voters: voters.to_vec(),
        preferred,
        kept_bytes: 64 << 10,
        sleep_after: 40,
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
            meanwhile: VecDeque::new(),
            arriving: usize::MAX,
            now: Duration::from_secs(1),
        }
    }

    fn work(&mut self) -> bool {
        let mut worked = false;
        for (id, replica) in &mut self.replicas {
            while let Some(work) = replica.take_work(self.now) {
                worked = true;
                if let (Some(vote), Some(append)) = (&work.vote, &work.append) {
                    // Else a log that ends between them has what they replace for committed.
                    assert!(vote.commit < *append.start(), "{vote:?} {append:?}");
                }
                if let Some((id, membership)) = work.snapshot {
                    replica.installed(id, 0, membership);
                }
                self.network.extend(work.messages);
                self.unstable
                    .push_back((*id, work.number, work.messages_later));
                for entry in &work.committed {
                    let payload = payload_of(PARTITION, entry).into_owned();
                    let at = id_of(entry);
                    let (head, mut effects) =
                        decode_payload_trusted(PARTITION, at, &payload).unwrap();
                    if let Some(Effect::Membership { change }) = effects.next() {
                        if replica.membership().index < at.index {
                            replica.change_members(at, change).unwrap();
                            replica.change_saved();
                        }
                        replica.change_applied(change);
                    }
                    replica.applied(&head);
                    self.applied
                        .entry(*id)
                        .or_default()
                        .push((at, payload.clone()));
                }
                if !work.committed.is_empty() {
                    if replica.serves()
                        && let Some(value) = self.meanwhile.pop_front()
                    {
                        propose_put(replica, &value);
                    }
                    replica.applied_all();
                }
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
            let notes: Vec<SleepNote> = self
                .replicas
                .values_mut()
                .flat_map(Replica::take_notes)
                .collect();
            for note in notes {
                worked = true;
                if !self.cut.contains(&note.from)
                    && !self.cut.contains(&note.to)
                    && let Some(replica) = self.replicas.get_mut(&note.to)
                {
                    replica.note_received(&note);
                }
            }
            while let Some(out) = self.network.pop_front() {
                worked = true;
                let (from, to) = (out.message.from, out.message.to);
                if self.cut.contains(&from) || self.cut.contains(&to) || self.arriving == 0 {
                    continue;
                }
                self.arriving -= 1;
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
            self.pulse();
            self.settle();
        }
    }

    /// Every sleeper's core tells the others.
    fn pulse(&mut self) {
        let told: Vec<(u64, u64)> = self
            .replicas
            .iter()
            .flat_map(|(id, replica)| replica.pulses_to().map(|to| (*id, to)))
            .filter(|(from, to)| !self.cut.contains(from) && !self.cut.contains(to))
            .collect();
        for (from, to) in told {
            if let Some(replica) = self.replicas.get_mut(&to) {
                replica.pulse_of(node_of(from));
            }
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
        propose_put(self.replicas.get_mut(&at).unwrap(), value)
    }
}

fn propose_put(replica: &mut Replica, value: &[u8]) -> LogId {
    let head = replica.next_head(None, 5);
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
fn one_that_was_cut_off_has_moved_nobody_when_it_is_back() {
    let mut group = Group::new(&[1, 2, 3]);
    group.ticks(30);
    let leader = group.leader().unwrap();
    let term = group.replicas[&leader].term();
    let away = if leader == 3 { 2 } else { 3 };
    group.cut = vec![away];
    group.ticks(20 * ELECTION_TICKS_MAX);
    // It stood for election again and again, but asked first.
    assert_eq!(group.replicas[&away].term(), term);
    group.cut.clear();
    group.ticks(2 * ELECTION_TICKS_MAX);
    assert_eq!(group.leader(), Some(leader));
    assert!(
        group
            .replicas
            .values()
            .all(|replica| replica.term() == term)
    );
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

/// Five nodes, of which the last has lost its data and is back with a blank replica; some entries were
/// written. Gives the leader.
fn one_wiped_of_five() -> (Group, u64, [u64; 5]) {
    let voters = [1, 2, 3, 4, 5].map(|node| replica_id(node, 1));
    let mut group = Group::new(&voters);
    group.ticks(30);
    if group.leader() == Some(voters[4]) {
        let replica = group.replicas.get_mut(&voters[4]).unwrap();
        replica.transfer(voters[0]);
        group.ticks(5);
    }
    let leader = group.leader().unwrap();
    group.put(leader, b"before");
    group.settle();
    group.replicas.remove(&voters[4]);
    let again = replica_id(5, 2);
    let blank = Replica::new(&start(again, &[], None), None, 0).unwrap();
    group.replicas.insert(again, blank);
    let mut wanted = voters;
    wanted[4] = again;
    (group, leader, wanted)
}

/// Lets whoever leads change the members, until there is nothing to change.
fn change_members(group: &mut Group, wanted: &[u64]) {
    for _ in 0..200 {
        let leader = group.leader();
        if let Some(leader) = leader {
            let replica = group.replicas.get_mut(&leader).unwrap();
            match replica.next_change(wanted) {
                Some(change) => _ = replica.propose_change(&change, 9),
                None if replica
                    .membership()
                    .conf
                    .voters
                    .iter()
                    .all(|v| wanted.contains(v)) =>
                {
                    break;
                }
                None => {}
            }
        }
        group.ticks(1);
    }
    group.ticks(2);
}

fn is_swapped(group: &Group, wanted: &[u64]) {
    for id in wanted {
        let conf = &group.replicas[id].membership().conf;
        let mut voters = conf.voters.clone();
        voters.sort_unstable();
        assert_eq!(voters, wanted, "as {id:x} sees it");
        assert!(conf.voters_outgoing.is_empty() && conf.learners.is_empty());
    }
}

#[test]
fn a_node_that_lost_its_data_is_swapped_in() {
    let (mut group, leader, wanted) = one_wiped_of_five();
    let again = wanted[4];
    let term = group.replicas[&leader].term();
    group.ticks(40);
    let blank = &group.replicas[&again];
    assert_eq!(
        (blank.term(), blank.last_index()),
        (0, 0),
        "it stands for nothing"
    );
    change_members(&mut group, &wanted);
    is_swapped(&group, &wanted);
    assert_eq!(group.leader(), Some(leader));
    assert_eq!(
        group.replicas[&leader].term(),
        term,
        "nobody stood for election"
    );
    let first = group.applied[&again][0].0;
    assert!(first.index > 1, "it was begun by a snapshot");
    assert_eq!(group.applied[&again].last(), group.applied[&leader].last());

    // Its vote counts, and that of its earlier life does not.
    group.cut = wanted[..4]
        .iter()
        .copied()
        .filter(|id| *id != leader)
        .take(2)
        .collect();
    let id = group.put(leader, b"after");
    group.ticks(2);
    assert!(group.replicas[&leader].applied_id() >= id);
    let mut old = Message::default();
    old.set_msg_type(MessageType::MsgRequestVote);
    (old.from, old.to, old.term) = (replica_id(5, 1), leader, term + 9);
    group.ticks(20);
    let replica = group.replicas.get_mut(&leader).unwrap();
    replica.step(old, Duration::ZERO, Duration::ZERO);
    assert_eq!(replica.term(), term);
}

#[test]
fn a_blank_replica_takes_no_entries_from_the_first_on() {
    let (mut group, leader, wanted) = one_wiped_of_five();
    let blank = group.replicas.get_mut(&wanted[4]).unwrap();
    let mut append = Message::default();
    append.set_msg_type(MessageType::MsgAppend);
    (append.from, append.to, append.term) = (leader, wanted[4], 3);
    append.set_entries(
        vec![Entry {
            term: 3,
            index: 1,
            ..Entry::default()
        }]
        .into(),
    );
    blank.step(append, Duration::ZERO, Duration::ZERO);
    assert_eq!(blank.last_index(), 0);
}

#[test]
fn whoever_leads_next_brings_a_change_to_its_end() {
    for arriving in 0..80 {
        let (mut group, leader, wanted) = one_wiped_of_five();
        group.arriving = arriving;
        for _ in 0..12 {
            let replica = group.replicas.get_mut(&leader).unwrap();
            if let Some(change) = replica.next_change(&wanted) {
                replica.propose_change(&change, 9);
            }
            group.ticks(1);
        }
        group.arriving = usize::MAX;
        group.cut = vec![leader];
        // All three that are left of five must agree: it may take a few elections.
        for _ in 0..20 {
            group.ticks(10);
            if group.leader().is_some() {
                break;
            }
        }
        assert!(group.leader().is_some(), "after {arriving} messages");
        change_members(&mut group, &wanted);
        group.cut.clear();
        group.ticks(40);
        change_members(&mut group, &wanted);
        is_swapped(&group, &wanted);
        let last = group.applied[&wanted[4]].last();
        assert_eq!(last, group.applied[&group.leader().unwrap()].last());
    }
}

#[test]
fn a_leader_gives_away_what_it_leads_to_one_that_may() {
    let voters = [1, 2, 3].map(|node| replica_id(node, 1));
    let mut group = Group::new(&voters);
    group.ticks(30);
    let leader = group.leader().unwrap();
    let others: Vec<u64> = voters.into_iter().filter(|id| *id != leader).collect();
    let term = group.replicas[&leader].term();
    let replica = group.replicas.get_mut(&leader).unwrap();
    assert!(!replica.give_away(|_| false), "to nobody");
    assert!(replica.serves());
    assert!(replica.give_away(|node| node == node_of(others[1])));
    assert!(!replica.serves(), "while it hands over");
    group.settle();
    assert_eq!(group.leader(), Some(others[1]));
    assert_eq!(group.replicas[&others[1]].term(), term + 1);
    let follower = group.replicas.get_mut(&leader).unwrap();
    assert!(!follower.give_away(|_| true), "it leads nothing");
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
