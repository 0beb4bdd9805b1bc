//! Changes keep the map sound; bytes are checked.

use proptest::prelude::*;

use super::*;

fn facts(name: &str, port: u16) -> NodeFacts {
    NodeFacts {
        name: name.to_owned(),
        address: format!("127.0.0.1:{port}"),
        cores: 2,
        zone: "z".to_owned(),
        weight: 100,
        folder: "f".to_owned(),
    }
}

fn three() -> ClusterMap {
    let nodes = vec![facts("b", 2), facts("a", 1), facts("c", 3)];
    ClusterMap::bootstrap(7, 16, 3, nodes).unwrap()
}

fn words(result: Result<impl std::fmt::Debug, MapError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn the_first_map_is_the_same_for_all() {
    let map = three();
    assert_eq!((map.version(), map.cluster(), map.partitions()), (1, 7, 16));
    let names: Vec<_> = map
        .nodes()
        .iter()
        .map(|n| (n.id, n.facts.name.as_str()))
        .collect();
    assert_eq!(names, [(1, "a"), (2, "b"), (3, "c")]);
    let turned = vec![facts("c", 3), facts("a", 1), facts("b", 2)];
    assert_eq!(map, ClusterMap::bootstrap(7, 16, 3, turned).unwrap());
    for partition in 0..16 {
        let target = map.target()[usize::from(partition)].clone();
        let replicas = map.replicas(partition).iter();
        assert!(replicas.clone().all(|id| generation_of(*id) == 1));
        assert!(replicas.map(|id| node_of(*id)).eq(target));
    }
    assert!(map.replicas(16).is_empty());
}

#[test]
fn nodes_that_cannot_make_a_cluster_are_refused() {
    let try_nodes = |nodes| words(ClusterMap::bootstrap(7, 16, 3, nodes));
    assert_eq!(
        try_nodes(vec![facts("a", 1), facts("a", 2)]),
        "two nodes are named a"
    );
    assert_eq!(
        try_nodes(vec![facts("a", 1), facts("b", 1)]),
        "two nodes have the address 127.0.0.1:1"
    );
    assert!(try_nodes(vec![]).contains("0 nodes"));
    assert!(try_nodes(vec![facts("a b", 1)]).contains("no name"));
    let nowhere = NodeFacts {
        address: "nowhere".into(),
        ..facts("a", 1)
    };
    assert!(try_nodes(vec![nowhere]).contains("no address"));
    let weightless = NodeFacts {
        weight: 0,
        ..facts("a", 1)
    };
    assert!(try_nodes(vec![weightless]).contains("weight 0"));
    for (partitions, replication) in [(12, 3), (16, 0), (16, 8), (0, 3)] {
        let nodes = vec![facts("a", 1)];
        assert!(ClusterMap::bootstrap(7, partitions, replication, nodes).is_err());
    }
    assert!(ClusterMap::bootstrap(0, 16, 3, vec![facts("a", 1)]).is_err());
}

#[test]
fn a_wiped_node_gets_new_replica_ids() {
    let map = three();
    let old = map.replica_on(5, 2).unwrap();
    let (next, new) = map.replace_replica(5, old, 2).unwrap();
    assert_eq!((next.version(), new), (2, replica_id(2, 2)));
    assert_eq!(next.replica_on(5, 2), Some(new));
    let (next, other) = next.replace_replica(6, replica_id(2, 1), 2).unwrap();
    assert_eq!(other, replica_id(2, 3), "never used before");
    assert!(words(next.replace_replica(5, old, 2)).contains("has no replica"));
    assert!(words(next.replace_replica(16, old, 2)).contains("has no replica"));
    let on_three = replica_id(3, 1);
    assert!(words(next.replace_replica(5, on_three, 2)).contains("twice"));
}

#[test]
fn a_node_without_its_data_is_taken_in_whole() {
    let map = three();
    let next = map.rejoin("b", "another").unwrap();
    assert_eq!(next.version(), 2);
    assert_eq!(next.node(2).unwrap().facts.folder, "another");
    for partition in 0..16 {
        let ids: Vec<u64> = map.replicas(partition).to_vec();
        let renewed = |id: &u64| {
            if node_of(*id) == 2 {
                replica_id(2, 2)
            } else {
                *id
            }
        };
        let expected: Vec<u64> = ids.iter().map(renewed).collect();
        assert_eq!(next.replicas(partition), expected, "in the same places");
    }
    assert!(words(next.rejoin("b", "another")).contains("already"));
    assert!(words(next.rejoin("x", "another")).contains("no node x"));
    let third = next.rejoin("b", "a third").unwrap();
    assert_eq!(third.replica_on(0, 2), Some(replica_id(2, 3)));
}

#[test]
fn a_partition_gets_another_preferred_leader() {
    let map = three();
    let last = map.replicas(4)[2];
    let next = map.prefer(4, node_of(last)).unwrap();
    let expected = [last, map.replicas(4)[0], map.replicas(4)[1]];
    assert_eq!((next.version(), next.replicas(4)), (2, &expected[..]));
    assert!(words(map.prefer(16, 1)).contains("does not hold partition 16"));
    assert!(words(map.prefer(4, 9)).contains("node 9"));
}

#[test]
fn nodes_come_and_go() {
    let (map, id) = three().add_node(facts("d", 4)).unwrap();
    assert_eq!((id, map.node(4).unwrap().state), (4, NodeState::Joining));
    assert!(words(map.add_node(facts("d", 5))).contains("two nodes are named d"));
    assert!(words(map.set_state(3, NodeState::Gone)).contains("still on node 3"));
    assert!(map.target().iter().flatten().any(|node| *node == 4));
    let mut map = map.set_state(3, NodeState::Draining).unwrap();
    assert!(!map.target().iter().flatten().any(|node| *node == 3));
    for partition in 0..16 {
        let from = map.replica_on(partition, 3).unwrap();
        map = map.replace_replica(partition, from, 4).unwrap().0;
    }
    let from = map.replica_on(0, 1).unwrap();
    assert!(words(map.replace_replica(0, from, 3)).contains("being drained"));
    let map = map.set_state(3, NodeState::Gone).unwrap();
    assert!(words(map.set_state(3, NodeState::Serving)).contains("node 3 is gone"));
    let (map, id) = map.add_node(facts("c", 3)).unwrap();
    assert_eq!(id, 5, "the number of a node that is gone is not used again");
    assert_eq!(map.node_named("c").unwrap().id, 5);
    assert!(words(map.update_node(5, facts("x", 3))).contains("cannot become"));
    assert!(words(map.update_node(6, facts("x", 3))).contains("no node 6"));
    let map = map.update_node(5, facts("c", 9)).unwrap();
    assert_eq!(map.node(5).unwrap().facts.address, "127.0.0.1:9");
}

#[test]
fn another_format_is_told() {
    let mut bytes = three().encode().unwrap();
    bytes[4] = 9;
    assert_eq!(
        ClusterMap::decode(&bytes),
        Err(MapError::Format { found: 9 })
    );
}

#[test]
fn a_map_that_contradicts_itself_is_damaged() {
    let mut map = three();
    map.placement[3][1] = replica_id(9, 1);
    let error = ClusterMap::decode(&map.encode().unwrap());
    assert!(words(error).contains("node 9, which does not exist"));
}

proptest! {
    #[test]
    fn encoding_round_trips_and_damage_is_found(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let bytes = three().encode().unwrap();
        prop_assert_eq!(ClusterMap::decode(&bytes).unwrap(), three());
        let mut damaged = bytes.clone();
        damaged[at.index(bytes.len())] ^= 1 << bit;
        prop_assert!(ClusterMap::decode(&damaged).is_err());
        prop_assert!(ClusterMap::decode(&bytes[..at.index(bytes.len())]).is_err());
    }
}
