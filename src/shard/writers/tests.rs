use super::*;

#[test]
fn what_a_write_comes_to_round_trips_and_the_rest_is_refused() {
    let all = [
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
    assert_eq!(all[5], Done::Untold);
    assert!(all[0].encode().is_empty(), "a plain put costs nothing");
    for done in all {
        let bytes = done.encode();
        assert_eq!(Done::decode(&bytes), Some(done.clone()));
        for end in 1..bytes.len() {
            assert_ne!(Done::decode(&bytes[..end]), Some(done.clone()));
        }
        let longer = [&bytes[..], &[9]].concat();
        assert_eq!(Done::decode(&longer), None, "{done:?}");
    }
    assert_eq!(Done::decode(&[6]), None);
}

#[test]
fn only_a_numbered_write_has_an_outcome() {
    let options = |client, sequence| WriteOptions {
        client,
        sequence,
        ..WriteOptions::default()
    };
    let done = Done::Counter { value: 7 };
    assert_eq!(done.outcome_of(&options(3, 4)), done.encode());
    for (client, sequence) in [(0, 0), (0, 4), (3, 0)] {
        assert_eq!(write_id(&options(client, sequence)), None);
        assert!(done.outcome_of(&options(client, sequence)).is_empty());
    }
}
