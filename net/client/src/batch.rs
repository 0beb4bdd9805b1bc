use ringbolt_wire::WireError;
use ringbolt_wire::list::{WriteOpsBuf, check_key};
use ringbolt_wire::message::{Condition, Ttl, WriteOp, WriteOps};

use crate::options::WriteOptions;

/// Writes that are done all or none, at once. Their keys are of one partition, as keys that share a
/// `{tag}` are, and a key occurs once.
///
/// ```no_run
/// # async fn example(client: &ringbolt_client::Client) -> Result<(), ringbolt_client::Error> {
/// use ringbolt_client::Batch;
///
/// let batch = Batch::new()
///     .put("{user:1}:name", "Ada")
///     .increment("{user:1}:logins", 1)
///     .delete("{user:1}:invitation");
/// let done = client.batch(&batch).await?;
/// println!("login number {:?}", done.counters[1]);
/// # Ok(())
/// # }
/// ```
///
/// What cannot be sent (an empty key, a value over the protocol's limit) is told when the batch is
/// sent.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Batch {
    ops: WriteOpsBuf,
    error: Option<WireError>,
}

impl Batch {
    /// No write yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value, unconditionally, expiring by the keyspace's default.
    pub fn put(self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.put_with(key, value, &WriteOptions::new())
    }

    /// Sets a value, with the options' condition and expiry.
    pub fn put_with(
        self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Self {
        self.push(&WriteOp::Put {
            key: key.as_ref(),
            value: value.as_ref(),
            ttl: options.ttl,
            condition: options.condition,
        })
    }

    /// Removes a key, unconditionally.
    pub fn delete(self, key: impl AsRef<[u8]>) -> Self {
        self.delete_if(key, Condition::None)
    }

    /// Removes a key on a condition.
    pub fn delete_if(self, key: impl AsRef<[u8]>, condition: Condition) -> Self {
        self.push(&WriteOp::Delete {
            key: key.as_ref(),
            condition,
        })
    }

    /// Adds to a number, unconditionally, keeping its expiry.
    pub fn increment(self, key: impl AsRef<[u8]>, by: i64) -> Self {
        self.increment_with(key, by, &WriteOptions::new().ttl(Ttl::Keep))
    }

    /// Adds to a number, with the options' condition and expiry.
    pub fn increment_with(self, key: impl AsRef<[u8]>, by: i64, options: &WriteOptions) -> Self {
        self.push(&WriteOp::Increment {
            key: key.as_ref(),
            by,
            ttl: options.ttl,
            condition: options.condition,
        })
    }

    /// Changes the expiry. If there is no such key, the whole batch is not done.
    pub fn touch(self, key: impl AsRef<[u8]>, ttl: Ttl) -> Self {
        self.push(&WriteOp::Touch {
            key: key.as_ref(),
            ttl,
            condition: Condition::None,
        })
    }

    fn push(mut self, op: &WriteOp<'_>) -> Self {
        // A key that is refused on any server is refused here already.
        let pushed = check_key(op.key()).and_then(|()| self.ops.push(op));
        if let Err(error) = pushed {
            self.error.get_or_insert(error);
        }
        self
    }

    /// How many writes there are.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(crate) fn ops(&self) -> Result<WriteOps<'_>, WireError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.ops.as_ops()),
        }
    }
}
