use super::response::{read_text, write_text};
use crate::message::{NodeInfo, Replicas, Topology};
use crate::read::Reader;
use crate::{PARTITIONS_MAX, WireError};

/// Length of a node in a topology before its texts, in bytes: number, cores, three lengths.
const NODE_BYTES_MIN: usize = 12;
/// Shortest entry of a partition in a topology, in bytes: leader, count, one node.
const REPLICAS_BYTES_MIN: usize = 10;
/// Length of a node's number, in bytes.
const NODE_ID_BYTES: usize = 4;

pub(super) fn write_topology(out: &mut Vec<u8>, topology: &Topology) {
    out.extend_from_slice(&topology.cluster.to_le_bytes());
    out.extend_from_slice(&topology.version.to_le_bytes());
    out.extend_from_slice(&topology.here.to_le_bytes());
    out.extend_from_slice(&(topology.nodes.len() as u16).to_le_bytes());
    out.extend_from_slice(&topology.partitions().to_le_bytes());
    for node in &topology.nodes {
        out.extend_from_slice(&node.id.to_le_bytes());
        out.extend_from_slice(&node.cores.to_le_bytes());
        for text in [&node.name, &node.address, &node.zone] {
            write_text(out, text);
        }
    }
    for replicas in &topology.replicas {
        out.extend_from_slice(&replicas.leader.to_le_bytes());
        out.extend_from_slice(&(replicas.nodes.len() as u16).to_le_bytes());
        for node in &replicas.nodes {
            out.extend_from_slice(&node.to_le_bytes());
        }
    }
}

pub(super) fn read_topology(body: &mut Reader<'_>) -> Result<Topology, WireError> {
    let cluster = body.u64()?;
    let version = body.u64()?;
    let here = body.u32()?;
    let node_count = usize::from(body.u16()?);
    let partitions = body.u16()?;
    if !partitions.is_power_of_two() || partitions > PARTITIONS_MAX {
        return Err(WireError::Malformed {
            what: "the number of partitions is no power of two up to 16384",
        });
    }
    let mut topology = Topology {
        cluster,
        version,
        here,
        nodes: read_nodes(body, node_count)?,
        replicas: Vec::new(),
    };
    if topology.node(here).is_none() {
        return Err(WireError::Malformed {
            what: "a topology does not know the node that tells it",
        });
    }
    topology.replicas = read_replicas(body, &topology, usize::from(partitions))?;
    Ok(topology)
}

fn read_nodes(body: &mut Reader<'_>, count: usize) -> Result<Vec<NodeInfo>, WireError> {
    body.check_count(count, NODE_BYTES_MIN)?;
    let mut nodes = Vec::with_capacity(count);
    let mut last = 0;
    for _ in 0..count {
        let id = body.u32()?;
        let cores = body.u16()?;
        if id <= last || cores == 0 {
            return Err(WireError::Malformed {
                what: "a topology's nodes do not ascend from 1, or one has no core",
            });
        }
        last = id;
        nodes.push(NodeInfo {
            id,
            name: read_text(body)?.to_owned(),
            address: read_text(body)?.to_owned(),
            cores,
            zone: read_text(body)?.to_owned(),
        });
    }
    Ok(nodes)
}

fn read_replicas(
    body: &mut Reader<'_>,
    topology: &Topology,
    partitions: usize,
) -> Result<Vec<Replicas>, WireError> {
    body.check_count(partitions, REPLICAS_BYTES_MIN)?;
    let known = |id| match topology.node(id) {
        Some(_) => Ok(id),
        None => Err(WireError::Malformed {
            what: "a partition is on a node that does not exist",
        }),
    };
    let mut all = Vec::with_capacity(partitions);
    for _ in 0..partitions {
        let leader = match body.u32()? {
            0 => 0,
            leader => known(leader)?,
        };
        let count = usize::from(body.u16()?);
        if count == 0 {
            return Err(WireError::Malformed {
                what: "a partition is on no node",
            });
        }
        body.check_count(count, NODE_ID_BYTES)?;
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            nodes.push(known(body.u32()?)?);
        }
        all.push(Replicas { leader, nodes });
    }
    Ok(all)
}
