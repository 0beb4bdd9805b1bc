//! The same client for programs without an async runtime: every call blocks its thread until the
//! answer is there.
//!
//! ```no_run
//! use ringbolt_client::blocking::Client;
//!
//! # fn example() -> Result<(), ringbolt_client::Error> {
//! let client = Client::connect("127.0.0.1:7400,127.0.0.1:7410")?;
//! client.put("user:1", "Ada")?;
//! for row in client.scan(|scan| scan.prefix("user:")) {
//!     println!("{:?}", row?.key);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A client has one thread of its own, which moves bytes and keeps connections alive; clones share
//! it, and calls from many threads are pipelined as those of many tasks are. It ends with the last
//! clone.
//!
//! Calls from within an async runtime would block it: they are answered [`Error::Invalid`]. Use the
//! async client there.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use ringbolt_wire::message::{
    ErrorCode, Keyspace as KeyspaceInfo, KeyspaceOptions, NodeId, NodeStatus, PartitionId, Token,
    Topology, Ttl,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::{
    Batch, BatchWritten, Counter, Error, Page, ReadOptions, Record, Row, Scan, Stat, WriteOptions,
    Written,
};

/// The thread that a client's tasks run on; it ends when this is dropped.
struct Driver {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Driver {
    fn start() -> Result<Arc<Driver>, Error> {
        let failed = |error: std::io::Error| {
            Error::invalid(
                ErrorCode::Unavailable,
                format!("cannot start the client's thread: {error}"),
            )
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("ringbolt-client".to_owned())
            .spawn(move || {
                // Ends when the sender is dropped: with the last clone of the client.
                let _ = runtime.block_on(stopped);
            })
            .map_err(failed)?;
        Ok(Arc::new(Driver {
            handle,
            _stop: stop,
        }))
    }

    fn run<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if Handle::try_current().is_ok() {
            return Err(Error::invalid(
                ErrorCode::BadRequest,
                "the blocking client was called from within an async runtime; use the async one",
            ));
        }
        self.handle.block_on(future)
    }
}

/// A client of a Ringbolt cluster that blocks. Cheap to clone; all clones share connections and session.
///
/// It is a [`Keyspace`] too, of the keyspace `default`: see there for get, put and the rest.
#[derive(Clone)]
pub struct Client {
    client: crate::Client,
    keyspace: Keyspace,
}

/// One keyspace of a cluster, as [`crate::Keyspace`], blocking.
#[derive(Clone)]
pub struct Keyspace {
    keyspace: crate::Keyspace,
    driver: Arc<Driver>,
}

impl Deref for Client {
    type Target = Keyspace;

    fn deref(&self) -> &Keyspace {
        &self.keyspace
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.keyspace.fmt(f)
    }
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    /// As [`Builder::connect_blocking`](crate::Builder::connect_blocking).
    pub fn connect(addresses: impl AsRef<str>) -> Result<Client, Error> {
        crate::Client::builder()
            .addresses(addresses)
            .connect_blocking()
    }

    /// Settings, to connect with by
    /// [`Builder::connect_blocking`](crate::Builder::connect_blocking).
    pub fn builder() -> crate::Builder {
        crate::Client::builder()
    }

    fn run<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.keyspace.driver.run(future)
    }

    fn keyspace_of(&self, keyspace: crate::Keyspace) -> Keyspace {
        Keyspace {
            keyspace,
            driver: self.keyspace.driver.clone(),
        }
    }

    /// As [`crate::Client::keyspace`].
    ///
    /// # Errors
    /// As there.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace, Error> {
        let keyspace = self.run(self.client.keyspace(name))?;
        Ok(self.keyspace_of(keyspace))
    }

    /// As [`crate::Client::create_keyspace`].
    ///
    /// # Errors
    /// As there.
    pub fn create_keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace, Error> {
        let keyspace = self.run(self.client.create_keyspace(name, options))?;
        Ok(self.keyspace_of(keyspace))
    }

    /// As [`crate::Client::drop_keyspace`].
    ///
    /// # Errors
    /// As there.
    pub fn drop_keyspace(&self, name: &str) -> Result<(), Error> {
        self.run(self.client.drop_keyspace(name))
    }

    /// As [`crate::Client::keyspaces`].
    ///
    /// # Errors
    /// As there.
    pub fn keyspaces(&self) -> Result<Vec<KeyspaceInfo>, Error> {
        self.run(self.client.keyspaces())
    }

    /// As [`crate::Client::ping`].
    ///
    /// # Errors
    /// As there.
    pub fn ping(&self) -> Result<(), Error> {
        self.run(self.client.ping())
    }

    /// As [`crate::Client::stats`].
    ///
    /// # Errors
    /// As there.
    pub fn stats(&self) -> Result<Vec<(String, u64)>, Error> {
        self.run(self.client.stats())
    }

    /// As [`crate::Client::stats_of`].
    ///
    /// # Errors
    /// As there.
    pub fn stats_of(&self, node: NodeId) -> Result<Vec<(String, u64)>, Error> {
        self.run(self.client.stats_of(node))
    }

    /// As [`crate::Client::status`].
    ///
    /// # Errors
    /// As there.
    pub fn status(&self, node: NodeId) -> Result<NodeStatus, Error> {
        self.run(self.client.status(node))
    }

    /// As [`crate::Client::prefer`].
    ///
    /// # Errors
    /// As there.
    pub fn prefer(&self, partition: PartitionId, node: NodeId) -> Result<(), Error> {
        self.run(self.client.prefer(partition, node))
    }

    /// As [`crate::Client::drain`].
    ///
    /// # Errors
    /// As there.
    pub fn drain(&self, node: NodeId, undo: bool) -> Result<(), Error> {
        self.run(self.client.drain(node, undo))
    }

    /// As [`crate::Client::topology`].
    ///
    /// # Errors
    /// As there.
    pub fn topology(&self) -> Result<Topology, Error> {
        self.run(self.client.topology())
    }

    /// As [`crate::Client::with_new_session`].
    pub fn with_new_session(&self) -> Client {
        let client = self.client.with_new_session();
        Client {
            keyspace: self.keyspace_of(crate::Keyspace::clone(&client)),
            client,
        }
    }

    /// As [`crate::Client::export_session`].
    pub fn export_session(&self) -> Vec<u8> {
        self.client.export_session()
    }

    /// As [`crate::Client::import_session`].
    ///
    /// # Errors
    /// As there.
    pub fn import_session(&self, exported: &[u8]) -> Result<(), Error> {
        self.client.import_session(exported)
    }

    /// As [`crate::Client::tokens`].
    pub fn tokens(&self) -> Vec<Token> {
        self.client.tokens()
    }

    /// As [`crate::Client::import_tokens`].
    pub fn import_tokens(&self, tokens: impl IntoIterator<Item = Token>) {
        self.client.import_tokens(tokens);
    }

    /// As [`crate::Client::forget_tokens`].
    pub fn forget_tokens(&self) {
        self.client.forget_tokens();
    }
}

impl crate::Builder {
    /// Connects as [`Builder::connect`](crate::Builder::connect) does, for a program without an
    /// async runtime.
    ///
    /// # Errors
    /// As [`Builder::connect`](crate::Builder::connect), and [`Error::Invalid`] if the client's
    /// thread cannot be started.
    pub fn connect_blocking(self) -> Result<Client, Error> {
        let driver = Driver::start()?;
        let client = driver.run(self.connect())?;
        let keyspace = Keyspace {
            keyspace: crate::Keyspace::clone(&client),
            driver,
        };
        Ok(Client { client, keyspace })
    }
}

impl Keyspace {
    /// Its name.
    pub fn name(&self) -> &str {
        self.keyspace.name()
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.keyspace.id()
    }

    /// The same keyspace, to be read with these options.
    pub fn with_read_options(&self, read: ReadOptions) -> Keyspace {
        Keyspace {
            keyspace: self.keyspace.with_read_options(read),
            driver: self.driver.clone(),
        }
    }

    /// The same keyspace, to be written with these options.
    pub fn with_write_options(&self, write: WriteOptions) -> Keyspace {
        Keyspace {
            keyspace: self.keyspace.with_write_options(write),
            driver: self.driver.clone(),
        }
    }

    /// As [`crate::Keyspace::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Record>, Error> {
        self.driver.run(self.keyspace.get(key))
    }

    /// As [`crate::Keyspace::get_with`].
    ///
    /// # Errors
    /// As there.
    pub fn get_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &ReadOptions,
    ) -> Result<Option<Record>, Error> {
        self.driver.run(self.keyspace.get_with(key, options))
    }

    /// As [`crate::Keyspace::stat`].
    ///
    /// # Errors
    /// As there.
    pub fn stat(&self, key: impl AsRef<[u8]>) -> Result<Option<Stat>, Error> {
        self.driver.run(self.keyspace.stat(key))
    }

    /// As [`crate::Keyspace::stat_with`].
    ///
    /// # Errors
    /// As there.
    pub fn stat_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &ReadOptions,
    ) -> Result<Option<Stat>, Error> {
        self.driver.run(self.keyspace.stat_with(key, options))
    }

    /// As [`crate::Keyspace::multi_get`].
    ///
    /// # Errors
    /// As there.
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Record>>, Error> {
        self.driver.run(self.keyspace.multi_get(keys))
    }

    /// As [`crate::Keyspace::multi_get_with`].
    ///
    /// # Errors
    /// As there.
    pub fn multi_get_with<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: &ReadOptions,
    ) -> Result<Vec<Option<Record>>, Error> {
        self.driver.run(self.keyspace.multi_get_with(keys, options))
    }

    /// As [`crate::Keyspace::put`].
    ///
    /// # Errors
    /// As there.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Written, Error> {
        self.driver.run(self.keyspace.put(key, value))
    }

    /// As [`crate::Keyspace::put_with`].
    ///
    /// # Errors
    /// As there.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<Written, Error> {
        self.driver.run(self.keyspace.put_with(key, value, options))
    }

    /// As [`crate::Keyspace::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written, Error> {
        self.driver.run(self.keyspace.delete(key))
    }

    /// As [`crate::Keyspace::delete_with`].
    ///
    /// # Errors
    /// As there.
    pub fn delete_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<Written, Error> {
        self.driver.run(self.keyspace.delete_with(key, options))
    }

    /// As [`crate::Keyspace::increment`].
    ///
    /// # Errors
    /// As there.
    pub fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<Counter, Error> {
        self.driver.run(self.keyspace.increment(key, by))
    }

    /// As [`crate::Keyspace::increment_with`].
    ///
    /// # Errors
    /// As there.
    pub fn increment_with(
        &self,
        key: impl AsRef<[u8]>,
        by: i64,
        options: &WriteOptions,
    ) -> Result<Counter, Error> {
        self.driver
            .run(self.keyspace.increment_with(key, by, options))
    }

    /// As [`crate::Keyspace::touch`].
    ///
    /// # Errors
    /// As there.
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: Ttl) -> Result<Option<Written>, Error> {
        self.driver.run(self.keyspace.touch(key, ttl))
    }

    /// As [`crate::Keyspace::touch_with`].
    ///
    /// # Errors
    /// As there.
    pub fn touch_with(
        &self,
        key: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<Option<Written>, Error> {
        self.driver.run(self.keyspace.touch_with(key, options))
    }

    /// As [`crate::Keyspace::batch`].
    ///
    /// # Errors
    /// As there.
    pub fn batch(&self, batch: &Batch) -> Result<BatchWritten, Error> {
        self.driver.run(self.keyspace.batch(batch))
    }

    /// As [`crate::Keyspace::batch_with`].
    ///
    /// # Errors
    /// As there.
    pub fn batch_with(&self, batch: &Batch, options: &WriteOptions) -> Result<BatchWritten, Error> {
        self.driver.run(self.keyspace.batch_with(batch, options))
    }

    /// The rows of a scan, as an iterator that fetches them page by page. The closure narrows the
    /// scan.
    ///
    /// ```no_run
    /// # fn example(client: &ringbolt_client::blocking::Client) -> Result<(), ringbolt_client::Error> {
    /// for row in client.scan(|scan| scan.prefix("user:").limit(10)) {
    ///     println!("{:?}", row?.key);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn scan(&self, narrow: impl FnOnce(Scan) -> Scan) -> Rows {
        Rows {
            rows: narrow(self.keyspace.scan()).rows(),
            driver: self.driver.clone(),
            failed: false,
        }
    }

    /// One page of a scan, which the closure narrows; as [`Scan::page`].
    ///
    /// # Errors
    /// As there.
    pub fn scan_page(&self, narrow: impl FnOnce(Scan) -> Scan) -> Result<Page, Error> {
        let scan = narrow(self.keyspace.scan());
        self.driver.run(scan.page())
    }
}

/// The rows of a scan. It ends after the first error.
pub struct Rows {
    rows: crate::Rows,
    driver: Arc<Driver>,
    failed: bool,
}

impl Rows {
    /// As [`crate::Rows::cursor`].
    pub fn cursor(&self) -> Option<bytes::Bytes> {
        self.rows.cursor()
    }
}

impl Iterator for Rows {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Result<Row, Error>> {
        if self.failed {
            return None;
        }
        let row = self.driver.run(self.rows.next()).transpose();
        self.failed = matches!(row, Some(Err(_)));
        row
    }
}
