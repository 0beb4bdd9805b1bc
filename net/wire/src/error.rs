use crate::message::ErrorCode;

/// Why bytes are not a message, by what the reader must do.
///
/// [`WireError::is_fatal`] divides them: after a fatal one nothing that follows on the connection
/// can be understood (answer once with request id 0 and close); after any other the frame's bounds
/// were sound, so answer the request with [`WireError::code`] and go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fatal: the length is less than the header's own.
    #[error("a frame of {length} bytes is shorter than its header")]
    TooShort {
        /// What the header said.
        length: u32,
    },
    /// Fatal: the length is over anything that could be read past.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// What the header said.
        length: u32,
        /// The limit.
        limit: u32,
    },
    /// Fatal: the frame is of another protocol version, or no frame at all.
    #[error(
        "protocol version {found} is not known; this side speaks {}",
        crate::VERSION
    )]
    Version {
        /// What the header said.
        found: u8,
    },
    /// Fatal: the checksum does not match, so not even the request id can be believed.
    #[error("the frame's checksum is {found:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// What the header said.
        found: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Fatal: not exactly one whole frame was handed in.
    #[error("{have} bytes are not one frame of {length}")]
    NotOneFrame {
        /// Bytes handed in.
        have: usize,
        /// What the header said.
        length: u32,
    },
    /// The body contradicts itself or the protocol.
    #[error("malformed message: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A part is over a limit of the protocol.
    #[error("{what} of {length} is over the limit of {limit}")]
    OverLimit {
        /// Which part.
        what: &'static str,
        /// Its size.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// No message of this kind exists in this version, or not in this direction.
    #[error("message kind {kind:#04x} is not known")]
    UnknownKind {
        /// What the header said.
        kind: u8,
    },
    /// Flags that this version does not define are set.
    #[error("frame flags {flags:#06x} are not known")]
    UnknownFlags {
        /// What the header said.
        flags: u16,
    },
}

impl WireError {
    /// Whether framing is lost, so that the connection has to be closed.
    pub fn is_fatal(&self) -> bool {
        match self {
            WireError::TooShort { .. }
            | WireError::TooLong { .. }
            | WireError::Version { .. }
            | WireError::Checksum { .. }
            | WireError::NotOneFrame { .. } => true,
            WireError::Malformed { .. }
            | WireError::OverLimit { .. }
            | WireError::UnknownKind { .. }
            | WireError::UnknownFlags { .. } => false,
        }
    }

    /// The code to answer with.
    pub fn code(&self) -> ErrorCode {
        match self {
            WireError::TooShort { .. }
            | WireError::Checksum { .. }
            | WireError::NotOneFrame { .. }
            | WireError::Malformed { .. } => ErrorCode::BadRequest,
            WireError::TooLong { .. } | WireError::OverLimit { .. } => ErrorCode::TooLarge,
            WireError::Version { .. }
            | WireError::UnknownKind { .. }
            | WireError::UnknownFlags { .. } => ErrorCode::Unsupported,
        }
    }

    /// The limit that was passed, to be the reply's `detail`; 0 where there is none.
    pub fn detail(&self) -> u64 {
        match self {
            WireError::TooLong { limit, .. } => u64::from(*limit),
            WireError::OverLimit { limit, .. } => *limit,
            _ => 0,
        }
    }
}
