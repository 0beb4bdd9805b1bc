use std::collections::VecDeque;

use bytes::Bytes;
use ringbolt_wire::message::{Request, Response, Scan as WireScan};

use crate::call::unexpected;
use crate::error::Error;
use crate::keyspace::Keyspace;
use crate::options::ReadOptions;
use crate::record::Row;
use crate::routes::Route;

/// An ordered scan that is being described: narrow it, then take its [`rows`](Scan::rows) or a
/// [`page`](Scan::page).
///
/// ```no_run
/// # async fn example(client: &ringbolt_client::Client) -> Result<(), ringbolt_client::Error> {
/// let mut rows = client.scan().prefix("user:").limit(100).rows();
/// while let Some(row) = rows.next().await? {
///     println!("{}", String::from_utf8_lossy(&row.key));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Scan {
    keyspace: Keyspace,
    read: ReadOptions,
    prefix: Bytes,
    start: Bytes,
    end: Bytes,
    reverse: bool,
    keys_only: bool,
    limit: Option<u64>,
    page_rows: u32,
    cursor: Bytes,
}

/// Some rows of a scan, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The rows; there may be none although more follow.
    pub rows: Vec<Row>,
    /// Where the next page begins, for [`Scan::cursor`]. `None`: there is none.
    pub cursor: Option<Bytes>,
}

impl Scan {
    pub(crate) fn new(keyspace: Keyspace) -> Scan {
        Scan {
            read: keyspace.read_options(),
            keyspace,
            prefix: Bytes::new(),
            start: Bytes::new(),
            end: Bytes::new(),
            reverse: false,
            keys_only: false,
            limit: None,
            page_rows: 0,
            cursor: Bytes::new(),
        }
    }

    /// Only keys that begin with this. A prefix that holds a whole `{tag}` reads one partition.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = Bytes::copy_from_slice(prefix.as_ref());
        self
    }

    /// Only keys from this one on, itself included. The lower bound in either direction.
    pub fn start(mut self, start: impl AsRef<[u8]>) -> Self {
        self.start = Bytes::copy_from_slice(start.as_ref());
        self
    }

    /// Only keys below this one. The upper bound in either direction.
    pub fn end(mut self, end: impl AsRef<[u8]>) -> Self {
        self.end = Bytes::copy_from_slice(end.as_ref());
        self
    }

    /// From the highest key down.
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Only keys: values come back empty.
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// At most this many rows in all.
    pub fn limit(mut self, rows: u64) -> Self {
        self.limit = Some(rows);
        self
    }

    /// At most this many rows with each request; 0, as if not set, for as many as the server likes.
    pub fn page_rows(mut self, rows: u32) -> Self {
        self.page_rows = rows;
        self
    }

    /// How fresh, and how long each page may take.
    pub fn options(mut self, options: ReadOptions) -> Self {
        self.read = options;
        self
    }

    /// Goes on where a page ended, with the same keyspace, prefix, bounds and direction.
    pub fn cursor(mut self, cursor: Bytes) -> Self {
        self.cursor = cursor;
        self
    }

    /// The rows, fetched page by page as they are taken.
    pub fn rows(self) -> Rows {
        Rows {
            left: self.limit,
            scan: self,
            fetched: VecDeque::new(),
            done: false,
        }
    }

    /// One page: what one request brings, at most [`Scan::limit`] rows.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn page(&self) -> Result<Page, Error> {
        self.page_from(&self.cursor, self.limit).await
    }

    async fn page_from(&self, cursor: &[u8], left: Option<u64>) -> Result<Page, Error> {
        if left == Some(0) {
            return Ok(Page {
                rows: Vec::new(),
                cursor: (!cursor.is_empty()).then(|| Bytes::copy_from_slice(cursor)),
            });
        }
        let caller = self.keyspace.caller();
        let session = self.keyspace.session();
        let partitions = match caller.routes().partition_of_prefix(&self.prefix) {
            Some(partition) => partition..partition + 1,
            None => 0..caller.routes().topology().partitions(),
        };
        let deadline = caller.deadline(self.read.deadline);
        let left = left.map_or(0, |left| u32::try_from(left).unwrap_or(u32::MAX));
        let limit = match (left, self.page_rows) {
            (0, rows) | (rows, 0) => rows,
            (left, rows) => left.min(rows),
        };
        let route = Route::Prefix(&self.prefix);
        loop {
            let reading = session.read(self.read.level, partitions.clone());
            let request = Request::Scan(WireScan {
                keyspace: self.keyspace.id(),
                read: reading.options(),
                prefix: &self.prefix,
                start: &self.start,
                end: &self.end,
                reverse: self.reverse,
                keys_only: self.keys_only,
                limit,
                cursor,
            });
            let reply = caller
                .call_by(route, request, deadline)
                .await
                .map_err(|error| reading.failed(error))?;
            let (tokens, rows, next) = match reply.decode() {
                Ok(Response::Rows {
                    tokens,
                    rows,
                    cursor,
                }) => (tokens, rows, cursor),
                other => return Err(unexpected(&request, other)),
            };
            if !reading.answered(tokens) {
                continue;
            }
            if !next.is_empty() && rows.is_empty() && next == cursor {
                return Err(Error::Protocol(
                    "a page of a scan brought neither rows nor progress".into(),
                ));
            }
            return Ok(Page {
                rows: rows
                    .into_iter()
                    .map(|(key, meta, value)| Row {
                        key: reply.owned(key),
                        value: reply.owned(value),
                        meta,
                    })
                    .collect(),
                cursor: (!next.is_empty()).then(|| reply.owned(next)),
            });
        }
    }
}

/// The rows of a scan, fetched page by page as they are taken.
#[derive(Debug)]
pub struct Rows {
    scan: Scan,
    fetched: VecDeque<Row>,
    /// Rows that may still be fetched.
    left: Option<u64>,
    done: bool,
}

impl Rows {
    /// The next row; `None` after the last. After an error the same page is asked for again.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn next(&mut self) -> Result<Option<Row>, Error> {
        loop {
            if let Some(row) = self.fetched.pop_front() {
                return Ok(Some(row));
            }
            match self.next_page().await? {
                Some(rows) => self.fetched = rows.into(),
                None => return Ok(None),
            }
        }
    }

    /// The rows of the next page, or what is left of the one begun: at least one; `None` after the
    /// last.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<Row>>, Error> {
        if !self.fetched.is_empty() {
            return Ok(Some(std::mem::take(&mut self.fetched).into()));
        }
        while !self.done && self.left != Some(0) {
            let mut page = self.scan.page_from(&self.scan.cursor, self.left).await?;
            if let Some(left) = &mut self.left {
                // A server that gives more than was asked for is cut short.
                page.rows
                    .truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= page.rows.len() as u64;
            }
            match page.cursor {
                Some(cursor) => self.scan.cursor = cursor,
                None => self.done = true,
            }
            if !page.rows.is_empty() {
                return Ok(Some(page.rows));
            }
        }
        Ok(None)
    }

    /// All rows that are left.
    ///
    /// # Errors
    /// See [`Keyspace`].
    pub async fn collect(&mut self) -> Result<Vec<Row>, Error> {
        let mut all = Vec::new();
        while let Some(rows) = self.next_page().await? {
            all.extend(rows);
        }
        Ok(all)
    }

    /// Where the first page that is not fetched yet begins: to go on later, or elsewhere, with
    /// [`Scan::cursor`], once the fetched rows are taken. `None` if there is none.
    pub fn cursor(&self) -> Option<Bytes> {
        (!self.done).then(|| self.scan.cursor.clone())
    }
}
