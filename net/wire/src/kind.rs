use crate::WireError;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// What a frame carries: byte 9 of its header. Kinds below 0x80 are requests.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $value,)*
        }

        impl Kind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// The kind of this number.
            ///
            /// # Errors
            /// [`WireError::UnknownKind`].
            pub fn from_u8(kind: u8) -> Result<Kind, WireError> {
                match kind {
                    $($value => Ok(Kind::$name),)*
                    _ => Err(WireError::UnknownKind { kind }),
                }
            }
        }
    };
}

kinds! {
    /// Request: first message of a connection.
    Hello = 0x01,
    /// Request: nothing.
    Ping = 0x02,
    /// Request: where partitions live.
    Topology = 0x03,
    /// Request: counters.
    Stats = 0x04,
    /// Request: the node's replicas.
    Status = 0x05,
    /// Request: which node is to lead a partition.
    Prefer = 0x06,
    /// Request: a node is to lead nothing, or may lead again.
    Drain = 0x07,
    /// Request: one value.
    Get = 0x10,
    /// Request: one record's version and times.
    Stat = 0x11,
    /// Request: many values.
    MultiGet = 0x12,
    /// Request: a page of rows.
    Scan = 0x13,
    /// Request: one write.
    Write = 0x20,
    /// Request: many writes to one partition.
    Batch = 0x21,
    /// Request: no more records of a keyspace in one partition.
    Clear = 0x22,
    /// Request: a new keyspace.
    KeyspaceCreate = 0x30,
    /// Request: the end of a keyspace.
    KeyspaceDrop = 0x31,
    /// Request: all keyspaces.
    KeyspaceList = 0x32,
    /// Between nodes: first message of a connection.
    PeerHello = 0x40,
    /// Between nodes: a batch of items, never answered.
    PeerBatch = 0x41,
    /// Between nodes: who are you; the only message of a connection.
    Introduce = 0x42,
    /// Response: a typed failure.
    Error = 0x80,
    /// Response to `Hello`.
    Welcome = 0x81,
    /// Response: done, nothing to tell.
    Done = 0x82,
    /// Response to `Topology`.
    TopologyIs = 0x83,
    /// Response to `Stats`.
    StatsAre = 0x84,
    /// Response to `Status`.
    StatusIs = 0x85,
    /// Response: the key does not exist.
    NotFound = 0x90,
    /// Response to `Get`.
    Value = 0x91,
    /// Response to `Stat`.
    StatIs = 0x92,
    /// Response to `MultiGet`.
    Values = 0x93,
    /// Response to `Scan`.
    Rows = 0x94,
    /// Response to a put, delete, touch or clear.
    Written = 0xA0,
    /// Response to an increment.
    Counter = 0xA1,
    /// Response to `Batch`.
    BatchWritten = 0xA2,
    /// Response to the keyspace requests.
    Keyspaces = 0xB0,
    /// Response to `PeerHello`.
    PeerWelcome = 0xC0,
    /// Response to `Introduce`.
    Introduced = 0xC1,
}
