//! Whose the folder is, and what it knows of the cluster: the node's name, its place in the map, the
//! other nodes' starts.

use ringbolt_wire::message::NodeId;
use xxhash_rust::xxh3::xxh3_64;

use super::{CLUSTER_FILE, DataDir, FORMAT_FILE, NodeIdentity, SEEN_FILE};
use crate::cluster::map::ClusterMap;
use crate::cluster::{ClusterId, Seen, ToldStart};
use crate::config::{Peer, show_peers};
use crate::node::StartError;

impl DataDir {
    /// The start that the other nodes are to be told of: the one before, if none of them has welcomed it
    /// yet, or else this one, for which `random` was drawn. It is durable when this returns.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn tell_start(&mut self, random: u64) -> Result<ToldStart, StartError> {
        let before = self.format.told.as_deref().and_then(ToldStart::decode);
        if let Some(told) = before {
            return Ok(told);
        }
        let told = ToldStart {
            boots: self.format.boots,
            random,
        };
        self.format.told = Some(told.encode());
        self.write()?;
        Ok(told)
    }

    /// Another node has welcomed this start: the next one is told of as a new one.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn start_welcomed(&mut self) -> Result<(), StartError> {
        match self.format.told.take() {
            Some(_) => self.write(),
            None => Ok(()),
        }
    }

    /// Makes the folder this node's, if it is nobody's yet.
    ///
    /// # Errors
    /// [`StartError::OtherNode`], [`StartError::OtherPeers`]: it is another node's already.
    /// [`StartError::Io`].
    pub fn identify(&mut self, name: &str, peers: &[Peer]) -> Result<(), StartError> {
        let peers = show_peers(peers);
        match &self.format.node {
            Some(found) if found.peers != peers => {
                return Err(StartError::OtherPeers {
                    dir: self.path.clone(),
                    found: found.peers.clone(),
                    given: peers,
                });
            }
            Some(found) if found.name == name => return Ok(()),
            Some(found) => {
                return Err(StartError::OtherNode {
                    dir: self.path.clone(),
                    found: found.name.clone(),
                    wanted: name.to_owned(),
                });
            }
            None => {
                self.format.node = Some(NodeIdentity {
                    name: name.to_owned(),
                    peers,
                    cluster: None,
                    id: None,
                });
            }
        }
        self.write()
    }

    /// Keeps the map durably, and from then on belongs to its cluster as `node`.
    ///
    /// # Errors
    /// [`StartError::OtherCluster`] if the folder belongs to another one, or is another node of it.
    /// [`StartError::Io`].
    pub fn belong(&mut self, map: &ClusterMap, node: NodeId) -> Result<(), StartError> {
        let path = self.path.clone();
        let cluster = format!("{:016x}", map.cluster());
        let Some(identity) = &mut self.format.node else {
            return Err(StartError::Damaged {
                path: path.join(FORMAT_FILE),
                what: "it does not say which node it is".to_owned(),
            });
        };
        let belongs = identity.cluster.clone().zip(identity.id);
        if let Some((found, id)) = belongs.filter(|own| *own != (cluster.clone(), node)) {
            return Err(StartError::OtherCluster {
                dir: path,
                found: format!("node {id} of cluster {found}"),
                wanted: format!("node {node} of cluster {cluster}"),
            });
        }
        let bytes = map.encode().map_err(|error| StartError::Damaged {
            path: path.join(CLUSTER_FILE),
            what: error.to_string(),
        })?;
        identity.cluster = Some(cluster);
        identity.id = Some(node);
        self.replace(CLUSTER_FILE, &bytes)?;
        self.write()
    }

    /// The map that was kept last, and this node's number in it; none if the folder does not belong
    /// to a cluster yet.
    ///
    /// # Errors
    /// [`StartError::Damaged`] if the map is not intact, or not that of the folder's cluster;
    /// [`StartError::Io`].
    pub fn cluster(&self) -> Result<Option<(ClusterMap, NodeId)>, StartError> {
        let identity = self.format.node.as_ref();
        let Some((cluster, node)) = identity.and_then(|i| i.cluster.as_ref().zip(i.id)) else {
            return Ok(None);
        };
        let path = self.path.join(CLUSTER_FILE);
        let bytes = std::fs::read(&path).map_err(|error| StartError::io(&path, &error))?;
        let damaged = |what: String| StartError::Damaged {
            path: path.clone(),
            what,
        };
        let map = ClusterMap::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        if format!("{:016x}", map.cluster()) != *cluster || map.node(node).is_none() {
            return Err(damaged(format!(
                "it is the map of cluster {:016x}, FORMAT says node {node} of cluster {cluster}",
                map.cluster()
            )));
        }
        Ok(Some((map, node)))
    }

    /// The starts of other nodes that were kept; none before there were any.
    ///
    /// # Errors
    /// [`StartError::Damaged`], [`StartError::Io`].
    pub fn seen(&self) -> Result<Vec<Seen>, StartError> {
        let path = self.path.join(SEEN_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StartError::io(&path, &error)),
        };
        read_seen(&text).ok_or_else(|| StartError::Damaged {
            path,
            what: "its checksum does not match".to_owned(),
        })
    }

    /// Keeps the starts of other nodes durably.
    ///
    /// # Errors
    /// [`StartError::Io`].
    pub fn keep_seen(&self, seen: &[Seen]) -> Result<(), StartError> {
        self.replace(SEEN_FILE, write_seen(seen).as_bytes())
    }

    /// The cluster that the data was of that has been set aside; 0 if there was none.
    #[must_use]
    pub fn rejoins(&self) -> ClusterId {
        let rejoins = self.format.rejoins.as_ref();
        rejoins.map_or(0, |id| {
            u64::from_str_radix(id, 16).unwrap_or(ClusterId::MAX)
        })
    }
}

/// One line a node: node, boot and start in hexadecimal; the last line is the checksum of the others.
fn write_seen(seen: &[Seen]) -> String {
    let mut text = String::new();
    for Seen { node, boot, start } in seen {
        text.push_str(&format!("{node:x} {boot:x} {start:x}\n"));
    }
    let checksum = xxh3_64(text.as_bytes());
    text + &format!("{checksum:016x}\n")
}

fn read_seen(text: &str) -> Option<Vec<Seen>> {
    let at = text.len().checked_sub(17)?;
    let (lines, checksum) = text.split_at_checked(at)?;
    let checksum = u64::from_str_radix(checksum.trim_end(), 16).ok()?;
    if xxh3_64(lines.as_bytes()) != checksum {
        return None;
    }
    let number = |text: Option<&str>| u64::from_str_radix(text?, 16).ok();
    lines
        .lines()
        .map(|line| {
            let mut parts = line.split(' ');
            Some(Seen {
                node: number(parts.next())?.try_into().ok()?,
                boot: number(parts.next())?,
                start: number(parts.next())?,
            })
        })
        .collect()
}
