//! What a peer's message must be before the `raft` crate sees it, which panics on nonsense.

use raft::Raft;
use raft::eraftpb::{Message, MessageType};

use super::membership::is_later;
use super::store::EntryStore;

/// Whether a message is of or for another life of a node than the one that counts: it may have
/// forgotten what it promised.
pub(super) fn is_outlived(raft: &Raft<EntryStore>, message: &Message) -> bool {
    let mut members = raft.prs().iter();
    message.to != raft.id || members.any(|(id, _)| is_later(*id, message.from))
}

/// Whether a message makes sense for this replica as it is now.
pub(super) fn is_sound(raft: &Raft<EntryStore>, message: &Message) -> bool {
    if message.to != raft.id || message.from == 0 || message.from == raft.id || message.term == 0 {
        return false;
    }
    let last = raft.raft_log.last_index();
    let is_blank = raft.prs().conf().voters().ids().is_empty();
    let bare = message.entries.is_empty();
    match message.msg_type {
        // From the first entry on, one that waits for a snapshot would not know who the members were.
        MessageType::MsgAppend => entries_follow(message) && !(is_blank && message.index == 0),
        // A commit index beyond our log would mean that our log has lost what it acknowledged.
        MessageType::MsgHeartbeat => bare && message.commit <= last,
        // Nobody can have more of our log than we do.
        MessageType::MsgAppendResponse => {
            bare && (message.reject || message.term != raft.term || message.index <= last)
        }
        MessageType::MsgSnapshot => bare && snapshot_is_sound(message),
        MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => bare,
        _ => false,
    }
}

/// Whether the entries continue `(log_term, index)` without holes, in terms that do not go back.
fn entries_follow(message: &Message) -> bool {
    let (mut index, mut term) = (message.index, message.log_term);
    message.entries.iter().all(|entry| {
        let follows = Some(entry.index) == index.checked_add(1)
            && entry.term >= term
            && entry.term <= message.term;
        (index, term) = (entry.index, entry.term);
        follows
    })
}

fn snapshot_is_sound(message: &Message) -> bool {
    let metadata = message.get_snapshot().get_metadata();
    let conf = metadata.get_conf_state();
    let is_voter = |id: &u64| conf.voters.contains(id) || conf.voters_outgoing.contains(id);
    metadata.index > 0
        && metadata.term > 0
        && metadata.term <= message.term
        && !conf.voters.is_empty()
        && !conf.learners.iter().any(is_voter)
        && conf
            .learners_next
            .iter()
            .all(|id| conf.voters_outgoing.contains(id))
}
