use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(1000);

fn write(client: u64, sequence: u64) -> WriteId {
    WriteId { client, sequence }
}

fn id(index: u64) -> LogId {
    LogId { term: 1, index }
}

/// Whoever begins with the row of another at `now`.
fn reloaded(writers: &Writers, now: Duration) -> Writers {
    let mut row = Vec::new();
    writers.encode(now, &mut row);
    let reloaded = Writers::decode(&row, now).unwrap();
    assert_eq!(reloaded.results(), writers.results());
    reloaded
}

/// What is known of a repeat.
fn find(writers: &Writers, client: u64, sequence: u64, now: Duration) -> Known<'_> {
    writers.find(write(client, sequence), true, 1, now)
}

#[test]
fn what_was_proposed_or_applied_is_known_and_what_was_discarded_is_not() {
    let mut writers = Writers::default();
    let find =
        |writers: &Writers, sequence, term| match writers.find(write(1, sequence), true, term, NOW)
        {
            Known::New => None,
            Known::Done(id, outcome) => Some((id, outcome.to_vec())),
            Known::Doubtful => panic!("doubtful"),
        };
    assert_eq!(find(&writers, 1, 1), None);
    writers.proposed(write(1, 1), id(5), b"a", NOW);
    writers.proposed(write(1, 2), id(7), b"b", NOW);
    assert_eq!(find(&writers, 1, 1), Some((id(5), b"a".to_vec())));
    // Nothing of it is a result yet, nor known to a leader of another term: what became of it has
    // been applied by then.
    assert!(writers.results().is_empty());
    assert_eq!(find(&writers, 1, 2), None);
    writers.applied(write(1, 1), id(5), b"a", NOW);
    assert_eq!(find(&writers, 1, 2), Some((id(5), b"a".to_vec())));
    assert_eq!(find(&writers, 2, 1), Some((id(7), b"b".to_vec())));
    // The second was replaced by an entry of another leader, under the same index.
    let other = LogId { term: 2, index: 7 };
    writers.applied(write(1, 3), other, b"c", NOW);
    assert_eq!(find(&writers, 2, 1), None);
    assert_eq!(find(&writers, 3, 3), Some((other, b"c".to_vec())));
    // A proposal of a term that is over gives way to one of a new term.
    writers.proposed(write(1, 4), LogId { term: 2, index: 8 }, b"d", NOW);
    let newer = LogId { term: 3, index: 8 };
    writers.proposed(write(1, 5), newer, b"e", NOW);
    assert_eq!(find(&writers, 4, 2), None);
    assert_eq!(find(&writers, 5, 3), Some((newer, b"e".to_vec())));
    writers.applied(write(1, 5), newer, b"e", NOW);
    let results: Vec<_> = writers.results().iter().map(|(w, ..)| w.sequence).collect();
    assert_eq!(results, [1, 3, 5]);
}

#[test]
fn what_may_be_forgotten_is_doubtful_and_nothing_else() {
    let mut writers = Writers::default();
    // One write of client 7 before two thousand of client 8, whose sequences come out of order.
    writers.applied(write(7, 3), id(1), &[], NOW);
    for i in 0..2000u64 {
        writers.applied(write(8, 10 + (i ^ 1)), id(2 + i), &i.to_le_bytes(), NOW);
    }
    let check = |writers: &Writers, now| {
        for i in 2000 - RESULTS_KEPT as u64..2000 {
            let outcome = i.to_le_bytes();
            let known = Known::Done(id(2 + i), &outcome);
            assert_eq!(find(writers, 8, 10 + (i ^ 1), now), known);
        }
        for i in 0..2000 - RESULTS_KEPT as u64 {
            assert_eq!(find(writers, 8, 10 + (i ^ 1), now), Known::Doubtful);
        }
        assert_eq!(find(writers, 8, 3000, now), Known::New);
        // A first sending may come after its repeat, even of what is forgotten by then.
        let first_sending = |sequence| writers.find(write(8, sequence), false, 1, now);
        assert_eq!(first_sending(10), Known::Doubtful);
        assert_eq!(first_sending(3000), Known::New);
        let of = |client, sequence| match find(writers, client, sequence, now) {
            Known::New => "new",
            Known::Doubtful => "doubtful",
            Known::Done(..) => "done",
        };
        [of(7, 3), of(7, 4), of(9, 1)]
    };
    // The client of the forgotten write is still known, and that there is no other.
    assert_eq!(check(&writers, NOW), ["doubtful", "new", "new"]);
    // Whoever begins with the row knows as much of the clients in it, and nothing of others.
    let mut loaded = reloaded(&writers, NOW);
    assert_eq!(check(&loaded, NOW), ["doubtful"; 3]);
    let later = NOW + REPEAT_WITHIN;
    assert_eq!(check(&loaded, later), ["new"; 3]);
    // A client that it meets then is as unknown as before, but not for ever, and goes on to be so
    // for whoever begins with what it puts down.
    loaded.applied(write(7, 5), id(3000), &[], NOW);
    assert_eq!(find(&loaded, 7, 6, NOW), Known::Doubtful);
    assert_eq!(find(&loaded, 7, 6, later), Known::New);
    assert_eq!(find(&reloaded(&loaded, NOW), 7, 6, NOW), Known::Doubtful);
}

#[test]
fn a_row_that_has_all_there_ever_was_leaves_no_doubt() {
    let mut writers = Writers::default();
    for i in 1..RESULTS_KEPT as u64 {
        writers.applied(write(i % 5 + 1, i), id(i), &[], NOW);
    }
    let loaded = reloaded(&writers, NOW);
    assert_eq!(find(&loaded, 9, 1, NOW), Known::New);
    assert_eq!(find(&loaded, 1, 5000, NOW), Known::New);
    // One that was loaded from a row that had not.
    writers.applied(write(1, 5000), id(5000), &[], NOW);
    let mut loaded = reloaded(&writers, NOW);
    assert_eq!(find(&loaded, 9, 1, NOW), Known::Doubtful);
    loaded.order.truncate(1);
    loaded
        .clients
        .retain(|_, client| client.records[0].id == id(1));
    let mut row = Vec::new();
    loaded.encode(NOW, &mut row);
    assert_eq!(row[1], 0, "it does not have all");
}

#[test]
fn clients_are_forgotten_only_when_there_are_too_many_without_a_result() {
    let mut writers = Writers::default();
    let all = (RESULTS_KEPT + CLIENTS_KEPT) as u64;
    for client in 1..=all {
        writers.applied(write(client, 1), id(client), &[], NOW);
    }
    assert_eq!(find(&writers, 1, 1, NOW), Known::Doubtful);
    assert_eq!(find(&writers, 1, 2, NOW), Known::New);
    assert_eq!(find(&writers, all + 1, 1, NOW), Known::New);
    let soon = NOW + Duration::from_secs(1);
    writers.applied(write(all + 1, 1), id(all + 1), &[], soon);
    assert_eq!(find(&writers, 1, 2, soon), Known::Doubtful, "forgotten");
    assert_eq!(find(&writers, all + 2, 1, soon), Known::Doubtful);
    // Since the forgotten client was seen for the last time.
    assert_eq!(find(&writers, all + 2, 1, NOW + REPEAT_WITHIN), Known::New);
}

#[test]
fn a_write_that_is_in_the_ring_twice_is_forgotten_once() {
    let mut writers = Writers::default();
    writers.applied(write(1, 1), id(1), b"first", NOW);
    writers.applied(write(1, 1), id(2), b"second", NOW);
    for index in 3..RESULTS_KEPT as u64 + 2 {
        writers.applied(write(2, index), id(index), &[], NOW);
    }
    assert_eq!(find(&writers, 1, 1, NOW), Known::Done(id(2), b"second"));
    writers.applied(write(2, 5000), id(5000), &[], NOW);
    assert_eq!(find(&writers, 1, 1, NOW), Known::Doubtful);
}

/// A client whose result was long forgotten is forgotten itself while its next write is under way.
#[test]
fn a_client_that_is_forgotten_with_a_write_under_way_leaves_doubt() {
    let mut writers = Writers::default();
    writers.applied(write(1, 1), id(1), &[], NOW);
    let most = (RESULTS_KEPT + CLIENTS_KEPT) as u64;
    for client in 2..=most {
        writers.applied(write(client, 1), id(client), &[], NOW);
    }
    let later = NOW + 2 * REPEAT_WITHIN;
    let under_way = id(most + 9);
    writers.proposed(write(1, 2), under_way, &[], later);
    for client in most + 1..2 * most {
        writers.applied(write(client, 1), id(client + 10), &[], later);
        let known = find(&writers, 1, 2, later);
        assert!(
            known == Known::Done(under_way, &[]) || known == Known::Doubtful,
            "{known:?}"
        );
    }
    assert!(!writers.clients.contains_key(&1), "it was not forgotten");
}

#[test]
fn a_client_without_a_result_costs_no_more_than_another() {
    let mut writers = Writers::default();
    for n in 1..=2 * RESULTS_KEPT as u64 {
        writers.applied(write(1 + n / RESULTS_KEPT as u64, n), id(n), &[], NOW);
    }
    assert_eq!(writers.clients[&1].applied, 0);
    assert_eq!(writers.clients[&1].records.capacity(), 0);
}

#[test]
fn what_an_entry_does_not_say_is_doubtful_for_a_while() {
    let mut writers = Writers::default();
    writers.applied(write(2, 1), id(1), &[], NOW);
    writers.applied_unknown(write(1, 7), NOW);
    writers.applied_unknown(write(2, 7), NOW);
    for known in [&writers, &reloaded(&writers, NOW)] {
        assert_eq!(find(known, 1, 7, NOW), Known::Doubtful);
        assert_eq!(find(known, 2, 7, NOW), Known::Doubtful);
        assert_eq!(find(known, 1, 7, NOW + REPEAT_WITHIN), Known::New);
    }
    let nothing = Writers::unknown(NOW);
    assert_eq!(find(&nothing, 1, 7, NOW), Known::Doubtful);
    assert_eq!(find(&reloaded(&nothing, NOW), 1, 7, NOW), Known::Doubtful);
}

#[test]
fn a_row_is_due_once_for_what_was_applied() {
    let mut writers = Writers::default();
    assert!(
        writers.put_down(),
        "the first one says that there is nothing"
    );
    assert!(!writers.put_down());
    assert!(!reloaded(&writers, NOW).put_down());
    writers.proposed(write(1, 1), id(1), &[], NOW);
    assert!(!writers.put_down(), "it may never be applied");
    writers.applied(write(1, 1), id(1), &[], NOW);
    assert!(writers.put_down());
    assert!(!writers.put_down());
}

#[test]
fn proposals_are_in_no_row() {
    let mut writers = Writers::default();
    writers.applied(write(1, 1), id(1), b"a", NOW);
    writers.proposed(write(1, 2), id(2), b"b", NOW);
    writers.proposed(write(2, 1), id(3), b"c", NOW);
    let loaded = reloaded(&writers, NOW);
    assert_eq!(find(&loaded, 1, 2, NOW), Known::New);
    assert_eq!(find(&loaded, 2, 1, NOW), Known::New);
}

proptest! {
    /// By a plain list of all that was applied.
    #[test]
    fn results_are_the_newest_of_all_that_was_applied(
        writes in proptest::collection::vec((1..6u64, 1..40u64, 0..3usize, any::<bool>()), 1..3000),
        reload_at in proptest::option::of(0..3000usize),
    ) {
        let mut writers = Writers::default();
        let mut all = Vec::new();
        for (i, (client, sequence, bytes, is_proposed)) in writes.into_iter().enumerate() {
            let id = LogId { term: 1 + i as u64 / 700, index: 1 + i as u64 };
            let outcome = vec![i as u8; bytes];
            if is_proposed {
                writers.proposed(write(client, sequence), id, &outcome, NOW);
            }
            writers.applied(write(client, sequence), id, &outcome, NOW);
            all.push((write(client, sequence), id, outcome));
            if reload_at == Some(i) {
                writers = reloaded(&writers, NOW);
            }
        }
        let kept = &all[all.len().saturating_sub(RESULTS_KEPT)..];
        let expected: Vec<_> = kept.iter().map(|(w, id, o)| (*w, *id, &o[..])).collect();
        prop_assert_eq!(writers.results(), expected);
        for (write, ..) in &all {
            let newest = kept.iter().rev().find(|(other, ..)| other == write);
            let known = writers.find(*write, true, 99, NOW);
            match newest {
                Some((_, id, outcome)) => prop_assert_eq!(known, Known::Done(*id, outcome)),
                None => prop_assert_eq!(known, Known::Doubtful),
            }
        }
    }

    #[test]
    fn no_bytes_are_taken_for_a_row_that_cannot_be(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let row = [&[1, 0][..], &bytes].concat();
        for value in [&bytes, &row] {
            if let Some(writers) = Writers::decode(value, NOW) {
                prop_assert!(writers.results().len() <= RESULTS_KEPT);
                let mut again = Vec::new();
                writers.encode(NOW, &mut again);
                prop_assert!(Writers::decode(&again, NOW).is_some());
            }
        }
    }
}
