//! What must be true of every history, whatever failed meanwhile.
//!
//! * [`linear`]: writes and linearizable reads of each key happened one after the other, each
//!   between its call and its answer. Black-box: it believes nothing that the store says of itself.
//! * [`order`]: what the store says of itself is consistent: entries, versions, times and tokens of
//!   a partition have one order, reads see all that their token covers, sessions never go back, and
//!   stale reads keep their bound.
//! * [`replicas`]: replicas at the same entry hold the same rows.

pub mod linear;
pub mod order;
pub mod replicas;

use super::history::History;

/// What the checkers did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checked {
    /// Keys whose history was searched to its end.
    pub keys: u64,
    /// Keys on which the search was given up.
    pub undecided: u64,
}

/// Checks a whole history.
///
/// # Errors
/// What contradicts what, in words.
pub fn history(history: &History, slack_ns: u64) -> Result<Checked, String> {
    order::check(history, slack_ns)?;
    let mut checked = Checked::default();
    for key in 0..history.partitions.len() {
        match linear::check(&linear::of_key(history, key as u16)) {
            linear::Verdict::Linearizable => checked.keys += 1,
            linear::Verdict::Undecided => checked.undecided += 1,
            linear::Verdict::Violated(what) => return Err(format!("key {key}: {what}")),
        }
    }
    Ok(checked)
}
