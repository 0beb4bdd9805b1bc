use ringbolt_wire::message::{Ack, ReadLevel};

use super::*;

fn token(partition: u16, term: u64, index: u64) -> Token {
    Token {
        partition,
        term,
        index,
    }
}

fn condition_failed() -> Error {
    Error::ConditionFailed { version: Some(7) }
}

fn lost() -> Error {
    Error::Lost(crate::error::Reason {
        code: ErrorCode::Lost,
        detail: 0,
        retry_after: None,
        message: "an entry was discarded".into(),
    })
}

/// How a session's read of these partitions is sent: at which level, and with which tokens.
fn asks(
    session: &Session,
    partitions: impl IntoIterator<Item = u16, IntoIter: Clone>,
) -> (ReadLevel, Vec<Token>) {
    let reading = session.read(ReadLevel::Session, partitions);
    let options = reading.options();
    (options.level, options.tokens.iter().collect())
}

#[test]
fn the_highest_of_each_partition_is_kept() {
    let session = Session::default();
    session.see_all([token(3, 1, 9), token(0, 2, 1), token(3, 1, 4)]);
    assert_eq!(session.all(), [token(0, 2, 1), token(3, 1, 9)]);
    // A later term wins over a higher index.
    session.see_all([token(3, 2, 1)]);
    let asked = |partitions: &'static [u16]| asks(&session, partitions.iter().copied());
    assert_eq!(asked(&[3]), (ReadLevel::Session, vec![token(3, 2, 1)]));
    assert_eq!(asked(&[1, 400]), (ReadLevel::Session, vec![]));
    assert_eq!(asked(&[0, 1, 3]).1, session.all());
}

#[test]
fn what_an_error_told_is_covered_by_a_linearizable_answer_only() {
    let session = Session::default();
    session.see_all([token(3, 1, 4), token(0, 1, 4)]);
    let writing = session.write(Ack::Quorum, 3);
    let early = session.read(ReadLevel::Linearizable, [3]);
    writing.failed(condition_failed());
    let linearizable = (ReadLevel::Linearizable, vec![]);
    assert_eq!(asks(&session, [3]), linearizable);
    assert_eq!(asks(&session, 0..8), linearizable);
    assert_eq!(asks(&session, [0]).0, ReadLevel::Session);
    // Asked for before, or of any replica, or on the leader's word alone.
    assert!(early.answered([token(3, 1, 5)]));
    let stale = ReadLevel::Stale { max_age_ms: 1 };
    assert!(session.read(stale, [3]).answered([token(3, 1, 6)]));
    session.write(Ack::Leader, 3).answered(token(3, 1, 7));
    assert_eq!(asks(&session, [3]), linearizable);
    // An answer about something else.
    let reading = session.read(ReadLevel::Session, [0, 3]);
    assert!(reading.answered([token(0, 1, 9)]));
    assert_eq!(asks(&session, [3]), linearizable);
    assert!(
        session
            .read(ReadLevel::Session, [3])
            .answered([token(3, 1, 8)])
    );
    let covered = (ReadLevel::Session, vec![token(3, 1, 8)]);
    assert_eq!(asks(&session, [3]), covered);
    // A write is as good.
    session.write(Ack::All, 3).failed(Error::CommittedNotAll);
    assert_eq!(asks(&session, [3]), linearizable);
    session.write(Ack::Quorum, 3).answered(token(3, 1, 8));
    assert_eq!(asks(&session, [3]), covered);
    // What tells of nothing.
    for error in [
        Error::InDoubt("why".into()),
        Error::DeadlineExceeded,
        Error::invalid(ErrorCode::TooLarge, "too large"),
    ] {
        session.write(Ack::Quorum, 3).failed(error);
    }
    assert_eq!(asks(&session, [3]), covered);
    let not_a_number = Error::invalid(ErrorCode::NotANumber, "no number");
    session.write(Ack::Quorum, 3).failed(not_a_number);
    assert_eq!(asks(&session, [3]), linearizable);
}

#[test]
fn a_linearizable_answer_that_lacks_an_uncommitted_write_is_not_enough() {
    let session = Session::default();
    session.write(Ack::Leader, 3).answered(token(3, 1, 20));
    session.write(Ack::Quorum, 3).failed(condition_failed());
    let reading = session.read(ReadLevel::Session, [3]);
    assert!(!reading.answered([token(3, 1, 9)]));
    // The second question waits for it.
    let waits = (ReadLevel::Session, vec![token(3, 1, 20)]);
    assert_eq!(asks(&session, [3]), waits);
    // Who asks for a linearizable read gets one.
    let reading = session.read(ReadLevel::Linearizable, [3]);
    assert!(reading.answered([token(3, 1, 9)]));
}

#[test]
fn only_what_was_lost_is_forgotten() {
    let session = Session::default();
    session.see_all([token(0, 1, 4), token(3, 1, 4), token(5, 1, 4)]);
    let reading = session.read(ReadLevel::Session, [3]);
    reading.failed(Error::DeadlineExceeded);
    session.forget_lost();
    assert_eq!(session.all().len(), 3);
    reading.failed(lost());
    // Until the caller has taken note.
    assert_eq!(asks(&session, [3]).1, [token(3, 1, 4)]);
    session.forget_lost();
    assert_eq!(session.all(), [token(0, 1, 4), token(5, 1, 4)]);
    // What stands of what was read there is not missed.
    assert_eq!(asks(&session, [3]), (ReadLevel::Linearizable, vec![]));
    assert_eq!(asks(&session, [0]).0, ReadLevel::Session);
    // What was replaced since is not lost.
    session.read(ReadLevel::Session, [5]).failed(lost());
    session.see_all([token(5, 2, 5)]);
    session.forget_lost();
    let stands = (ReadLevel::Session, vec![token(5, 2, 5)]);
    assert_eq!(asks(&session, [5]), stands);
    // Where it is not known which of several was lost, none is missed.
    let session = Session::default();
    session.see_all([token(0, 1, 4), token(3, 1, 4), token(5, 1, 4)]);
    session.read(ReadLevel::Session, [0, 5]).failed(lost());
    session.forget_lost();
    assert_eq!(session.all(), [token(3, 1, 4)]);
    assert_eq!(session.told_of(), [0, 5]);
}

#[test]
fn a_session_survives_as_bytes() {
    let session = Session::default();
    session.see_all([token(7, 3, 9), token(0, 3, 9)]);
    let bytes = session.export(5);
    assert_eq!(bytes.len(), 9 + 2 * 18);
    let other = Session::default();
    other.import(&bytes, 5, 8).unwrap();
    assert_eq!(other.all(), session.all());
    // It goes only forward.
    other.import(&Session::default().export(5), 5, 8).unwrap();
    assert_eq!(other.all(), session.all());

    let fresh = Session::default();
    assert!(fresh.import(&bytes, 6, 8).is_err());
    assert!(fresh.import(&bytes, 5, 4).is_err());
    for length in (0..bytes.len()).filter(|&length| length != 9 && length != 27) {
        assert!(fresh.import(&bytes[..length], 5, 8).is_err(), "{length}");
    }
    let other_form = [&[2], &bytes[1..]].concat();
    assert!(fresh.import(&other_form, 5, 8).is_err());
    assert_eq!(fresh.all(), []);
}

#[test]
fn what_an_error_told_is_exported_too() {
    let session = Session::default();
    session.see_all([token(7, 3, 9), token(0, 3, 9)]);
    for partition in [2, 7] {
        let writing = session.write(Ack::Quorum, partition);
        writing.failed(condition_failed());
    }
    let bytes = session.export(5);
    let tokens = Tokens::from_wire(&bytes[9..]).unwrap();
    assert_eq!(
        tokens.iter().collect::<Vec<_>>(),
        [
            token(0, 3, 9),
            token(2, 0, 0),
            token(7, 0, 0),
            token(7, 3, 9)
        ]
    );
    let other = Session::default();
    other.import(&bytes, 5, 8).unwrap();
    assert_eq!(other.all(), session.all());
    assert_eq!(other.told_of(), [2, 7]);
    assert_eq!(other.export(5), bytes);
}
