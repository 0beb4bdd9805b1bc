//! A name is for one node only.
//!
//! A node that comes without the data of its name is taken in again under new replica ids, and whoever had
//! that name before sets its data aside. That is right where the earlier life is over, and costs a healthy
//! node its data where somebody has started a second one by mistake. So before a node claims its name, and
//! while it does:
//!
//! - It asks at the address where the peers look for it. If another start answers there, it **refuses**. If
//!   it reaches itself, nobody else is to be found there, and it may claim. If nobody answers (the
//!   address may not lead back here at all, or the other one is silent for a moment) it claims only after
//!   [`SILENT_FOR`] of that.
//! - Members say whom they hear. While one of them hears the earlier life nothing is claimed; after
//!   [`HEARD_FOR`], more than it takes to notice that a node has ended, this one **refuses**.
//!
//! The leader of the map's partition admits no claim while it hears the earlier life itself.

use std::time::Duration;

use super::bootstrap::{Answer, Decision, Introduction, Member};
use super::map::ClusterMap;

/// How long nobody must have answered at the node's own address before its name is claimed.
pub const SILENT_FOR: Duration = Duration::from_secs(10);
/// How long members may go on hearing the earlier life before this one takes it for alive.
pub const HEARD_FOR: Duration = Duration::from_secs(10);

/// What a node without a cluster has seen of others of its name.
#[derive(Debug, Default)]
pub struct Namesake {
    silent_since: Option<Duration>,
    heard_since: Option<Duration>,
}

impl Namesake {
    /// Whether the name may be claimed in the next round, after one that ended at `now` with this decision
    /// and in which this was answered at the node's own address.
    ///
    /// # Errors
    /// In words: another start has this name.
    pub fn may_claim(
        &mut self,
        now: Duration,
        own: &Introduction,
        answer: Option<&Answer>,
        decision: &Decision,
    ) -> Result<bool, String> {
        // A folder that the map knows is the name's, whoever answers.
        if matches!(decision, Decision::Join { .. } | Decision::Refuse(_)) {
            return Ok(false);
        }
        let is_itself = answer.is_some_and(|answer| is_own(own, answer));
        if let Some(answer) = answer.filter(|_| !is_itself) {
            return Err(other_at_own_address(own, answer));
        }
        let Decision::Heard(member) = decision else {
            self.heard_since = None;
            if is_itself || !matches!(decision, Decision::Claim(_)) {
                self.silent_since = None;
                return Ok(is_itself);
            }
            let since = *self.silent_since.get_or_insert(now);
            return Ok(now.saturating_sub(since) >= SILENT_FOR);
        };
        self.silent_since = None;
        let since = *self.heard_since.get_or_insert(now);
        if now.saturating_sub(since) < HEARD_FOR {
            return Ok(false);
        }
        let name = &own.facts.name;
        Err(format!(
            "node {name} runs already: {member} hears it. A name is for one node only: stop that one, \
             or start this one with a name of its own (--node)"
        ))
    }
}

/// Whether an answer is this very start's.
fn is_own(own: &Introduction, answer: &Answer) -> bool {
    match answer {
        // The proposal is drawn at each start.
        Answer::Empty(theirs) => {
            (&theirs.facts.folder, theirs.proposal) == (&own.facts.folder, own.proposal)
        }
        Answer::Member(_) => false,
    }
}

fn other_at_own_address(own: &Introduction, answer: &Answer) -> String {
    let facts = &own.facts;
    let (name, is) = match answer {
        Answer::Empty(theirs) => (&theirs.facts.name, "and waits for its peers".to_owned()),
        Answer::Member(Member { name, map, .. }) => {
            let is = match ClusterMap::decode(map) {
                Ok(map) => format!("as a member of cluster {:016x}", map.cluster()),
                Err(_) => "as a member of a cluster".to_owned(),
            };
            (name, is)
        }
    };
    if *name != facts.name {
        return format!(
            "the node at {}, where --peers has this one, is {name}: correct the list on every node",
            facts.address
        );
    }
    format!(
        "node {name} runs already, at {} {is}. A name is for one node only: stop that one, or start \
         this one with a name of its own (--node)",
        facts.address
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::map::NodeFacts;

    const SECOND: Duration = Duration::from_secs(1);

    fn own() -> Introduction {
        Introduction {
            facts: NodeFacts {
                name: "b".to_owned(),
                address: "10.0.0.2:7400".to_owned(),
                cores: 1,
                zone: String::new(),
                weight: 1,
                folder: "new".to_owned(),
            },
            peers: Vec::new(),
            partitions: 8,
            replication: 3,
            proposal: 5,
            rejoins: 0,
            wall_ms: 1,
        }
    }

    fn member(name: &str) -> Answer {
        Answer::Member(Member {
            name: name.to_owned(),
            map: Vec::new(),
            wall_ms: 1,
            heard: Vec::new(),
        })
    }

    #[test]
    fn another_start_at_the_own_address_is_refused_and_oneself_is_not() {
        let (own, claim) = (own(), Decision::Claim(7));
        let after = |answer: &Answer, decision: &Decision| {
            Namesake::default().may_claim(SECOND, &own, Some(answer), decision)
        };
        let later = Answer::Empty(Introduction {
            wall_ms: 900,
            ..own.clone()
        });
        assert_eq!(after(&later, &claim), Ok(true), "itself");
        let other = Answer::Empty(Introduction {
            proposal: 6,
            ..own.clone()
        });
        for decision in [
            &claim,
            &Decision::AskAgain,
            &Decision::Heard("a".to_owned()),
        ] {
            for answer in [&other, &member("b")] {
                let said = after(answer, decision).unwrap_err();
                assert!(
                    said.contains("node b runs already, at 10.0.0.2:7400"),
                    "{said}"
                );
            }
        }
        let said = after(&member("c"), &claim).unwrap_err();
        assert!(said.contains("where --peers has this one, is c"), "{said}");
    }

    #[test]
    fn a_name_is_claimed_only_after_a_while_of_silence() {
        let (own, claim) = (own(), Decision::Claim(7));
        let mut namesake = Namesake::default();
        let mut after = |now, answer| namesake.may_claim(now, &own, answer, &claim);
        assert_eq!(after(SECOND, None), Ok(false));
        assert_eq!(after(SILENT_FOR, None), Ok(false));
        assert_eq!(after(SECOND + SILENT_FOR, None), Ok(true));
        let itself = Answer::Empty(own.clone());
        assert_eq!(after(2 * SILENT_FOR, Some(&itself)), Ok(true));
        assert_eq!(after(3 * SILENT_FOR, None), Ok(false), "from the beginning");
    }

    #[test]
    fn a_name_that_members_hear_is_refused_after_a_while() {
        let (own, claim) = (own(), Decision::Claim(7));
        let heard = Decision::Heard("a".to_owned());
        let itself = Answer::Empty(own.clone());
        let mut namesake = Namesake::default();
        let mut after = |now, decision| namesake.may_claim(now, &own, Some(&itself), decision);
        // It has just ended.
        assert_eq!(after(SECOND, &heard), Ok(false));
        assert_eq!(after(4 * SECOND, &claim), Ok(true));
        assert_eq!(after(5 * SECOND, &heard), Ok(false));
        assert_eq!(after(HEARD_FOR, &heard), Ok(false));
        let said = after(5 * SECOND + HEARD_FOR, &heard).unwrap_err();
        assert!(said.contains("node b runs already: a hears it"), "{said}");
    }
}
