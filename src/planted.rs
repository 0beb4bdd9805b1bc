//! Bugs planted in the shard and its replicas on purpose, to prove that the cluster simulation finds
//! such bugs: the cluster's part of `ringbolt_engine::planted`.
//!
//! Without the cargo feature `planted-bugs` every switch is the constant `false` and the compiler
//! removes what it guards. With it, [`plant`] turns one bug on for the current thread;
//! `ringbolt-sim cluster-bugs` then runs seeds until one fails.

ringbolt_engine::planted_bugs! {
    /// What was given to the log counts as durable at once.
    DurableTooEarly,
    /// A follower answers before what it answers for is durable.
    FollowerAnswersTooEarly,
    /// A vote or a new term is not logged.
    VoteNotLogged,
    /// A replica that was restarted votes at once, whatever it promised a leader before.
    PromiseForgotten,
    /// A leader reads without asking whether it still leads.
    LeaseIgnored,
    /// A lease that held some seconds ago counts as held: as if what was found out for one read were kept for
    /// those that follow.
    LeaseRemembered,
    /// The lease is checked by the clock of the turn's beginning.
    LeaseByOldClock,
    /// A new leader takes all that older ones left in its log as committed, before an entry of its own term
    /// is.
    CommitsOfOldTerms,
    /// A leader serves before an entry of its own term is applied.
    ServesTooEarly,
    /// Any replica serves linearizable reads.
    FollowerReads,
    /// A session read does not wait for what its token names.
    TokenIgnored,
    /// A stale read is served however old the replica is.
    AgeIgnored,
    /// An entry's time is the leader's clock, though the partition's time is ahead of it.
    TimeGoesBack,
    /// A write is acknowledged once its leader has it.
    AcknowledgedByLeader,
    /// A follower leaves out what an entry does, now and then.
    EffectsSkipped,
    /// A leader reads what it has applied, though more is committed.
    CommitNotAwaited,
    /// A write that is sent again is done again.
    RepeatDoneAgain,
    /// A sleeping leader reads as if its lease never ended.
    SleeperKeepsLease,
    /// A sleeper misses nobody: it does not count the ticks without a pulse.
    SleeperMissesNobody,
    /// A follower that is woken votes at once, though it has just heard of its leader.
    WokenForgetsPromise,
    /// That a condition does not hold is said without asking whether this replica still leads.
    RefusedWithoutProof,
    /// What another entry has replaced stays in a replica's memory of its log.
    TruncationDropped,
    /// A snapshot says that it holds what was applied after its rows were taken.
    SnapshotOfAnotherMoment,
}
