use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use ringbolt_wire::list::KeysBuf;
use ringbolt_wire::message::{
    Condition, ErrorCode, KeyspaceId, ReadLevel, Request, Response, Ttl, WriteOp,
};
use tokio::time::Instant;

use crate::batch::Batch;
use crate::call::{Caller, unexpected};
use crate::connection::Reply;
use crate::error::Error;
use crate::options::{ReadOptions, WriteOptions};
use crate::record::{BatchWritten, Counter, Record, Stat, Written};
use crate::routes::{Place, Route, Routes};
use crate::scan::Scan;
use crate::session::{Session, Writing};

/// Most keys of one request of a [`Keyspace::multi_get`]: longer lists are split.
const KEYS_MAX: usize = 4096;

/// One keyspace of a cluster, and all that can be done with its keys. Cheap to clone.
///
/// Every method `x` has the keyspace's options; `x_with` takes others.
///
/// # Errors
/// Any method may fail as [`Error`] describes; only what is particular to it is told with it. Keys
/// have 1 to 65,536 bytes and values up to 16 MiB, or as much less as the server allows: beyond,
/// [`Error::Invalid`] with [`ErrorCode::TooLarge`].
#[derive(Clone)]
pub struct Keyspace {
    caller: Arc<Caller>,
    session: Arc<Session>,
    id: KeyspaceId,
    name: Arc<str>,
    read: ReadOptions,
    write: WriteOptions,
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Keyspace {
    pub(crate) fn new(
        caller: Arc<Caller>,
        session: Arc<Session>,
        id: KeyspaceId,
        name: Arc<str>,
        read: ReadOptions,
        write: WriteOptions,
    ) -> Keyspace {
        Keyspace {
            caller,
            session,
            id,
            name,
            read,
            write,
        }
    }

    pub(crate) fn sibling(&self, id: KeyspaceId, name: Arc<str>) -> Keyspace {
        Keyspace {
            id,
            name,
            ..self.clone()
        }
    }

    pub(crate) fn with_session(&self, session: Arc<Session>) -> Keyspace {
        Keyspace {
            session,
            ..self.clone()
        }
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The same keyspace, to be read with these options.
    pub fn with_read_options(&self, read: ReadOptions) -> Keyspace {
        Keyspace {
            read,
            ..self.clone()
        }
    }

    /// The same keyspace, to be written with these options.
    pub fn with_write_options(&self, write: WriteOptions) -> Keyspace {
        Keyspace {
            write,
            ..self.clone()
        }
    }

    /// How it is read.
    pub fn read_options(&self) -> ReadOptions {
        self.read
    }

    /// How it is written.
    pub fn write_options(&self) -> WriteOptions {
        self.write
    }

    /// Reads a key; `None` if it does not exist.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Record>, Error> {
        self.get_with(key, &self.read).await
    }

    /// Reads a key; `None` if it does not exist.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn get_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &ReadOptions,
    ) -> Result<Option<Record>, Error> {
        let key = key.as_ref();
        let deadline = self.caller.deadline(options.deadline);
        let partition = self.caller.routes().partition(key);
        loop {
            let reading = self.session.read(options.level, [partition]);
            let request = Request::Get {
                keyspace: self.id,
                read: reading.options(),
                key,
            };
            let reply = self
                .caller
                .call_by(Route::Key(key), request, deadline)
                .await
                .map_err(|error| reading.failed(error))?;
            let (token, record) = match reply.decode() {
                Ok(Response::Value { token, meta, value }) => {
                    let value = reply.owned(value);
                    (token, Some(Record { value, meta }))
                }
                Ok(Response::NotFound { token }) => (token, None),
                other => return Err(unexpected(&request, other)),
            };
            if reading.answered([token]) {
                return Ok(record);
            }
        }
    }

    /// Reads what is known of a key without its value; `None` if it does not exist.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn stat(&self, key: impl AsRef<[u8]>) -> Result<Option<Stat>, Error> {
        self.stat_with(key, &self.read).await
    }

    /// Reads what is known of a key without its value; `None` if it does not exist.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn stat_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &ReadOptions,
    ) -> Result<Option<Stat>, Error> {
        let key = key.as_ref();
        let deadline = self.caller.deadline(options.deadline);
        let partition = self.caller.routes().partition(key);
        loop {
            let reading = self.session.read(options.level, [partition]);
            let request = Request::Stat {
                keyspace: self.id,
                read: reading.options(),
                key,
            };
            let reply = self
                .caller
                .call_by(Route::Key(key), request, deadline)
                .await
                .map_err(|error| reading.failed(error))?;
            let (token, stat) = match reply.decode() {
                Ok(Response::Stat {
                    token,
                    meta,
                    value_bytes,
                }) => (token, Some(Stat { meta, value_bytes })),
                Ok(Response::NotFound { token }) => (token, None),
                other => return Err(unexpected(&request, other)),
            };
            if reading.answered([token]) {
                return Ok(stat);
            }
        }
    }

    /// Reads many keys, in the order given. The keys that live together are asked for together, all
    /// at once; there is no one moment at which all of them are read.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn multi_get<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Record>>, Error> {
        self.multi_get_with(keys, &self.read).await
    }

    /// Reads many keys, in the order given. The keys that live together are asked for together, all
    /// at once; there is no one moment at which all of them are read.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn multi_get_with<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: &ReadOptions,
    ) -> Result<Vec<Option<Record>>, Error> {
        let keys: Vec<K> = keys.into_iter().collect();
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let deadline = self.caller.deadline(options.deadline);
        let routes = self.caller.routes();
        let anywhere = matches!(options.level, ReadLevel::Session | ReadLevel::Stale { .. });
        let told = match options.level {
            ReadLevel::Session => self.session.told_of(),
            _ => Vec::new(),
        };
        // Where each core's keys stand in the list, and a partition of theirs: apart, what only
        // leaders can answer just now.
        let mut together: BTreeMap<(Place, bool), (u16, Vec<usize>)> = BTreeMap::new();
        for (at, (place, partition)) in routes.places(&keys, anywhere, &told).enumerate() {
            let apart = told.contains(&partition);
            let (_, places) = together
                .entry((place, apart))
                .or_insert((partition, Vec::new()));
            places.push(at);
        }
        let requests = together
            .iter()
            .flat_map(|(&(place, _), (partition, places))| {
                let route = Route::Together(place, *partition);
                places.chunks(KEYS_MAX).map(move |places| (route, places))
            })
            .map(|(route, places)| {
                self.multi_get_together(&routes, route, &keys, places, options, deadline)
            });
        let mut records = vec![None; keys.len()];
        for (place, record) in try_join_all(requests).await?.into_iter().flatten() {
            records[place] = record;
        }
        Ok(records)
    }

    /// Reads keys that live together: where the request or its reply would be too long for a frame,
    /// in halves.
    async fn multi_get_together(
        &self,
        routes: &Routes,
        route: Route<'_>,
        keys: &[&[u8]],
        places: &[usize],
        options: &ReadOptions,
        deadline: Instant,
    ) -> Result<Vec<(usize, Option<Record>)>, Error> {
        let mut records = Vec::with_capacity(places.len());
        let mut parts = vec![places];
        let mut list = KeysBuf::new();
        while let Some(part) = parts.pop() {
            list.clear();
            for &place in part {
                list.push(keys[place])?;
            }
            let mut partitions: Vec<u16> = match options.level {
                ReadLevel::Session => part.iter().map(|&at| routes.partition(keys[at])).collect(),
                _ => Vec::new(),
            };
            partitions.sort_unstable();
            partitions.dedup();
            let reading = self.session.read(options.level, partitions);
            let request = Request::MultiGet {
                keyspace: self.id,
                read: reading.options(),
                keys: list.as_keys(),
            };
            let reply = match self.caller.call_by(route, request, deadline).await {
                Ok(reply) => reply,
                Err(Error::Invalid(reason))
                    if reason.code == ErrorCode::TooLarge && part.len() > 1 =>
                {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                    continue;
                }
                Err(error) => return Err(reading.failed(error)),
            };
            match reply.decode() {
                Ok(Response::Values { tokens, values }) if values.len() == part.len() => {
                    if !reading.answered(tokens) {
                        parts.push(part);
                        continue;
                    }
                    records.extend(part.iter().zip(values).map(|(&place, value)| {
                        let record = value.map(|(meta, value)| Record {
                            value: reply.owned(value),
                            meta,
                        });
                        (place, record)
                    }));
                }
                other => return Err(unexpected(&request, other)),
            }
        }
        Ok(records)
    }

    /// Sets a value.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<Written, Error> {
        self.put_with(key, value, &self.write).await
    }

    /// Sets a value.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`]; see [`Keyspace`].
    pub async fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<Written, Error> {
        let op = WriteOp::Put {
            key: key.as_ref(),
            value: value.as_ref(),
            ttl: options.ttl,
            condition: options.condition,
        };
        let (request, reply, writing) = self.write_one(op, options).await?;
        written(&request, &reply, &writing)
    }

    /// Removes a key. It is no error if there is none.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written, Error> {
        self.delete_with(key, &self.write).await
    }

    /// Removes a key. Without a condition it is no error if there is none.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`]; see [`Keyspace`].
    pub async fn delete_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<Written, Error> {
        let op = WriteOp::Delete {
            key: key.as_ref(),
            condition: options.condition,
        };
        let (request, reply, writing) = self.write_one(op, options).await?;
        written(&request, &reply, &writing)
    }

    /// Adds to a number, which is stored in decimal; a missing key counts as 0. The expiry stays as
    /// it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] with [`ErrorCode::NotANumber`] if the value is no number or would
    /// overflow an `i64`; see [`Keyspace`].
    pub async fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<Counter, Error> {
        self.increment_with(key, by, &self.write.ttl(Ttl::Keep))
            .await
    }

    /// Adds to a number, which is stored in decimal; a missing key counts as 0. The expiry becomes
    /// what the options say: [`Ttl::Keep`] to leave it.
    ///
    /// # Errors
    /// As [`Keyspace::increment`], and [`Error::ConditionFailed`].
    pub async fn increment_with(
        &self,
        key: impl AsRef<[u8]>,
        by: i64,
        options: &WriteOptions,
    ) -> Result<Counter, Error> {
        let op = WriteOp::Increment {
            key: key.as_ref(),
            by,
            ttl: options.ttl,
            condition: options.condition,
        };
        let (request, reply, writing) = self.write_one(op, options).await?;
        match reply.decode() {
            Ok(Response::Counter { token, value }) => {
                writing.answered(token);
                Ok(Counter { token, value })
            }
            other => Err(unexpected(&request, other)),
        }
    }

    /// Changes a record's expiry and nothing else; `None` if there is no such key.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: Ttl) -> Result<Option<Written>, Error> {
        self.touch_with(key, &self.write.ttl(ttl)).await
    }

    /// Changes a record's expiry, to what the options say, and nothing else; `None` if there is no
    /// such key.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`]; see [`Keyspace`].
    pub async fn touch_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<Option<Written>, Error> {
        let op = WriteOp::Touch {
            key: key.as_ref(),
            ttl: options.ttl,
            condition: options.condition,
        };
        let (request, reply, writing) = self.write_one(op, options).await?;
        match reply.decode() {
            Ok(Response::NotFound { token }) => {
                writing.answered(token);
                Ok(None)
            }
            _ => written(&request, &reply, &writing).map(Some),
        }
    }

    async fn write_one<'a>(
        &self,
        op: WriteOp<'a>,
        options: &WriteOptions,
    ) -> Result<(Request<'a>, Reply, Writing<'_>), Error> {
        let partition = self.caller.routes().partition(op.key());
        let writing = self.session.write(options.ack, partition);
        let request = Request::Write {
            keyspace: self.id,
            options: self.caller.write_options(options.ack),
            op,
        };
        let reply = self
            .caller
            .call(Route::Key(op.key()), request, options.deadline)
            .await
            .map_err(|error| writing.failed(error))?;
        Ok((request, reply, writing))
    }

    /// Does a batch's writes, all or none.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`] with the version of a key whose condition did not hold (`None`
    /// also if a touched key does not exist); [`Error::Invalid`] with
    /// [`ErrorCode::CrossPartition`] or [`ErrorCode::BadRequest`]; see [`Keyspace`].
    pub async fn batch(&self, batch: &Batch) -> Result<BatchWritten, Error> {
        self.batch_with(batch, &self.write).await
    }

    /// Does a batch's writes, all or none, with the options' acknowledgement and deadline.
    ///
    /// # Errors
    /// As [`Keyspace::batch`].
    pub async fn batch_with(
        &self,
        batch: &Batch,
        options: &WriteOptions,
    ) -> Result<BatchWritten, Error> {
        let ops = batch.ops()?;
        let routes = self.caller.routes();
        let mut keys = ops.iter().map(|op| op.key());
        let Some(first) = keys.next() else {
            return Err(Error::invalid(ErrorCode::BadRequest, "the batch is empty"));
        };
        let partition = routes.partition(first);
        if keys.any(|key| routes.partition(key) != partition) {
            return Err(Error::invalid(
                ErrorCode::CrossPartition,
                "the batch's keys belong to different partitions: give them a common {tag}",
            ));
        }
        let writing = self.session.write(options.ack, partition);
        let request = Request::Batch {
            keyspace: self.id,
            options: self.caller.write_options(options.ack),
            ops,
        };
        let reply = self
            .caller
            .call(Route::Key(first), request, options.deadline)
            .await
            .map_err(|error| writing.failed(error))?;
        match reply.decode() {
            Ok(Response::BatchWritten { token, counters }) if counters.len() == ops.len() => {
                writing.answered(token);
                Ok(BatchWritten { token, counters })
            }
            Ok(Response::NotFound { token }) => {
                writing.answered(token);
                Err(Error::ConditionFailed { version: None })
            }
            other => Err(unexpected(&request, other)),
        }
    }

    /// Removes a key if it has this version.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`]; see [`Keyspace`].
    pub async fn delete_if_version(
        &self,
        key: impl AsRef<[u8]>,
        version: u64,
    ) -> Result<Written, Error> {
        let options = self.write.condition(Condition::Version(version));
        self.delete_with(key, &options).await
    }

    /// An ordered scan over the keyspace, all of it until narrowed.
    pub fn scan(&self) -> Scan {
        Scan::new(self.clone())
    }
}

fn written(request: &Request<'_>, reply: &Reply, writing: &Writing<'_>) -> Result<Written, Error> {
    match reply.decode() {
        Ok(Response::Written { token, existed }) => {
            writing.answered(token);
            Ok(Written { token, existed })
        }
        other => Err(unexpected(request, other)),
    }
}
