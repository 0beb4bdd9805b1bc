use super::*;

const NOW: Duration = Duration::from_secs(1000);

impl Writers {
    /// By client and sequence: the entry.
    pub(in crate::shard) fn results(&self) -> std::collections::BTreeMap<(u64, u64), LogId> {
        let records = self.ring.iter().flatten();
        records
            .map(|one| ((one.client, one.sequence), one.id))
            .collect()
    }
}

fn options(client: u64, sequence: u64) -> WriteOptions {
    WriteOptions {
        client,
        sequence,
        retry: true,
        ..WriteOptions::default()
    }
}

fn id(index: u64) -> LogId {
    LogId { term: 1, index }
}

/// Proposes and applies a write, as a leader does; its row as a reader finds it.
fn write(
    writers: &mut Writers,
    client: u64,
    sequence: u64,
    index: u64,
    now: Duration,
) -> ResultRow {
    let done = Done::Counter {
        value: index as i64,
    };
    let row = writers.row(&options(client, sequence), done, 1, now);
    writers.proposed(row.clone(), id(index), now);
    let mut value = Vec::new();
    row.encode(&mut value);
    let row = ResultRow::decode(&row.key(), &value, index).unwrap();
    writers.applied(row.clone(), now);
    row
}

#[test]
fn results_round_trip_and_the_rest_is_refused() {
    let results = [
        Done::Written { existed: None },
        Done::Written {
            existed: Some(false),
        },
        Done::Written {
            existed: Some(true),
        },
        Done::Counter { value: -5 },
        Done::of_batch(&[None, Some(7), None, Some(-1)]),
        Done::of_batch(&[Some(1); COUNTERS_KEPT + 1]),
    ];
    assert_eq!(results[5], Done::Untold);
    for done in results {
        let mut row = Writers::default().row(&options(3, 4), done, 9, NOW);
        row.id.index = 17;
        let mut value = Vec::new();
        row.encode(&mut value);
        let decode = |key: &[u8], value: &[u8]| ResultRow::decode(key, value, 17);
        assert_eq!(decode(&row.key(), &value), Some(row.clone()));
        assert_eq!(decode(&[0, b't', 0, 0], &value), None);
        assert_eq!(decode(&[0, b'w', 0xff, 0], &value), None);
        assert_eq!(decode(&row.key(), &value[..32]), None);
        value.push(0);
        assert_eq!(decode(&row.key(), &value), None);
    }
}

#[test]
fn what_was_proposed_or_applied_is_known_and_what_was_discarded_is_not() {
    let mut writers = Writers::default();
    let find = |writers: &Writers, term| writers.find(&options(1, 1), term, NOW);
    assert_eq!(find(&writers, 1), Known::New);
    let done = Done::Written { existed: None };
    let row = writers.row(&options(1, 1), done.clone(), 1, NOW);
    writers.proposed(row.clone(), id(5), NOW);
    assert_eq!(find(&writers, 1), Known::Done(id(5), done.clone()));
    // Another term: what became of it has been applied by now.
    assert_eq!(find(&writers, 2), Known::New);
    writers.stepped_down();
    assert_eq!(find(&writers, 1), Known::New);
    writers.applied(ResultRow { id: id(5), ..row }, NOW);
    assert_eq!(find(&writers, 9), Known::Done(id(5), done));
}

#[test]
fn what_may_be_forgotten_is_doubtful_and_nothing_else() {
    let mut writers = Writers::default();
    let mut rows = Vec::new();
    // One write of client 7 before two thousand of client 8, whose sequences come out of order.
    rows.push(write(&mut writers, 7, 3, 1, NOW));
    for i in 0..2000u64 {
        rows.push(write(&mut writers, 8, 10 + (i ^ 1), 2 + i, NOW));
    }
    let check = |writers: &Writers, now| {
        let find = |client, sequence| writers.find(&options(client, sequence), 1, now);
        for i in 2000 - RESULTS_KEPT as u64..2000 {
            let done = Done::Counter {
                value: 2 + i as i64,
            };
            assert_eq!(find(8, 10 + (i ^ 1)), Known::Done(id(2 + i), done));
        }
        for i in 0..2000 - RESULTS_KEPT as u64 {
            assert_eq!(find(8, 10 + (i ^ 1)), Known::Doubtful);
        }
        assert_eq!(find(8, 3000), Known::New);
        let first_sending = WriteOptions {
            retry: false,
            ..options(8, 10)
        };
        assert_eq!(writers.find(&first_sending, 1, now), Known::New);
        (find(7, 3), find(7, 4), find(9, 1))
    };
    // The client of the forgotten write is still known, and that there is no other.
    let seen = check(&writers, NOW);
    assert_eq!(seen, (Known::Doubtful, Known::New, Known::New));
    // Whoever begins with the ring knows as much of the clients in it, and nothing of others.
    let loaded = |rows: &[ResultRow]| {
        let kept = rows[rows.len() - RESULTS_KEPT..].to_vec();
        Writers::load(kept, NOW)
    };
    let seen = check(&loaded(&rows), NOW);
    assert_eq!(seen, (Known::Doubtful, Known::Doubtful, Known::Doubtful));
    let later = check(&loaded(&rows), NOW + REPEAT_WITHIN);
    assert_eq!(later, (Known::New, Known::New, Known::New));
    // A client that it meets then is as unknown as before, but not for ever, and goes on to be so
    // for whoever begins with that ring.
    let mut again = loaded(&rows);
    let row = write(&mut again, 7, 5, 3000, NOW);
    assert_eq!(row.before, UNKNOWN);
    assert_eq!(again.find(&options(7, 6), 1, NOW), Known::Doubtful);
    let later = NOW + REPEAT_WITHIN;
    assert_eq!(again.find(&options(7, 6), 1, later), Known::New);
    rows.push(row);
    assert_eq!(loaded(&rows).find(&options(7, 6), 1, NOW), Known::Doubtful);
    // A ring that has not come round is all there ever was.
    let young = Writers::load(rows[..RESULTS_KEPT - 1].to_vec(), NOW);
    assert_eq!(young.find(&options(9, 1), 1, NOW), Known::New);
    assert_eq!(young.find(&options(8, 5000), 1, NOW), Known::New);
}

#[test]
fn memory_is_bounded_and_a_forgotten_client_is_doubtful_for_a_while() {
    let mut writers = Writers::default();
    let clients = 3 * CLIENTS_KEPT as u64;
    for client in 1..=clients {
        write(&mut writers, client, 1, client, NOW);
    }
    assert!(writers.idle.len() <= CLIENTS_KEPT);
    assert!(writers.clients.len() <= CLIENTS_KEPT + RESULTS_KEPT);
    assert_eq!(writers.ring.len(), RESULTS_KEPT);
    assert_eq!(writers.slots.len(), RESULTS_KEPT);
    assert!(writers.proposed.is_empty());
    assert_eq!(writers.find(&options(1, 1), 1, NOW), Known::Doubtful);
    let stranger = options(clients + 1, 1);
    assert_eq!(writers.find(&stranger, 1, NOW), Known::Doubtful);
    assert_eq!(writers.find(&stranger, 1, NOW + REPEAT_WITHIN), Known::New);
    // So is one that came while others were being forgotten: it may have been one of them.
    let late = options(clients, 2);
    assert_eq!(writers.find(&late, 1, NOW), Known::Doubtful);
    assert_eq!(writers.find(&late, 1, NOW + REPEAT_WITHIN), Known::New);
    // Clients of proposals that are never applied are forgotten as well.
    for client in 1..=clients {
        let row = writers.row(&options(client, 9), Done::Untold, 1, NOW);
        writers.proposed(row, id(clients + client), NOW);
        writers.forget_clients();
    }
    assert!(writers.clients.len() <= CLIENTS_KEPT + RESULTS_KEPT);
}
