//! Groups that sleep: see `src/replica/sleep.rs`.

use super::*;

const IDS: [u64; 3] = [1 << 32 | 1, 2 << 32 | 1, 3 << 32 | 1];

/// A group that has just fallen asleep, its leader and the followers.
fn sleeping() -> (Group, u64, [u64; 2]) {
    let mut group = Group::new(&IDS);
    group.ticks(30);
    let leader = group.leader().unwrap();
    group.put(leader, b"v");
    group.ticks(10);
    assert!(group.asleep().is_empty(), "so soon");
    group.ticks(40);
    assert_eq!(group.asleep(), IDS);
    let mut others = IDS.into_iter().filter(|id| *id != leader);
    let others = [others.next().unwrap(), others.next().unwrap()];
    (group, leader, others)
}

impl Group {
    fn asleep(&self) -> Vec<u64> {
        let asleep = self.replicas.iter().filter(|(_, r)| r.is_asleep());
        asleep.map(|(id, _)| *id).collect()
    }
}

#[test]
fn one_that_sleeps_has_no_work_and_a_proposal_wakes_all() {
    let (mut group, leader, _) = sleeping();
    for _ in 0..200 {
        group.now += TICK;
        for replica in group.replicas.values_mut() {
            assert!(!replica.tick());
        }
        assert!(!group.work(), "a sleeper has something to do");
        group.pulse();
    }
    assert_eq!(group.leader(), Some(leader));
    assert!(!group.replicas[&leader].has_lease(group.now));
    let id = group.put(leader, b"w");
    group.settle();
    assert!(group.asleep().is_empty());
    group.ticks(1);
    for replica in group.replicas.values() {
        assert_eq!(replica.applied_id(), id);
    }
    assert!(group.replicas[&leader].has_lease(group.now));
}

#[test]
fn a_dead_leader_is_missed_as_soon_as_by_heartbeats() {
    let (mut group, leader, others) = sleeping();
    group.cut = vec![leader];
    group.ticks(ELECTION_TICKS_MAX);
    let new = group.leader().expect("two of three are left");
    assert!(others.contains(&new));
    group.cut.clear();
    group.ticks(100);
    assert_eq!(group.asleep(), IDS, "all are there again");
}

#[test]
fn a_read_of_a_sleeping_leader_asks_the_quorum() {
    let (mut group, leader, _) = sleeping();
    let replica = group.replicas.get_mut(&leader).unwrap();
    let _round = replica.read_round();
    assert!(!replica.is_asleep() && !replica.has_lease(group.now));
    group.settle();
    assert!(group.replicas[&leader].has_lease(group.now));
}

#[test]
fn reads_keep_a_leader_awake_and_its_followers_too() {
    let mut group = Group::new(&IDS);
    group.ticks(30);
    let leader = group.leader().unwrap();
    for _ in 0..10 {
        group.ticks(10);
        assert!(group.replicas[&leader].has_lease(group.now));
        assert!(!group.replicas[&leader].is_asleep());
    }
    let follower = IDS.into_iter().find(|id| *id != leader).unwrap();
    for _ in 0..10 {
        group.ticks(10);
        assert!(group.replicas[&follower].age(group.now) <= 3 * TICK);
    }
    assert!(!group.replicas[&leader].is_asleep());
}

#[test]
fn nobody_sleeps_before_all_have_all() {
    let mut group = Group::new(&IDS);
    group.ticks(30);
    let leader = group.leader().unwrap();
    let behind = IDS.into_iter().find(|id| *id != leader).unwrap();
    group.cut = vec![behind];
    group.put(leader, b"v");
    group.ticks(100);
    assert!(group.asleep().is_empty());
    group.cut.clear();
    group.ticks(100);
    assert_eq!(group.asleep(), IDS);
}

#[test]
fn a_follower_with_another_last_entry_does_not_agree() {
    let (mut group, leader, [follower, _]) = sleeping();
    let (term, index) = {
        let replica = &group.replicas[&leader];
        (replica.term(), replica.last_index())
    };
    let ask = SleepNote {
        from: leader,
        to: follower,
        term,
        index,
        word: SleepWord::Ask,
    };
    let mut agrees = |note: SleepNote| {
        let replica = group.replicas.get_mut(&follower).unwrap();
        replica.note_received(&note);
        replica.take_notes().len() == 1
    };
    assert!(agrees(ask));
    for wrong in [
        SleepNote {
            index: index + 1,
            ..ask
        },
        SleepNote {
            index: index - 1,
            ..ask
        },
        SleepNote {
            term: term - 1,
            ..ask
        },
        SleepNote { from: 9, ..ask },
        SleepNote { to: leader, ..ask },
    ] {
        assert!(!agrees(wrong), "{wrong:?}");
    }
}

#[test]
fn a_leader_wakes_when_one_voter_is_silent_and_steps_down_without_a_quorum() {
    let (mut group, leader, [one, other]) = sleeping();
    group.cut = vec![one];
    group.ticks(6);
    assert!(!group.replicas[&leader].is_asleep());
    assert!(group.replicas[&leader].has_lease(group.now));
    group.cut = vec![one, other];
    group.ticks(2 * ELECTION_TICKS_MAX);
    assert!(!group.replicas[&leader].leads());
}

#[test]
fn one_that_is_woken_keeps_its_promise() {
    let (mut group, _, [one, other]) = sleeping();
    let mut asks = |age: usize| {
        let term = group.replicas[&one].term();
        let last = group.replicas[&other].last_index();
        let mut vote = Message::default();
        vote.set_msg_type(MessageType::MsgRequestPreVote);
        (vote.from, vote.to, vote.term) = (other, one, term + 1);
        (vote.index, vote.log_term) = (last, term);
        let voter = group.replicas.get_mut(&one).unwrap();
        for _ in 0..age {
            voter.tick();
        }
        voter.step(vote, Duration::ZERO, Duration::ZERO);
        let work = voter.take_work(group.now).unwrap_or_default();
        let messages = work.messages.iter().chain(&work.messages_later);
        messages.count()
    };
    assert_eq!(asks(0), 0, "it has just heard of its leader");
    assert_eq!(asks(2), 0, "two ticks ago");
    assert_eq!(asks(ELECTION_TICKS_MIN - 2), 1, "its promise is over");
}

#[test]
fn a_follower_can_have_the_group_woken() {
    let (mut group, leader, [follower, _]) = sleeping();
    assert!(group.replicas[&follower].age(group.now) > 3 * TICK);
    group.replicas.get_mut(&follower).unwrap().rouse();
    group.ticks(4);
    assert!(!group.replicas[&leader].is_asleep());
    assert!(group.replicas[&follower].age(group.now) <= 3 * TICK);
}

#[test]
fn one_alone_sleeps_by_itself() {
    let mut group = Group::new(&[IDS[0]]);
    group.replicas.get_mut(&IDS[0]).unwrap().campaign();
    group.ticks(60);
    assert_eq!(group.asleep(), [IDS[0]]);
    assert!(group.replicas[&IDS[0]].has_lease(group.now));
    let id = group.put(IDS[0], b"v");
    group.settle();
    assert_eq!(group.replicas[&IDS[0]].applied_id(), id);
}
