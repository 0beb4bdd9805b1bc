use crate::frame::{self, FrameView};
use crate::list::{TOKEN_BYTES, WRITE_OP_HEAD_BYTES, check_key};
use crate::message::{
    Ack, Keys, KeyspaceId, KeyspaceOptions, ReadLevel, ReadOptions, Request, Scan, Tokens, WriteOp,
    WriteOps, WriteOptions,
};
use crate::read::Reader;
use crate::{Kind, MAGIC, WireError};

/// Stands for "any core" in a `Hello`.
const CORE_ANY: u16 = u16::MAX;
/// Bits of a scan's options.
const SCAN_REVERSE: u32 = 1;
const SCAN_KEYS_ONLY: u32 = 2;
/// Longest name of a client that is sent, in bytes.
const AGENT_BYTES_MAX: usize = 64;
/// Longest name of a keyspace, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Whether a keyspace may have this name: 1–64 bytes of `[A-Za-z0-9_.-]`, not beginning with `.`
/// or `-`.
pub fn keyspace_name_ok(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

impl<'a> Request<'a> {
    /// The keyspace that it names, if it is about one's records.
    #[must_use]
    pub fn keyspace(&self) -> Option<KeyspaceId> {
        match self {
            Request::Get { keyspace, .. }
            | Request::Stat { keyspace, .. }
            | Request::MultiGet { keyspace, .. }
            | Request::Write { keyspace, .. }
            | Request::Batch { keyspace, .. }
            | Request::Clear { keyspace, .. }
            | Request::Scan(Scan { keyspace, .. }) => Some(*keyspace),
            _ => None,
        }
    }

    /// The kind of frame that carries it.
    pub fn kind(&self) -> Kind {
        match self {
            Request::Hello { .. } => Kind::Hello,
            Request::Ping => Kind::Ping,
            Request::Topology => Kind::Topology,
            Request::Stats => Kind::Stats,
            Request::Status => Kind::Status,
            Request::Prefer { .. } => Kind::Prefer,
            Request::Drain { .. } => Kind::Drain,
            Request::Get { .. } => Kind::Get,
            Request::Stat { .. } => Kind::Stat,
            Request::MultiGet { .. } => Kind::MultiGet,
            Request::Write { .. } => Kind::Write,
            Request::Batch { .. } => Kind::Batch,
            Request::Clear { .. } => Kind::Clear,
            Request::Scan(_) => Kind::Scan,
            Request::KeyspaceCreate { .. } => Kind::KeyspaceCreate,
            Request::KeyspaceDrop { .. } => Kind::KeyspaceDrop,
            Request::KeyspaceList => Kind::KeyspaceList,
        }
    }

    /// Appends the request to `out` as one frame. `deadline_ms` is how long the caller waits, 0
    /// for the server's default.
    ///
    /// # Errors
    /// [`WireError::Malformed`] or [`WireError::OverLimit`] for what [`Request::decode`] would
    /// refuse (an empty key, a key or value over the protocol's limit, a bad keyspace name, a
    /// count of 0 voters, a repeat without identity) and for a frame over 4 GiB. `out` is then as it was before.
    pub fn encode(
        &self,
        request_id: u64,
        deadline_ms: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let start = frame::begin(out, self.kind() as u8, request_id, deadline_ms);
        match self.write_body(out) {
            Ok(()) => frame::finish(out, start),
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }

    fn write_body(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        match *self {
            Request::Hello {
                version_min,
                version_max,
                core,
                agent,
            } => {
                let agent = &agent[..agent.len().min(AGENT_BYTES_MAX)];
                out.extend_from_slice(&MAGIC);
                out.extend_from_slice(&version_min.to_le_bytes());
                out.extend_from_slice(&version_max.to_le_bytes());
                out.extend_from_slice(&core.unwrap_or(CORE_ANY).to_le_bytes());
                out.extend_from_slice(&(agent.len() as u16).to_le_bytes());
                out.extend_from_slice(agent);
            }
            Request::Ping
            | Request::Topology
            | Request::Stats
            | Request::Status
            | Request::KeyspaceList => {}
            Request::Get {
                keyspace,
                read,
                key,
            }
            | Request::Stat {
                keyspace,
                read,
                key,
            } => {
                check_key(key)?;
                write_read(out, keyspace, &read)?;
                out.extend_from_slice(&(key.len() as u32).to_le_bytes());
                out.extend_from_slice(read.tokens.as_wire());
                out.extend_from_slice(key);
            }
            Request::MultiGet {
                keyspace,
                read,
                keys,
            } => {
                write_read(out, keyspace, &read)?;
                out.extend_from_slice(&keys.count.to_le_bytes());
                out.extend_from_slice(read.tokens.as_wire());
                out.extend_from_slice(keys.bytes);
            }
            Request::Write {
                keyspace,
                options,
                op,
            } => {
                op.check()?;
                write_options(out, keyspace, &options)?;
                op.write(out);
            }
            Request::Batch {
                keyspace,
                options,
                ops,
            } => {
                write_options(out, keyspace, &options)?;
                out.extend_from_slice(&ops.count.to_le_bytes());
                out.extend_from_slice(ops.bytes);
            }
            Request::Clear {
                keyspace,
                partition,
            } => {
                out.extend_from_slice(&keyspace.to_le_bytes());
                out.extend_from_slice(&partition.to_le_bytes());
                out.extend_from_slice(&[0; 2]);
            }
            Request::Scan(scan) => write_scan(out, &scan)?,
            Request::KeyspaceCreate { name, options } => {
                check_name(name)?;
                out.extend_from_slice(&options.default_ttl_ms.to_le_bytes());
                write_name(out, name);
            }
            Request::KeyspaceDrop { name } => {
                check_name(name)?;
                write_name(out, name);
            }
            Request::Prefer { partition, node } => {
                out.extend_from_slice(&partition.to_le_bytes());
                out.extend_from_slice(&[0; 2]);
                out.extend_from_slice(&node.to_le_bytes());
            }
            Request::Drain { node, undo } => {
                out.extend_from_slice(&node.to_le_bytes());
                out.push(u8::from(undo));
                out.extend_from_slice(&[0; 3]);
            }
        }
        Ok(())
    }

    /// The keyspace and key that a whole frame asks for, if it seems to be a `Get`. Nothing is verified: good for
    /// a guess of what is to come, and cheap.
    #[inline]
    pub fn guess_get(frame: &'a [u8]) -> Option<(KeyspaceId, &'a [u8])> {
        if *frame.get(frame::KIND_AT)? != Kind::Get as u8 {
            return None;
        }
        let mut body = Reader::new(frame.get(frame::HEADER_BYTES..)?);
        let (keyspace, _) = read_read(&mut body).ok()?;
        let key_length = body.u32().ok()? as usize;
        let (_tokens, key) = body
            .rest()
            .split_at_checked(body.rest().len().checked_sub(key_length)?)?;
        Some((keyspace, key))
    }

    /// Understands a request. Nothing is allocated and nothing copied.
    ///
    /// # Errors
    /// Never a fatal one: [`WireError::UnknownKind`], [`WireError::UnknownFlags`],
    /// [`WireError::Malformed`], [`WireError::OverLimit`].
    pub fn decode(frame: &FrameView<'a>) -> Result<Request<'a>, WireError> {
        check_flags(frame)?;
        let kind = Kind::from_u8(frame.kind)?;
        let mut body = Reader::new(frame.body);
        let request = match kind {
            Kind::Hello => read_hello(&mut body)?,
            Kind::Ping => Request::Ping,
            Kind::Topology => Request::Topology,
            Kind::Stats => Request::Stats,
            Kind::Status => Request::Status,
            Kind::Prefer => {
                let partition = body.u16()?;
                body.reserved::<2>()?;
                Request::Prefer {
                    partition,
                    node: body.u32()?,
                }
            }
            Kind::Drain => {
                let (node, undo) = (body.u32()?, body.u8()?);
                body.reserved::<3>()?;
                if undo > 1 {
                    return Err(WireError::Malformed {
                        what: "whether to undo is neither 0 nor 1",
                    });
                }
                Request::Drain {
                    node,
                    undo: undo == 1,
                }
            }
            Kind::Get | Kind::Stat => {
                let (keyspace, head) = read_read(&mut body)?;
                let key_length = body.u32()?;
                let read = head.tokens(&mut body)?;
                let key = body.key(key_length)?;
                if kind == Kind::Get {
                    Request::Get {
                        keyspace,
                        read,
                        key,
                    }
                } else {
                    Request::Stat {
                        keyspace,
                        read,
                        key,
                    }
                }
            }
            Kind::MultiGet => {
                let (keyspace, head) = read_read(&mut body)?;
                let count = body.count(5)?;
                let read = head.tokens(&mut body)?;
                let keys = Keys::read(&mut body, count)?;
                Request::MultiGet {
                    keyspace,
                    read,
                    keys,
                }
            }
            Kind::Scan => read_scan(&mut body)?,
            Kind::Write => {
                let (keyspace, options) = read_options(&mut body)?;
                Request::Write {
                    keyspace,
                    options,
                    op: WriteOp::read(&mut body)?,
                }
            }
            Kind::Batch => {
                let (keyspace, options) = read_options(&mut body)?;
                let count = body.count(WRITE_OP_HEAD_BYTES + 1)?;
                Request::Batch {
                    keyspace,
                    options,
                    ops: WriteOps::read(&mut body, count)?,
                }
            }
            Kind::Clear => {
                let (keyspace, partition) = (body.u32()?, body.u16()?);
                body.reserved::<2>()?;
                Request::Clear {
                    keyspace,
                    partition,
                }
            }
            Kind::KeyspaceCreate => {
                let default_ttl_ms = body.u64()?;
                Request::KeyspaceCreate {
                    name: read_name(&mut body)?,
                    options: KeyspaceOptions { default_ttl_ms },
                }
            }
            Kind::KeyspaceDrop => Request::KeyspaceDrop {
                name: read_name(&mut body)?,
            },
            Kind::KeyspaceList => Request::KeyspaceList,
            _ => return Err(WireError::UnknownKind { kind: frame.kind }),
        };
        body.end()?;
        Ok(request)
    }
}

pub(super) fn check_flags(frame: &FrameView<'_>) -> Result<(), WireError> {
    if frame.flags != 0 {
        return Err(WireError::UnknownFlags { flags: frame.flags });
    }
    Ok(())
}

fn read_hello<'a>(body: &mut Reader<'a>) -> Result<Request<'a>, WireError> {
    if body.array::<4>()? != &MAGIC {
        return Err(WireError::Malformed {
            what: "a Hello does not begin with RGBT",
        });
    }
    let version_min = body.u16()?;
    let version_max = body.u16()?;
    let core = body.u16()?;
    let agent_length = usize::from(body.u16()?);
    if version_min > version_max {
        return Err(WireError::Malformed {
            what: "the oldest version is newer than the newest",
        });
    }
    if agent_length > AGENT_BYTES_MAX {
        return Err(WireError::OverLimit {
            what: "an agent's name",
            length: agent_length as u64,
            limit: AGENT_BYTES_MAX as u64,
        });
    }
    Ok(Request::Hello {
        version_min,
        version_max,
        core: (core != CORE_ANY).then_some(core),
        agent: body.bytes(agent_length)?,
    })
}

fn write_read(
    out: &mut Vec<u8>,
    keyspace: KeyspaceId,
    read: &ReadOptions<'_>,
) -> Result<(), WireError> {
    let (level, max_age_ms) = match read.level {
        ReadLevel::Linearizable => (0, 0),
        ReadLevel::Strict => (1, 0),
        ReadLevel::Session => (2, 0),
        ReadLevel::Stale { max_age_ms } => (3, max_age_ms),
    };
    let count = u16::try_from(read.tokens.len()).map_err(|_| WireError::OverLimit {
        what: "a list of tokens",
        length: read.tokens.len() as u64,
        limit: u64::from(u16::MAX),
    })?;
    let mut head = [0; 12];
    head[..4].copy_from_slice(&keyspace.to_le_bytes());
    head[4] = level;
    head[6..8].copy_from_slice(&count.to_le_bytes());
    head[8..].copy_from_slice(&max_age_ms.to_le_bytes());
    out.extend_from_slice(&head);
    Ok(())
}

/// Read options whose tokens are still to come.
struct ReadHead {
    level: ReadLevel,
    token_count: usize,
}

impl ReadHead {
    fn tokens<'a>(self, body: &mut Reader<'a>) -> Result<ReadOptions<'a>, WireError> {
        Ok(ReadOptions {
            level: self.level,
            tokens: Tokens(body.bytes(self.token_count * TOKEN_BYTES)?),
        })
    }
}

fn read_read(body: &mut Reader<'_>) -> Result<(KeyspaceId, ReadHead), WireError> {
    let keyspace = body.u32()?;
    let level = body.u8()?;
    body.reserved::<1>()?;
    let token_count = usize::from(body.u16()?);
    let level = match (level, body.u32()?) {
        (0, 0) => ReadLevel::Linearizable,
        (1, 0) => ReadLevel::Strict,
        (2, 0) => ReadLevel::Session,
        (3, max_age_ms) => ReadLevel::Stale { max_age_ms },
        _ => {
            return Err(WireError::Malformed {
                what: "a read level is not known, or has an age without asking for one",
            });
        }
    };
    Ok((keyspace, ReadHead { level, token_count }))
}

fn write_options(
    out: &mut Vec<u8>,
    keyspace: KeyspaceId,
    options: &WriteOptions,
) -> Result<(), WireError> {
    let (ack, count) = match options.ack {
        Ack::Leader => (0, 0),
        Ack::Quorum => (1, 0),
        Ack::All => (2, 0),
        Ack::Count(0) => return Err(ACK_BAD),
        Ack::Count(count) => (3, count),
    };
    check_retry(options)?;
    let mut head = [0; 24];
    head[..4].copy_from_slice(&keyspace.to_le_bytes());
    head[4] = ack;
    head[5] = count;
    head[6] = options.retry.into();
    head[8..16].copy_from_slice(&options.client.to_le_bytes());
    head[16..].copy_from_slice(&options.sequence.to_le_bytes());
    out.extend_from_slice(&head);
    Ok(())
}

const ACK_BAD: WireError = WireError::Malformed {
    what: "an acknowledgement level is not known, or its number of voters does not fit it",
};

fn read_options(body: &mut Reader<'_>) -> Result<(KeyspaceId, WriteOptions), WireError> {
    let keyspace = body.u32()?;
    let ack = match (body.u8()?, body.u8()?) {
        (0, 0) => Ack::Leader,
        (1, 0) => Ack::Quorum,
        (2, 0) => Ack::All,
        (3, count @ 1..) => Ack::Count(count),
        _ => return Err(ACK_BAD),
    };
    let retry = match body.u8()? {
        0 => false,
        1 => true,
        _ => return Err(RETRY_BAD),
    };
    body.reserved::<1>()?;
    let options = WriteOptions {
        ack,
        client: body.u64()?,
        sequence: body.u64()?,
        retry,
    };
    check_retry(&options)?;
    Ok((keyspace, options))
}

const RETRY_BAD: WireError = WireError::Malformed {
    what: "whether it is a repeat is neither 0 nor 1, or a repeat has no client or sequence",
};

fn check_retry(options: &WriteOptions) -> Result<(), WireError> {
    if options.retry && (options.client == 0 || options.sequence == 0) {
        return Err(RETRY_BAD);
    }
    Ok(())
}

fn write_scan(out: &mut Vec<u8>, scan: &Scan<'_>) -> Result<(), WireError> {
    let parts = [scan.prefix, scan.start, scan.end, scan.cursor];
    write_read(out, scan.keyspace, &scan.read)?;
    let options = if scan.reverse { SCAN_REVERSE } else { 0 }
        | if scan.keys_only { SCAN_KEYS_ONLY } else { 0 };
    out.extend_from_slice(&options.to_le_bytes());
    out.extend_from_slice(&scan.limit.to_le_bytes());
    for part in parts {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    }
    out.extend_from_slice(scan.read.tokens.as_wire());
    for part in parts {
        out.extend_from_slice(part);
    }
    Ok(())
}

fn read_scan<'a>(body: &mut Reader<'a>) -> Result<Request<'a>, WireError> {
    let (keyspace, head) = read_read(body)?;
    let options = body.u32()?;
    if options & !(SCAN_REVERSE | SCAN_KEYS_ONLY) != 0 {
        return Err(WireError::Malformed {
            what: "a scan's options are not known",
        });
    }
    let limit = body.u32()?;
    let [prefix, start, end, cursor] = [body.u32()?, body.u32()?, body.u32()?, body.u32()?];
    let read = head.tokens(body)?;
    Ok(Request::Scan(Scan {
        keyspace,
        read,
        prefix: body.bytes(prefix as usize)?,
        start: body.bytes(start as usize)?,
        end: body.bytes(end as usize)?,
        reverse: options & SCAN_REVERSE != 0,
        keys_only: options & SCAN_KEYS_ONLY != 0,
        limit,
        cursor: body.bytes(cursor as usize)?,
    }))
}

fn check_name(name: &str) -> Result<(), WireError> {
    if keyspace_name_ok(name) {
        return Ok(());
    }
    Err(WireError::Malformed {
        what: "a keyspace's name is not 1-64 bytes of [A-Za-z0-9_.-] that begin with none of .-",
    })
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
}

fn read_name<'a>(body: &mut Reader<'a>) -> Result<&'a str, WireError> {
    let length = usize::from(body.u16()?);
    let name = body.text(length)?;
    check_name(name)?;
    Ok(name)
}
