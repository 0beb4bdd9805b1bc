use super::*;

fn fresh() -> Replica {
    Replica::recover(7, 1, Vote::default(), LogId::default(), LogId::default(), 0)
}

fn open(replica: &mut Replica) {
    replica.campaign();
    let head = replica.propose(0, 0, 10);
    replica.persisted(head.id);
    replica.applied(&head);
}

#[test]
fn serves_only_after_an_entry_of_its_own_term() {
    let mut replica = fresh();
    assert!(!replica.serves());
    let vote = replica.campaign();
    assert_eq!((vote.term, vote.vote), (1, 1));
    let head = replica.propose(0, 0, 10);
    assert!(!replica.serves());
    replica.persisted(head.id);
    assert!(!replica.serves(), "committed is not yet readable");
    replica.applied(&head);
    assert!(replica.serves());
}

#[test]
fn terms_rise_and_indexes_go_on_over_restarts() {
    let mut replica = fresh();
    open(&mut replica);
    let vote = Vote {
        term: 1,
        vote: 1,
        commit: 1,
    };
    let mut again = Replica::recover(7, 1, vote, replica.last_id(), replica.applied_id(), 10);
    assert_eq!(again.campaign().term, 2);
    let head = again.propose(0, 0, 5);
    assert_eq!(head.id, LogId { term: 2, index: 2 });
}

#[test]
fn time_never_goes_back() {
    let mut replica = fresh();
    open(&mut replica);
    assert_eq!(replica.propose(1, 1, 500).time_ms, 500);
    assert_eq!(replica.propose(1, 2, 100).time_ms, 500);
    assert_eq!(replica.next_time_ms(100), 500);
    assert_eq!(
        replica.applied_time_ms(),
        10,
        "reads see the time of what is applied"
    );
}

#[test]
fn a_retracted_proposal_leaves_no_hole() {
    let mut replica = fresh();
    open(&mut replica);
    let before = replica.last_id();
    let head = replica.propose(1, 1, 20);
    replica.retract(&head, before);
    assert_eq!(replica.propose(1, 2, 20).id.index, head.id.index);
}
