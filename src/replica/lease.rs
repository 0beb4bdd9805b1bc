//! The leader's lease: until when no other leader can have been elected.
//!
//! A follower that heard a heartbeat grants no vote for one election timeout after it. So a leader
//! that knows a quorum to have heard a heartbeat it sent at time *t* is the only leader until *t*
//! plus the election timeout, less what the clocks of two machines may disagree about. Each
//! heartbeat carries the leader's clock, each answer brings it back: no clock is ever compared with
//! another machine's.

use std::time::Duration;

use raft::prelude::ConfState;

use super::{ELECTION_TICKS_MIN, TICK};

/// What two clocks may drift apart in one election timeout: five in a hundred.
const DRIFT_PERCENT: u32 = 5;

/// How long a lease lasts from the sending of the heartbeat round that a quorum answered.
pub(super) const LEASE: Duration = {
    let timeout = TICK.as_millis() as u32 * ELECTION_TICKS_MIN as u32;
    // A follower's tick may be due as the heartbeat comes, and one more may be on its way.
    let less_ticks = timeout - 2 * TICK.as_millis() as u32;
    Duration::from_millis((less_ticks - timeout * DRIFT_PERCENT / 100) as u64)
};

/// What a leader knows of its followers' answers.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// By replica: when the newest heartbeat was sent that it answered.
    answered: Vec<(u64, Duration)>,
    until: Duration,
}

impl Lease {
    /// Another term, or leadership is being handed over: nothing is known.
    pub(super) fn drop_all(&mut self) {
        self.answered.clear();
        self.until = Duration::ZERO;
    }

    /// `from` answered the heartbeat sent at `sent`.
    pub(super) fn answered(&mut self, from: u64, sent: Duration, me: u64, conf: &ConfState) {
        match self.answered.iter_mut().find(|(id, _)| *id == from) {
            Some((_, newest)) => *newest = sent.max(*newest),
            None => self.answered.push((from, sent)),
        }
        let mut heard = self.quorum_heard(&conf.voters, me);
        if !conf.voters_outgoing.is_empty() {
            heard = heard.min(self.quorum_heard(&conf.voters_outgoing, me));
        }
        if let Some(heard) = heard {
            self.until = self.until.max(heard + LEASE);
        }
    }

    /// Until when it holds.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    /// The latest moment such that a quorum of `voters` answered heartbeats sent then or later.
    /// This replica counts as having answered everything.
    fn quorum_heard(&self, voters: &[u64], me: u64) -> Option<Duration> {
        let mut heard: Vec<Duration> = voters
            .iter()
            .map(|voter| {
                if *voter == me {
                    return Duration::MAX;
                }
                let known = self.answered.iter().find(|(id, _)| id == voter);
                known.map_or(Duration::ZERO, |(_, sent)| *sent)
            })
            .collect();
        heard.sort_unstable_by(|a, b| b.cmp(a));
        let quorum = *heard.get(voters.len() / 2)?;
        (quorum != Duration::ZERO && quorum != Duration::MAX).then_some(quorum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64], outgoing: &[u64]) -> ConfState {
        let mut conf = ConfState::default();
        conf.set_voters(voters.to_vec());
        conf.set_voters_outgoing(outgoing.to_vec());
        conf
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_runs_from_the_sending_of_what_a_quorum_answered() {
        let mut lease = Lease::default();
        let five = conf(&[1, 2, 3, 4, 5], &[]);
        lease.answered(2, ms(1000), 1, &five);
        assert_eq!(lease.until(), Duration::ZERO, "two of five are no quorum");
        lease.answered(3, ms(900), 1, &five);
        assert_eq!(lease.until(), ms(900) + LEASE);
        lease.answered(4, ms(950), 1, &five);
        assert_eq!(lease.until(), ms(950) + LEASE);
        lease.answered(2, ms(100), 1, &five);
        assert_eq!(
            lease.until(),
            ms(950) + LEASE,
            "an old answer takes nothing back"
        );
        lease.drop_all();
        assert_eq!(lease.until(), Duration::ZERO);
    }

    #[test]
    fn both_halves_of_a_joint_state_must_have_answered() {
        let mut lease = Lease::default();
        let joint = conf(&[1, 2, 3], &[1, 4, 5]);
        lease.answered(2, ms(1000), 1, &joint);
        assert_eq!(lease.until(), Duration::ZERO);
        lease.answered(5, ms(700), 1, &joint);
        assert_eq!(lease.until(), ms(700) + LEASE);
    }
}
