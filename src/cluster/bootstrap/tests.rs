//! The rule, and every interleaving of three nodes that follow it.

use std::collections::{BTreeSet, HashSet};

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn peers() -> Vec<Peer> {
    let peer = |(name, port): (&str, u16)| Peer {
        name: name.to_owned(),
        address: format!("127.0.0.1:{port}"),
    };
    NAMES.into_iter().zip(7400..).map(peer).collect()
}

/// What node `node` says of itself with its `life`-th folder.
fn introduction(node: usize, life: u8) -> Introduction {
    Introduction {
        facts: NodeFacts {
            name: NAMES[node].to_owned(),
            address: peers()[node].address.clone(),
            cores: 2,
            zone: "z".to_owned(),
            weight: 100,
            folder: format!("folder-{node}-{life}"),
        },
        peers: peers(),
        partitions: 8,
        replication: 3,
        proposal: 10 * (node as u64 + 1) + u64::from(life),
        rejoins: 0,
        wall_ms: 1_000_000,
    }
}

fn round(answers: [(&str, Answer); 2]) -> BTreeMap<String, Answer> {
    answers
        .into_iter()
        .map(|(name, answer)| (name.to_owned(), answer))
        .collect()
}

fn empty(node: usize) -> Answer {
    Answer::Empty(introduction(node, 0))
}

/// The decision if the round before had the same answers.
fn settled(own: &Introduction, answers: &BTreeMap<String, Answer>) -> Decision {
    decide(own, answers, answers)
}

fn first_map() -> ClusterMap {
    match settled(
        &introduction(0, 0),
        &round([("b", empty(1)), ("c", empty(2))]),
    ) {
        Decision::Form(map) => map,
        other => panic!("{other:?}"),
    }
}

fn member(node: usize, map: &ClusterMap) -> Answer {
    Answer::Member(Member {
        name: NAMES[node].to_owned(),
        map: map.encode().unwrap(),
        wall_ms: 1_000_000,
        heard: Vec::new(),
    })
}

fn refusal(own: &Introduction, answers: [(&str, Answer); 2]) -> String {
    match settled(own, &round(answers)) {
        Decision::Refuse(words) => words,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_lowest_forms_the_cluster_and_the_others_wait() {
    let map = first_map();
    assert_eq!(map.cluster(), 10, "the proposal of a");
    let others = round([("a", empty(0)), ("c", empty(2))]);
    assert_eq!(settled(&introduction(1, 0), &others), Decision::AskAgain);
    let one = BTreeMap::from([("b".to_owned(), empty(1))]);
    assert_eq!(
        settled(&introduction(0, 0), &one),
        Decision::AskAgain,
        "c is missing"
    );
    let all = round([("b", empty(1)), ("c", empty(2))]);
    let wait = decide(&introduction(0, 0), &BTreeMap::new(), &all);
    assert_eq!(wait, Decision::AskAgain, "the first round");
    let wiped = round([("b", empty(1)), ("c", Answer::Empty(introduction(2, 1)))]);
    let wait = decide(&introduction(0, 0), &all, &wiped);
    assert_eq!(wait, Decision::AskAgain, "c has another folder");
    let alone = Introduction {
        peers: peers()[..1].to_vec(),
        ..introduction(0, 0)
    };
    assert!(matches!(
        settled(&alone, &BTreeMap::new()),
        Decision::Form(_)
    ));
}

#[test]
fn one_member_means_join() {
    let map = first_map();
    let one = BTreeMap::from([("c".to_owned(), member(2, &map))]);
    let joined = |life| settled(&introduction(1, life), &one);
    let join = |map: &ClusterMap| Decision::Join {
        map: map.clone(),
        node: 2,
    };
    assert_eq!(joined(0), join(&map));
    let claim = Decision::Claim(map.cluster());
    assert_eq!(joined(1), claim, "another folder: its data is lost");
    let renewed = map.rejoin("b", &introduction(1, 1).facts.folder).unwrap();
    let taken_in = round([("a", member(0, &renewed)), ("c", member(2, &map))]);
    assert_eq!(settled(&introduction(1, 1), &taken_in), join(&renewed));
    assert_eq!(settled(&introduction(1, 0), &taken_in), claim, "outlived");
    let newer = map.update_node(3, introduction(2, 4).facts).unwrap();
    let both = round([("a", member(0, &map)), ("c", member(2, &newer))]);
    let Decision::Join { map: newest, .. } = settled(&introduction(1, 0), &both) else {
        panic!("a member answered");
    };
    assert_eq!(newest, newer);
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let own = introduction(0, 0);
    let with = |change: fn(&mut Introduction)| {
        let mut theirs = introduction(1, 0);
        change(&mut theirs);
        refusal(&own, [("b", Answer::Empty(theirs)), ("c", empty(2))])
    };
    assert!(with(|i| i.facts.name = "x".into()).contains("says that it is x, --peers calls it b"));
    assert!(with(|i| i.facts.name = "a".into()).contains("says that it is a"));
    let list = with(|i| i.peers[2].address = "127.0.0.1:9".into());
    assert!(
        list.contains("c=127.0.0.1:9, this node with --peers a=127.0.0.1:7400"),
        "{list}"
    );
    assert!(with(|i| i.partitions = 16).contains("16 partitions"));
    assert!(with(|i| i.replication = 1).contains("1 replicas"));
    assert!(with(|i| i.facts.folder = "folder-0-0".into()).contains("copy of this node's"));
    assert!(with(|i| i.wall_ms += 10_001).contains("10.0 s ahead of"));
    assert!(with(|i| i.wall_ms -= 60_000).contains("60.0 s behind"));

    let map = first_map();
    let rival = ClusterMap::bootstrap(
        99,
        8,
        3,
        map.nodes().iter().map(|n| n.facts.clone()).collect(),
    );
    let two = [("b", member(1, &map)), ("c", member(2, &rival.unwrap()))];
    assert!(refusal(&own, two).contains("000000000000000a"));
    let strangers = ClusterMap::bootstrap(99, 8, 3, vec![introduction(2, 0).facts]).unwrap();
    let stranger = [("b", empty(1)), ("c", member(2, &strangers))];
    assert!(refusal(&own, stranger).contains("has no node a"));
    let cluster = [("b", member(1, &map)), ("c", empty(2))];
    let lost = |change: fn(&mut Introduction)| {
        let mut own = introduction(0, 1);
        change(&mut own);
        refusal(&own, cluster.clone())
    };
    assert!(lost(|i| i.rejoins = 99).contains("is of cluster 0000000000000063"));
    assert!(lost(|i| i.facts.address = "127.0.0.1:9".into()).contains("at 127.0.0.1:7400"));
    assert!(lost(|i| i.facts.cores = 3).contains("--cores 2"));
    assert!(lost(|i| i.partitions = 4).contains("8 partitions"));
    let damaged = Answer::Member(Member {
        name: "b".into(),
        map: vec![0; 40],
        wall_ms: 1_000_000,
        heard: Vec::new(),
    });
    assert!(refusal(&own, [("b", damaged), ("c", empty(2))]).contains("not an intact"));
}

#[test]
fn answers_round_trip_and_damage_is_no_panic() {
    for answer in [empty(1), member(1, &first_map())] {
        let bytes = answer.encode().unwrap();
        assert_eq!(Answer::decode(&bytes).unwrap(), answer);
        for at in 0..bytes.len() {
            let _ = Answer::decode(&bytes[..at]);
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _ = Answer::decode(&damaged);
        }
    }
}

/// A node of the model: its folder, and what it has heard in this round.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Modelled {
    life: u8,
    /// The cluster it belongs to, and the lives of the folders in that cluster's map.
    cluster: Option<(ClusterId, [u8; 3])>,
    heard: [Option<Heard>; 3],
    /// What it had heard by the end of the round before.
    before: [Option<Heard>; 3],
}

/// An answer: a life, and the cluster if it had one.
type Heard = (u8, Option<(ClusterId, [u8; 3])>);

type World = [Modelled; 3];

fn lives(map: &ClusterMap) -> [u8; 3] {
    let life = |node: usize| map.nodes()[node].facts.folder.as_bytes()[9] - b'0';
    [life(0), life(1), life(2)]
}

fn map_of(cluster: ClusterId, lives: [u8; 3]) -> ClusterMap {
    let nodes = (0..3).map(|node| introduction(node, 0).facts).collect();
    let mut map = ClusterMap::bootstrap(cluster, 8, 3, nodes).unwrap();
    for node in (0..3).filter(|node| lives[*node] > 0) {
        let folder = introduction(node, lives[node]).facts.folder;
        map = map.rejoin(NAMES[node], &folder).unwrap();
    }
    map
}

fn answers(heard: &[Option<Heard>; 3]) -> BTreeMap<String, Answer> {
    let answer = |(peer, heard): (usize, &Option<Heard>)| {
        let (life, cluster) = (*heard)?;
        let answer = match cluster {
            None => Answer::Empty(introduction(peer, life)),
            Some((cluster, lives)) => member(peer, &map_of(cluster, lives)),
        };
        Some((NAMES[peer].to_owned(), answer))
    };
    heard.iter().enumerate().filter_map(answer).collect()
}

/// Everything that can happen next.
fn steps(world: &World, wipes: bool) -> Vec<World> {
    let mut next = Vec::new();
    for node in 0..3 {
        if world[node].cluster.is_none() {
            for peer in (0..3).filter(|peer| *peer != node) {
                let mut asked = world.clone();
                asked[node].heard[peer] = Some((world[peer].life, world[peer].cluster));
                next.push(asked);
            }
            let mut decided = world.clone();
            let heard = std::mem::take(&mut decided[node].heard);
            // Only the lowest looks back, and only at a round in which all were empty.
            let all_empty = heard.iter().flatten().filter(|(_, c)| c.is_none()).count() == 2;
            decided[node].before = if node == 0 && all_empty {
                heard
            } else {
                [None; 3]
            };
            let (before, now) = (answers(&world[node].before), answers(&world[node].heard));
            match decide(&introduction(node, world[node].life), &before, &now) {
                Decision::AskAgain | Decision::Heard(_) => {}
                Decision::Form(map) => {
                    decided[node].cluster = Some((map.cluster(), lives(&map)));
                }
                Decision::Join { map, .. } => {
                    assert_eq!(lives(&map)[node], world[node].life);
                    decided[node].cluster = Some((map.cluster(), lives(&map)));
                }
                // It is written where all members see it.
                Decision::Claim(_) => {
                    let members = decided.iter_mut().filter_map(|n| n.cluster.as_mut());
                    members.for_each(|(_, lives)| lives[node] = world[node].life);
                }
                Decision::Refuse(words) => panic!("{words}: {world:?}"),
            }
            if decided[node].cluster.is_some() {
                // A member asks nobody.
                decided[node].before = [None; 3];
            }
            next.push(decided);
        }
        // A restart forgets the round; a wipe, the folder too.
        let mut restarted = world.clone();
        restarted[node].heard = [None; 3];
        restarted[node].before = [None; 3];
        next.push(restarted.clone());
        let others_are_members = (0..3).filter(|n| world[*n].cluster.is_some()).count() >= 2;
        if wipes && world[node].life == 0 && world[node].cluster.is_some() && others_are_members {
            restarted[node].life = 1;
            restarted[node].cluster = None;
            next.push(restarted);
        }
    }
    next
}

/// Walks every state that can be reached; gives the clusters that ever were, and how many states.
fn explore(wipes: bool) -> (BTreeSet<ClusterId>, usize) {
    let fresh = Modelled {
        life: 0,
        cluster: None,
        heard: [None; 3],
        before: [None; 3],
    };
    let start: World = [fresh.clone(), fresh.clone(), fresh];
    let mut seen = HashSet::from([start.clone()]);
    let mut todo = vec![start];
    let mut clusters = BTreeSet::new();
    while let Some(world) = todo.pop() {
        let now: BTreeSet<ClusterId> = world
            .iter()
            .filter_map(|node| node.cluster)
            .map(|(cluster, _)| cluster)
            .collect();
        assert!(now.len() <= 1, "two clusters: {world:?}");
        clusters.extend(now);
        for next in steps(&world, wipes) {
            if seen.insert(next.clone()) {
                todo.push(next);
            }
        }
    }
    (clusters, seen.len())
}

#[test]
fn every_interleaving_makes_one_cluster() {
    let (clusters, states) = explore(false);
    assert_eq!(clusters, BTreeSet::from([10]));
    assert!(states > 100, "{states}");
}

/// Nodes are wiped, as long as another member keeps its folder: never a rival cluster.
#[test]
fn wiped_nodes_never_make_a_rival() {
    let (clusters, states) = explore(true);
    assert_eq!(clusters, BTreeSet::from([10]));
    assert!(states > 1000, "{states}");
}

/// A node that has set its data aside is not empty.
#[test]
fn nodes_with_data_set_aside_form_nothing() {
    let aside = |node| Introduction {
        rejoins: 10,
        ..introduction(node, 1)
    };
    let all = round([("b", empty(1)), ("c", empty(2))]);
    assert_eq!(settled(&aside(0), &all), Decision::AskAgain);
    let one = round([("b", empty(1)), ("c", Answer::Empty(aside(2)))]);
    assert_eq!(settled(&introduction(0, 0), &one), Decision::AskAgain);
    let map = first_map();
    let joins = round([("b", member(1, &map)), ("c", Answer::Empty(aside(2)))]);
    assert_eq!(settled(&aside(0), &joins), Decision::Claim(10));
}

/// Two of three are wiped and the third is silent: they ask for ever.
#[test]
fn two_wiped_nodes_wait_for_the_third() {
    for (node, other) in [(0, 1), (1, 0), (0, 2)] {
        let answers = BTreeMap::from([(
            NAMES[other].to_owned(),
            Answer::Empty(introduction(other, 1)),
        )]);
        assert_eq!(
            settled(&introduction(node, 1), &answers),
            Decision::AskAgain
        );
    }
}

#[test]
fn a_name_that_a_member_hears_is_not_claimed() {
    let map = first_map();
    let hearing = |node, heard: &[NodeId]| {
        let Answer::Member(member) = member(node, &map) else {
            panic!("it is a member");
        };
        let heard = heard.to_vec();
        Answer::Member(Member { heard, ..member })
    };
    let mut search = Search::new(introduction(1, 1));
    let mut decide = |a: &[NodeId], c: &[NodeId]| {
        let answers = round([("a", hearing(0, a)), ("c", hearing(2, c))]);
        let decision = search.decide(1_000_000, answers);
        (decision, search.claim().is_some())
    };
    let heard = |by: &str| Decision::Heard(by.to_owned());
    assert_eq!(decide(&[3], &[1, 2]), (heard("c"), false));
    let claim = Decision::Claim(map.cluster());
    assert_eq!(decide(&[3], &[1]), (claim, true), "it is over");
    assert_eq!(decide(&[2], &[1]), (heard("a"), false), "it was not over");
    // Where the map has this very folder nobody else has the name.
    let answers = round([("a", hearing(0, &[2])), ("c", hearing(2, &[2]))]);
    let joined = Search::new(introduction(1, 0)).decide(1_000_000, answers);
    assert!(
        matches!(joined, Decision::Join { node: 2, .. }),
        "{joined:?}"
    );
}

/// What a node of a cluster of so many does at its start, if so many answer that it does not fit, for
/// their name or for their clock, and so many that it does.
fn place(nodes: u16, wrong: usize, fit: usize, by_clock: bool) -> Place {
    let name = |node: u16| format!("n{node}");
    let peers: Vec<Peer> = (0..nodes)
        .map(|node| Peer {
            name: name(node),
            address: format!("127.0.0.1:{}", 7400 + node),
        })
        .collect();
    let own = Introduction {
        facts: NodeFacts {
            name: name(0),
            ..introduction(0, 0).facts
        },
        peers,
        ..introduction(0, 0)
    };
    let map = first_map();
    let answers = (1..).take(wrong + fit).map(|node| {
        let is_wrong = usize::from(node) <= wrong;
        let off_ms = if is_wrong && by_clock { 11_000 } else { 0 };
        let called = if is_wrong && !by_clock { 0 } else { node };
        let member = Member {
            name: name(called),
            map: map.encode().unwrap(),
            wall_ms: own.wall_ms + off_ms,
            heard: Vec::new(),
        };
        (name(node), Answer::Member(member))
    });
    check_member(&own, map.cluster(), &answers.collect())
}

#[test]
fn a_member_is_wrong_where_those_left_are_no_majority_and_waits_where_nobody_agrees() {
    let table = [
        (
            2,
            [(1, 0, "wrong"), (0, 1, "fits"), (0, 0, "fits")].as_slice(),
        ),
        (
            3,
            &[
                (1, 0, "unclear"),
                (2, 0, "wrong"),
                (1, 1, "warned"),
                (0, 1, "fits"),
            ],
        ),
        (
            4,
            &[
                (1, 0, "unclear"),
                (2, 0, "wrong"),
                (2, 1, "wrong"),
                (1, 1, "warned"),
            ],
        ),
        (
            5,
            &[
                (1, 0, "unclear"),
                (2, 0, "unclear"),
                (3, 0, "wrong"),
                (3, 1, "wrong"),
            ],
        ),
        (
            5,
            &[
                (1, 1, "warned"),
                (2, 1, "warned"),
                (2, 2, "warned"),
                (0, 4, "fits"),
            ],
        ),
    ];
    for (nodes, cases) in table {
        for (wrong, fit, expected) in cases {
            for by_clock in [false, true] {
                let is = match place(nodes, *wrong, *fit, by_clock) {
                    Place::Wrong(_) => "wrong",
                    Place::Unclear(_) => "unclear",
                    Place::Fits(Some(_)) => "warned",
                    Place::Fits(None) => "fits",
                };
                // Clocks may be set yet.
                let expected = match *expected {
                    "wrong" if by_clock => "unclear",
                    expected => expected,
                };
                assert_eq!(is, expected, "of {nodes} {wrong} against and {fit} for it");
            }
        }
    }
}

#[test]
fn a_member_starts_unless_most_say_what_does_not_fit() {
    let map = first_map();
    let own = introduction(0, 0);
    let stranger = Introduction {
        proposal: 99,
        ..own.clone()
    };
    let Decision::Form(another) = settled(&stranger, &round([("b", empty(1)), ("c", empty(2))]))
    else {
        panic!("no cluster");
    };
    let another = another.encode().unwrap();
    let late = own.wall_ms + 11_000;
    let check = |answers| check_member(&own, map.cluster(), &answers);
    type Change<'c> = &'c dyn Fn(&mut Member);
    let misfits: [(Change<'_>, &str); 3] = [
        (&|member| member.name = "a".to_owned(), "says that it is a"),
        (&|member| member.map = another.clone(), "belongs to cluster"),
        (
            &|member| member.wall_ms = late,
            "11.0 s ahead of this node's",
        ),
    ];
    for (change, words) in misfits {
        let changed = |node| {
            let Answer::Member(mut member) = member(node, &map) else {
                panic!("it is a member");
            };
            change(&mut member);
            Answer::Member(member)
        };
        let said = check(round([("b", changed(1)), ("c", changed(2))]));
        let is_clock = words.contains("ahead");
        assert!(
            matches!(&said, Place::Wrong(said) if !is_clock && said.contains(words))
                || matches!(&said, Place::Unclear(said) if is_clock && said.contains(words)),
            "{said:?}"
        );
        // One of two may be at fault itself, whatever becomes of the other.
        for other in [member(2, &map), empty(2)] {
            let said = check(round([("b", changed(1)), ("c", other)]));
            assert!(
                matches!(&said, Place::Fits(Some(said)) if said.contains(words)),
                "{said:?}"
            );
        }
        let said = check(BTreeMap::from([("b".to_owned(), changed(1))]));
        assert!(
            matches!(&said, Place::Unclear(said) if said.contains(words)),
            "{said:?}"
        );
    }
    assert_eq!(check(BTreeMap::new()), Place::Fits(None));
    let well = round([("b", member(1, &map)), ("c", member(2, &map))]);
    assert_eq!(check(well), Place::Fits(None));
}
