//! When a node of several parts with its data, to get it from the others: the rules, without I/O.
//!
//! - At its start: its folder tells that the data must not be used ([`FolderTold`]).
//! - While it runs: its tables are damaged. It goes, to come back without them, but only once the others
//!   can do without it ([`Leaving`]). Its log is whole, so until then it stores and votes, and answers for
//!   what is not damaged; it leads nothing, which also tells the others that it is about to go. Of several
//!   such nodes the one of the lowest number goes first, and the next once it is back with all its data.

use std::time::Duration;

use super::map::ClusterMap;
use super::{ClusterView, NodeId};

/// How long the others must have been able to do without a node whose tables are damaged: longer than
/// they take to hear of each other's wish to go.
const LEAVE_AFTER: Duration = Duration::from_secs(3);

/// What a node's folder tells at its start.
#[derive(Debug, Clone, Copy)]
pub struct FolderTold<'a> {
    /// Its identity.
    pub id: &'a str,
    /// Why its data was found to be lost, if it was.
    pub lost: Option<&'a str>,
    /// The map that it kept last, and the node's number in it.
    pub belongs: Option<(&'a ClusterMap, NodeId)>,
    /// A core whose log is not there, though it was once.
    pub missing_log: Option<u16>,
}

impl FolderTold<'_> {
    /// Why the data must not be used any more, if that is so.
    #[must_use]
    pub fn why_lost(&self) -> Option<String> {
        if let Some(why) = self.lost {
            return Some(why.to_owned());
        }
        let own = self.belongs.and_then(|(map, node)| map.node(node));
        if own.is_some_and(|own| own.facts.folder != self.id) {
            let why = "the cluster has taken this node in again with another data folder";
            return Some(why.to_owned());
        }
        self.missing_log
            .map(|core| format!("the log of core {core} is gone"))
    }
}

/// Watches over a node whose tables may be found damaged.
#[derive(Debug, Default)]
pub struct Leaving {
    /// Since when the others could do without it.
    since: Option<Duration>,
}

impl Leaving {
    /// Looks at a node of `cores` cores at this moment, of any clock that only goes forward: why it must
    /// go now, if it must. To be called several times a second.
    #[must_use]
    pub fn look(&mut self, cluster: &ClusterView, cores: u16, now: Duration) -> Option<String> {
        let what = cluster.damage().filter(|_| cluster.nodes().len() > 1)?;
        if !cluster.drains() {
            tracing::error!(
                "{what}: this node leads nothing any more, and begins anew once all others are there"
            );
            cluster.drain(true);
        }
        if cluster.settled_cores() < usize::from(cores) || cluster.led_here() > 0 {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        (now.saturating_sub(since) >= LEAVE_AFTER).then(|| what.to_owned())
    }
}
