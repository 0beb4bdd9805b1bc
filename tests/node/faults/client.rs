//! A client of the cluster under faults: the simulator's workload over the real client library.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringbolt_client::blocking::Client;
use ringbolt_client::{Batch, Error, Meta, ReadLevel, ReadOptions, Record, Token, WriteOptions};
use ringbolt_engine::env::sim::Rng;
use ringbolt_sim::cluster::history::{Call, Cell, Change, Guard, KeyId, NEVER, Operation, Outcome};
use ringbolt_sim::cluster::workload::{self, Keys, Plan};
use ringbolt_wire::partition_of;

use super::PARTITIONS;

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// How long the last reads may take.
const LAST_DEADLINE: Duration = Duration::from_secs(30);

/// One client's session and what it knows of keys.
struct Session<'a> {
    number: u32,
    client: Client,
    keys: &'a Keys,
    began: Instant,
    tokens: BTreeMap<u16, Token>,
    known: BTreeMap<KeyId, (i64, u64)>,
    done: Vec<Operation>,
}

/// Works until the test is over; what it asked and was told.
pub fn live(
    number: usize,
    addresses: &str,
    keys: &Keys,
    mut rng: Rng,
    began: Instant,
    over: &AtomicBool,
) -> Vec<Operation> {
    let mut session = Session::new(number, addresses, keys, began);
    let mut puts = 0;
    while !over.load(Ordering::Relaxed) {
        puts += 1;
        let fresh = (number as i64 + 1) << 32 | puts;
        let known = &session.known;
        let plan = workload::draw(&mut rng, keys, fresh, |key| known.get(&key).copied());
        let level = workload::draw_level(&mut rng);
        session.ask(plan, level, DEADLINE);
        thread::sleep(Duration::from_millis(rng.between(1, 20)));
    }
    session.done
}

/// Reads every key once, linearizably.
pub fn read_all(number: usize, addresses: &str, keys: &Keys, began: Instant) -> Vec<Operation> {
    let mut session = Session::new(number, addresses, keys, began);
    for key in 0..keys.len() as KeyId {
        session.ask(Plan::Get(vec![key]), ReadLevel::Linearizable, LAST_DEADLINE);
    }
    session.done
}

impl<'a> Session<'a> {
    fn new(number: usize, addresses: &str, keys: &'a Keys, began: Instant) -> Self {
        Self {
            number: number as u32,
            client: Client::connect(addresses).unwrap(),
            keys,
            began,
            tokens: BTreeMap::new(),
            known: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn ask(&mut self, plan: Plan, level: ReadLevel, deadline: Duration) {
        let tokens: Vec<Token> = self.tokens.values().copied().collect();
        // Its own, so that afterwards it holds what this call saw and nothing else; a session read
        // is asked with what was seen before.
        let client = self.client.with_new_session();
        if level == ReadLevel::Session {
            client.import_tokens(tokens.iter().copied());
        }
        let read = ReadOptions::new().level(level).deadline(deadline);
        let invoked = self.now();
        let outcome = match &plan {
            Plan::Get(keys) => self.get(&client, keys, &read),
            Plan::Scan(prefix) => self.scan(&client, prefix, &read),
            Plan::Write(changes) => self.write(&client, changes, deadline),
        };
        let completed = match outcome {
            Outcome::InDoubt => NEVER,
            _ => self.now(),
        };
        self.learn(&plan, &outcome);
        let call = match plan {
            Plan::Write(changes) => Call::Write {
                changes,
                leader_only: false,
            },
            Plan::Get(keys) => Call::Read {
                keys,
                level,
                tokens,
                page: false,
            },
            Plan::Scan(prefix) => Call::Read {
                keys: self.keys.with_prefix(&prefix),
                level,
                tokens,
                page: true,
            },
        };
        self.done.push(Operation {
            client: self.number,
            invoked,
            completed,
            call,
            outcome,
        });
    }

    /// What the client has seen of each key's partition: a session does not keep that it saw nothing yet.
    fn seen(&self, client: &Client, keys: &[KeyId]) -> Vec<Token> {
        let mut tokens = client.tokens();
        for &key in keys {
            let partition = partition_of(self.keys.name(key), PARTITIONS);
            if tokens.iter().all(|token| token.partition != partition) {
                let (term, index) = (0, 0);
                tokens.push(Token {
                    partition,
                    term,
                    index,
                });
            }
        }
        tokens
    }

    fn get(&self, client: &Client, keys: &[KeyId], read: &ReadOptions) -> Outcome {
        let names = keys.iter().map(|&key| self.keys.name(key));
        let found = match keys {
            [key] => client
                .get_with(self.keys.name(*key), read)
                .map(|one| vec![one]),
            _ => client.multi_get_with(names, read),
        };
        match found {
            Ok(records) => Outcome::Seen {
                tokens: self.seen(client, keys),
                cells: keys
                    .iter()
                    .zip(records)
                    .map(|(&key, record)| record.map(|record| self.cell_of(key, &record)))
                    .collect(),
            },
            Err(error) => failed(&error),
        }
    }

    fn scan(&self, client: &Client, prefix: &[u8], read: &ReadOptions) -> Outcome {
        let keyspace = client.with_read_options(*read);
        let page = keyspace.scan_page(|scan| scan.prefix(prefix).page_rows(1000));
        match page {
            Ok(page) if page.cursor.is_none() => {
                let found: BTreeMap<KeyId, Cell> = page
                    .rows
                    .iter()
                    .map(|row| {
                        let key = self.keys.of_name(&row.key).expect("a key of the workload");
                        (key, self.cell(key, row.meta, &row.value))
                    })
                    .collect();
                let keys = self.keys.with_prefix(prefix);
                Outcome::Seen {
                    tokens: self.seen(client, &keys),
                    cells: keys.iter().map(|key| found.get(key).copied()).collect(),
                }
            }
            // The rest would be another page, read at another moment.
            Ok(_) => Outcome::Failed,
            Err(error) => failed(&error),
        }
    }

    fn write(
        &self,
        client: &Client,
        changes: &[(KeyId, Guard, Change)],
        deadline: Duration,
    ) -> Outcome {
        let options = WriteOptions::new().deadline(deadline);
        let written = match changes {
            [(key, guard, change)] => {
                let name = self.keys.name(*key);
                let options = match *guard {
                    Guard::None => options,
                    Guard::Absent => options.if_absent(),
                    Guard::Present => options.if_present(),
                    Guard::Is { version, .. } => options.if_version(version),
                };
                match *change {
                    Change::Put(number) => client
                        .put_with(name, Keys::encode(number), &options)
                        .map(|written| (written.token, vec![None])),
                    Change::Delete => client
                        .delete_with(name, &options)
                        .map(|written| (written.token, vec![None])),
                    Change::Add(by) => client
                        .increment_with(name, by, &options)
                        .map(|counter| (counter.token, vec![Some(counter.value)])),
                }
            }
            _ => {
                let batch = changes
                    .iter()
                    .fold(Batch::new(), |batch, (key, _, change)| {
                        let Change::Put(number) = change else {
                            unreachable!("groups are only put");
                        };
                        batch.put(self.keys.name(*key), Keys::encode(*number))
                    });
                client
                    .batch_with(&batch, &options)
                    .map(|written| (written.token, written.counters))
            }
        };
        match written {
            Ok((token, mut numbers)) => {
                numbers.resize(changes.len(), None);
                Outcome::Written { token, numbers }
            }
            Err(Error::ConditionFailed { version }) => Outcome::GuardFailed {
                version: version.unwrap_or(0),
            },
            Err(Error::InDoubt(_)) => Outcome::InDoubt,
            Err(error) => failed(&error),
        }
    }

    fn cell_of(&self, key: KeyId, record: &Record) -> Cell {
        self.cell(key, record.meta, &record.value)
    }

    fn cell(&self, key: KeyId, meta: Meta, value: &[u8]) -> Cell {
        let number = self.keys.decode(key, value);
        Cell {
            value: number.unwrap_or_else(|| panic!("key {key} was never so: {value:?}")),
            version: meta.version,
            updated_ms: meta.updated_ms,
        }
    }

    fn learn(&mut self, plan: &Plan, outcome: &Outcome) {
        let seen: &[Token] = match outcome {
            Outcome::Written { token, .. } => std::slice::from_ref(token),
            Outcome::Seen { tokens, .. } => tokens,
            _ => return,
        };
        for &token in seen {
            let mine = self.tokens.entry(token.partition).or_insert(token);
            if token.index > mine.index {
                *mine = token;
            }
        }
        match (plan, outcome) {
            (Plan::Write(changes), Outcome::Written { token, .. }) => {
                for &(key, _, change) in changes {
                    match change {
                        Change::Put(value) => self.known.insert(key, (value, token.index)),
                        Change::Delete | Change::Add(_) => self.known.remove(&key),
                    };
                }
            }
            (Plan::Get(keys), Outcome::Seen { cells, .. }) => {
                for (&key, cell) in keys.iter().zip(cells) {
                    match cell {
                        Some(cell) => self.known.insert(key, (cell.value, cell.version)),
                        None => self.known.remove(&key),
                    };
                }
            }
            _ => {}
        }
    }
}

/// What did not happen. An error that no fault explains ends the test.
fn failed(error: &Error) -> Outcome {
    match error {
        Error::Refused(_)
        | Error::Stale(_)
        | Error::Unreachable { .. }
        | Error::DeadlineExceeded => Outcome::Failed,
        error => panic!("no fault explains this: {error:?}"),
    }
}
