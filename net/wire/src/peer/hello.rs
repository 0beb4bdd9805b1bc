//! The first frame of a connection between nodes, and its answer.

use super::PEER_VERSION;
use crate::frame::{self, FrameView};
use crate::read::Reader;
use crate::{Kind, WireError};

/// What the first frame begins with, so that a client's is never taken for it.
const PEER_MAGIC: [u8; 4] = *b"RGBP";

/// The first frame of a connection between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerHello {
    /// The [version](PEER_VERSION) of what the dialer says.
    pub version: u16,
    /// The cluster that the dialer belongs to, never 0.
    pub cluster: u64,
    /// Which node dials, from 1.
    pub from_node: u32,
    /// Which of its cores.
    pub from_core: u16,
    /// How often that node has started: durably raised at each start, never the same twice.
    pub boot: u64,
    /// Drawn at random at this start: tells apart two starts that claim the same `boot`.
    pub start: u64,
    /// Which node it believes to have reached, from 1.
    pub to_node: u32,
    /// Which of its cores shall take the connection.
    pub to_core: u16,
}

impl PeerHello {
    /// Appends it to `out` as one frame.
    ///
    /// # Errors
    /// [`WireError::Malformed`] for what [`PeerHello::decode`] would refuse.
    pub fn encode(&self, request_id: u64, out: &mut Vec<u8>) -> Result<(), WireError> {
        self.check()?;
        let start = frame::begin(out, Kind::PeerHello as u8, request_id, 0);
        out.extend_from_slice(&PEER_MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.from_core.to_le_bytes());
        out.extend_from_slice(&self.to_core.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.from_node.to_le_bytes());
        out.extend_from_slice(&self.to_node.to_le_bytes());
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.boot.to_le_bytes());
        out.extend_from_slice(&self.start.to_le_bytes());
        frame::finish(out, start)
    }

    /// Understands it. A version that this side does not speak is not refused here, so that the
    /// answer can say so; its fields stand where version 1 has them.
    ///
    /// # Errors
    /// Never a fatal one: [`WireError::UnknownKind`], [`WireError::UnknownFlags`],
    /// [`WireError::Malformed`].
    pub fn decode(frame: &FrameView<'_>) -> Result<PeerHello, WireError> {
        super::item::check(frame, Kind::PeerHello)?;
        let mut body = Reader::new(frame.body);
        if body.array::<4>()? != &PEER_MAGIC {
            return Err(WireError::Malformed {
                what: "a PeerHello does not begin with RGBP",
            });
        }
        let version = body.u16()?;
        let from_core = body.u16()?;
        let to_core = body.u16()?;
        body.reserved::<2>()?;
        let hello = PeerHello {
            version,
            from_core,
            to_core,
            from_node: body.u32()?,
            to_node: body.u32()?,
            cluster: body.u64()?,
            boot: body.u64()?,
            start: body.u64()?,
        };
        if version == PEER_VERSION {
            body.end()?;
        }
        hello.check()?;
        Ok(hello)
    }

    fn check(&self) -> Result<(), WireError> {
        if self.cluster == 0 || self.from_node == 0 || self.to_node == 0 || self.boot == 0 {
            return Err(WireError::Malformed {
                what: "a cluster, node or boot counter is 0",
            });
        }
        Ok(())
    }
}

/// The answer to a [`PeerHello`] that is welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerWelcome {
    /// How often the answering node has started.
    pub boot: u64,
    /// Drawn at random at that start.
    pub start: u64,
    /// How many cores it has.
    pub cores: u16,
    /// Largest batch it takes, in bytes, header included.
    pub batch_bytes_max: u32,
}

impl PeerWelcome {
    /// Appends it to `out` as one frame.
    pub fn encode(&self, request_id: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let mut body = [0; 22];
        body[..8].copy_from_slice(&self.boot.to_le_bytes());
        body[8..16].copy_from_slice(&self.start.to_le_bytes());
        body[16..18].copy_from_slice(&self.cores.to_le_bytes());
        body[18..].copy_from_slice(&self.batch_bytes_max.to_le_bytes());
        out.extend_from_slice(&frame::header(Kind::PeerWelcome as u8, request_id, 0));
        out.extend_from_slice(&body);
        crate::codec::finish(out, start, request_id);
    }

    /// Understands it.
    ///
    /// # Errors
    /// Never a fatal one: [`WireError::UnknownKind`], [`WireError::UnknownFlags`],
    /// [`WireError::Malformed`].
    pub fn decode(frame: &FrameView<'_>) -> Result<PeerWelcome, WireError> {
        super::item::check(frame, Kind::PeerWelcome)?;
        let mut body = Reader::new(frame.body);
        let welcome = PeerWelcome {
            boot: body.u64()?,
            start: body.u64()?,
            cores: body.u16()?,
            batch_bytes_max: body.u32()?,
        };
        body.end()?;
        if welcome.boot == 0 || welcome.cores == 0 {
            return Err(WireError::Malformed {
                what: "a node's boot counter or number of cores is 0",
            });
        }
        Ok(welcome)
    }
}
