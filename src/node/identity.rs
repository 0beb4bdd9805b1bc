//! Which node of which cluster this process is: settled before any core starts.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use ringbolt_wire::message::NodeId;

use super::StartError;
use super::format::DataDir;
use super::meet::{self, Reception, Round};
use crate::cluster::bootstrap::{self, Answer, Decision, Introduction, Member, Place, Search};
use crate::cluster::leaving::FolderTold;
use crate::cluster::map::{ClusterMap, NodeFacts};
use crate::cluster::namesake::Namesake;
use crate::config::{Peer, Settings};

/// The pause between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long nothing is said of peers that are waited for, and how often it is said then.
const FIRST_WORD: Duration = Duration::from_secs(1);
const EVERY_WORD: Duration = Duration::from_secs(5);

/// This node's place in its cluster.
pub(super) struct Membership {
    /// Its number.
    pub node: NodeId,
    /// The cluster as this node last knew it.
    pub map: ClusterMap,
}

/// Makes the folder this node's, and finds or makes its place in a cluster. A node without `--peers`
/// is a cluster of one. Other nodes are waited for without end, and told of; meanwhile `port` is this
/// node's, to answer them. None if `stop`, which waits a while, says so.
///
/// # Errors
/// The folder is another node's, or of other peers; the cluster cannot be made, or this node cannot
/// have its place in it.
pub(super) fn settle(
    settings: &Settings,
    dir: &mut DataDir,
    port: TcpListener,
    mut stop: impl FnMut(Duration) -> Result<bool, StartError>,
) -> Result<Option<Membership>, StartError> {
    dir.identify(&settings.name, &settings.peers)?;
    if let Some(why) = found_lost(settings, dir)? {
        dir.lose(&why)?;
        let id = super::random_id().map_err(|error| StartError::io("/dev/urandom", &error))?;
        let aside = dir.set_aside(id)?;
        tracing::error!(
            "the data of this node must not be used any more: {why}. It is kept in {} and the node \
             begins anew: it gets the data from the others, under new replica ids",
            aside.display()
        );
    }
    let own = introduce(settings, dir)?;
    if let Some((map, node)) = dir.cluster()? {
        if !check_place(&own, &map, port, &mut stop)? {
            return Ok(None);
        }
        let map = refresh(map, node, own.facts, dir)?;
        return Ok(Some(Membership { node, map }));
    }
    let Some((map, node)) = find(own, port, dir.path(), stop)? else {
        return Ok(None);
    };
    dir.belong(&map, node)?;
    Ok(Some(Membership { node, map }))
}

/// Asks the peers whether a node that belongs to a cluster is where it belongs: those that are not there
/// now will be served when they come. Where that is unclear it asks until it is not, and meanwhile
/// answers those that ask the same. `false` if it is to stop.
fn check_place(
    own: &Introduction,
    map: &ClusterMap,
    port: TcpListener,
    mut stop: impl FnMut(Duration) -> Result<bool, StartError>,
) -> Result<bool, StartError> {
    if own.peers.len() < 2 {
        return Ok(true);
    }
    let name = &own.facts.name;
    let told = Answer::Member(Member {
        name: name.clone(),
        map: map
            .encode()
            .map_err(|error| StartError::Cluster(error.to_string()))?,
        wall_ms: own.wall_ms,
        heard: Vec::new(),
    });
    let _answering = answer_peers(port, told)?;
    let mut tell_at = Instant::now();
    loop {
        let others = own.peers.iter().filter(|peer| peer.name != *name);
        let round = meet::ask_all(others, name, None, meet::GLANCE_MAX);
        let own = Introduction {
            wall_ms: round.wall_ms,
            ..own.clone()
        };
        match bootstrap::check_member(&own, map.cluster(), &round.answers) {
            Place::Fits(words) => {
                if let Some(words) = words {
                    tracing::warn!("{words}");
                }
                return Ok(true);
            }
            Place::Wrong(words) => return Err(StartError::Cluster(words)),
            Place::Unclear(words) if Instant::now() >= tell_at => {
                tell_at = Instant::now() + EVERY_WORD;
                tracing::error!(
                    "not started yet: {words}. It may be the fault of either, and no other node \
                     answers: this one waits until that is mended, or another node agrees with it"
                );
            }
            Place::Unclear(_) => {}
        }
        if stop(PAUSE)? {
            return Ok(false);
        }
    }
}

fn answer_peers(port: TcpListener, told: Answer) -> Result<Reception, StartError> {
    Reception::open(port, told)
        .map_err(|error| StartError::Cluster(format!("peers cannot be answered: {error}")))
}

/// Why the data of a node of several must not be used any more, as far as its folder tells. Of a node
/// alone there is no other copy: its damage is an error, and what to do is the operator's decision.
fn found_lost(settings: &Settings, dir: &DataDir) -> Result<Option<String>, StartError> {
    if settings.peers.len() < 2 {
        return Ok(None);
    }
    let format = dir.format();
    // Of data that is known to be lost some may have been moved already.
    let known = match format.lost {
        Some(_) => None,
        None => match dir.cluster().and_then(|known| dir.seen().map(|_| known)) {
            Ok(known) => known,
            Err(StartError::Damaged { path, what }) => {
                return Ok(Some(format!("{}: {what}", path.display())));
            }
            Err(error) => return Err(error),
        },
    };
    let told = FolderTold {
        id: &format.id,
        lost: format.lost.as_deref(),
        belongs: known.as_ref().map(|(map, node)| (map, *node)),
        missing_log: (0..format.cores).find(|core| format.begun && !dir.has_log(*core)),
    };
    Ok(told.why_lost())
}

/// Asks the peers until one of the rules of [`decide`] ends it. When this returns nobody is told any
/// more that this node is without a cluster: only then may its place in one be written.
fn find(
    own: Introduction,
    port: TcpListener,
    folder: &Path,
    mut stop: impl FnMut(Duration) -> Result<bool, StartError>,
) -> Result<Option<(ClusterMap, NodeId)>, StartError> {
    let _answering = answer_peers(port, Answer::Empty(own.clone()))?;
    let name = own.facts.name.clone();
    let peers = own.peers.clone();
    let mut search = Search::new(own);
    let (mut namesake, mut may_claim) = (Namesake::default(), false);
    let begun = Instant::now();
    let mut tell_at = begun + FIRST_WORD;
    loop {
        let was_lost = search.claim().is_some();
        let claim = search.claim().filter(|_| may_claim);
        // A node without peers has nobody who could look for it elsewhere.
        let asked = peers.iter().filter(|_| peers.len() > 1);
        let Round {
            wall_ms,
            answers,
            own,
            silent,
        } = meet::ask_all(asked, &name, claim, meet::ASK_MAX);
        let decision = search.decide(wall_ms, answers);
        may_claim = namesake
            .may_claim(begun.elapsed(), search.own(), own.as_ref(), &decision)
            .map_err(StartError::Cluster)?;
        match decision {
            Decision::Form(map) => {
                let node = map.node_named(&name).map_or(1, |node| node.id);
                return Ok(Some((map, node)));
            }
            Decision::Join { map, node } => return Ok(Some((map, node))),
            Decision::Claim(cluster) if !was_lost => {
                tell_at = Instant::now() + FIRST_WORD;
                tracing::warn!(
                    "cluster {cluster:016x} knows this node with other data than is in {}: it is \
                     begun anew and gets the data from the others",
                    folder.display()
                );
            }
            Decision::Refuse(words) => return Err(StartError::Cluster(words)),
            Decision::Heard(member) if Instant::now() >= tell_at => {
                tell_at = Instant::now() + EVERY_WORD;
                tracing::info!(
                    "waiting: {member} hears this node's earlier life, or another node of its name"
                );
            }
            Decision::Heard(_) | Decision::Claim(_) | Decision::AskAgain => {}
        }
        if Instant::now() >= tell_at {
            tell_at = Instant::now() + EVERY_WORD;
            tell(&search, &silent);
        }
        if stop(PAUSE)? {
            return Ok(None);
        }
    }
}

/// Tells the operator who is waited for.
fn tell(search: &Search, silent: &[(String, String)]) {
    let (own, is_lost) = (search.own(), search.claim().is_some());
    let address = |name: &str| {
        let peer = own.peers.iter().find(|peer| peer.name == name);
        peer.map_or("", |peer| peer.address.as_str())
    };
    let silent: Vec<String> = silent
        .iter()
        .map(|(name, why)| format!("{name} at {} ({why})", address(name)))
        .collect();
    match own.peers.first() {
        _ if is_lost => tracing::info!(
            "waiting to be taken in again: the leader of partition 0 does it once it has heard \
             nothing of this node's earlier life for some seconds; it needs most of the nodes with \
             their data{}",
            if silent.is_empty() {
                String::new()
            } else {
                format!(", and there is no answer from {}", silent.join(", "))
            }
        ),
        _ if own.rejoins != 0 && silent.is_empty() => tracing::error!(
            "no node that answers has the data of cluster {:016x}: this one has set its own aside \
             and waits for a node that has it",
            own.rejoins
        ),
        _ if !silent.is_empty() => tracing::info!("waiting for {}", silent.join(", ")),
        Some(first) => tracing::info!("waiting for {} to form the cluster", first.name),
        None => {}
    }
}

/// A cluster of one takes what its node says of itself now: another address, other cores after
/// `ringbolt recore`. Where there are more nodes, the map is theirs together.
fn refresh(
    map: ClusterMap,
    node: NodeId,
    facts: NodeFacts,
    dir: &mut DataDir,
) -> Result<ClusterMap, StartError> {
    let Some(known) = map.node(node).filter(|known| known.facts != facts) else {
        return Ok(map);
    };
    if map.nodes().len() > 1 {
        let (name, cores) = (&facts.name, facts.cores);
        return match known.facts.cores {
            // Peers look for a partition on the core that the map's number of cores gives it.
            told if told != cores => Err(StartError::Cluster(format!(
                "node {name} joined its cluster with {told} cores and has {cores} now: move its \
                 partitions back with ringbolt recore --cores {told}"
            ))),
            _ => Ok(map),
        };
    }
    let map = map
        .update_node(node, facts)
        .map_err(|error| StartError::Cluster(error.to_string()))?;
    dir.belong(&map, node)?;
    Ok(map)
}

/// What this node says of itself to its peers.
fn introduce(settings: &Settings, dir: &DataDir) -> Result<Introduction, StartError> {
    let alone = vec![Peer {
        name: settings.name.clone(),
        address: settings.listen.to_string(),
    }];
    let peers = if settings.peers.is_empty() {
        alone
    } else {
        settings.peers.clone()
    };
    let own = peers.iter().find(|peer| peer.name == settings.name);
    let address = own.map_or_else(|| settings.listen.to_string(), |peer| peer.address.clone());
    let random = super::random_id().map_err(|error| StartError::io("/dev/urandom", &error))?;
    let proposal = u64::from_str_radix(&random[..16], 16).unwrap_or_default();
    Ok(Introduction {
        facts: NodeFacts {
            name: settings.name.clone(),
            address,
            cores: settings.cores,
            zone: settings.zone.clone(),
            weight: settings.weight,
            folder: dir.format().id.clone(),
        },
        peers,
        partitions: dir.format().partitions,
        replication: settings.replication,
        // 0 stands for no cluster.
        proposal: proposal.max(1),
        rejoins: dir.rejoins(),
        wall_ms: meet::wall_ms(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::format::Format;

    fn facts(name: &str, port: u16, cores: u16) -> NodeFacts {
        NodeFacts {
            name: name.to_owned(),
            address: format!("127.0.0.1:{port}"),
            cores,
            zone: "z".to_owned(),
            weight: 100,
            folder: name.to_owned(),
        }
    }

    #[test]
    fn only_a_cluster_of_one_takes_other_cores() {
        let folder = tempfile::tempdir().unwrap();
        let mut dir = DataDir::open(folder.path(), || {
            Ok(Format::new("a".into(), 4, 128, "dsync"))
        })
        .unwrap();
        dir.identify("a", &[]).unwrap();
        let now = facts("a", 1, 4);
        let alone = ClusterMap::bootstrap(7, 128, 3, vec![facts("a", 1, 2)]).unwrap();
        let taken = refresh(alone, 1, now.clone(), &mut dir).unwrap();
        assert_eq!(taken.node(1).unwrap().facts, now);
        assert_eq!(dir.cluster().unwrap(), Some((taken, 1)));

        let nodes = vec![facts("a", 1, 2), facts("b", 2, 2)];
        let two = ClusterMap::bootstrap(7, 128, 3, nodes).unwrap();
        let error = refresh(two.clone(), 1, now, &mut dir).unwrap_err();
        assert!(error.to_string().contains("recore --cores 2"), "{error}");
        let same = facts("a", 1, 2);
        assert_eq!(refresh(two.clone(), 1, same, &mut dir).unwrap(), two);
    }
}
