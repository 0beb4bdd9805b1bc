//! Messages to frames and back.
//!
//! Every body is its fixed part, then its variable parts in the order in which the fixed part gives
//! their lengths. Decoding is strict: reserved bytes are zero, numbers that choose are known, and
//! nothing is left over. `docs/protocol.md` has each layout.

mod request;
mod response;
mod rows;
mod status;
mod topology;

pub use request::keyspace_name_ok;
pub(crate) use response::finish;
pub use response::{
    encode_batch_written, encode_counter, encode_done, encode_error, encode_not_found, encode_stat,
    encode_topology, encode_value, encode_wire_error, encode_written, outcome_of,
};
pub use rows::{RowsBuilder, ValuesBuilder};

#[cfg(test)]
mod tests;
