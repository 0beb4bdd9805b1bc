//! Keyspaces and counters: requests that concern the whole node.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::entry::{Effect, LogId, PartitionId};
use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_engine::log::Effects;
use ringbolt_engine::row::{ReadAt, RowKeyBuf, keyspace_range, split_row_key};
use ringbolt_wire::codec::keyspace_name_ok;
use ringbolt_wire::message::{
    Ack, ErrorCode, KEYSPACE_DEFAULT, KEYSPACE_SYSTEM, Keyspace, KeyspaceOptions, ReadLevel,
    Request, Response,
};

use super::Inner;
use super::keyspaces::{self, Definition, HOME, NEXT_ID};
use super::mail::{KeyspaceChange, Origin, Scope, Ticket};
use super::own_rows;
use super::pending::{KeyHashes, Outcome, Pending};
use super::read::decode_reply;
use super::reply::Refusal;
use super::signal::Signal;
use super::trace::Trace;

/// How long the server's own write waits before it tries a full log again.
const OWN_RETRY: Duration = Duration::from_millis(5);
/// A keyspace that is dropped, but whose rows are not all deleted.
pub(super) struct UnfinishedDrop {
    keyspace: Keyspace,
    /// The partitions that may have some.
    left: Vec<PartitionId>,
}

/// How long the leaders of all partitions are waited for in a drop, and how often what is left is tried.
const DROPPED_WITHIN: Duration = Duration::from_secs(1);
const DROP_EVERY: Duration = Duration::from_secs(2);
/// How long a client waits while the last keyspace of a name is being dropped, in milliseconds.
const DROPPING_RETRY_MS: u32 = 500;

impl<E: Env> Inner<E> {
    /// The node's counters, summed over its cores.
    pub(super) fn stats(self: &Rc<Self>, origin: Origin, scope: Scope, bytes: &[u8]) {
        if scope == Scope::Share || self.config.map.cores() == 1 {
            return self.answer(&origin, &Response::Stats(self.own_stats()));
        }
        let this = Rc::clone(self);
        let frame = bytes.to_vec();
        self.env.spawn(TaskClass::Foreground, async move {
            let cores = this.cores_here();
            let asked: Vec<_> = cores.iter().map(|&core| (core, &frame[..])).collect();
            let replies = this.ask(&asked, Scope::Share, &origin).await;
            let mut sums: Vec<(String, u64)> = Vec::new();
            for reply in &replies {
                match decode_reply(reply) {
                    Ok(Response::Stats(stats)) if sums.is_empty() => sums = stats,
                    Ok(Response::Stats(stats)) => {
                        for ((_, sum), (_, value)) in sums.iter_mut().zip(stats) {
                            *sum = sum.wrapping_add(value);
                        }
                    }
                    other => return this.pass_on(&origin, other),
                }
            }
            this.answer(&origin, &Response::Stats(sums));
        });
    }

    pub(super) fn keyspace_create(
        self: &Rc<Self>,
        origin: Origin,
        name: &str,
        options: KeyspaceOptions,
    ) {
        let name = name.to_owned();
        self.alone(origin, move |this| async move {
            let keyspace = this.create(&origin, name, options).await?;
            Ok(Response::Keyspaces(vec![keyspace]))
        });
    }

    pub(super) fn keyspace_drop(self: &Rc<Self>, origin: Origin, name: &str) {
        let name = name.to_owned();
        self.alone(origin, move |this| async move {
            let found = this.keyspaces.borrow().by_name(&name).cloned();
            let Some(keyspace) = found else {
                return Err(Refusal::new(
                    ErrorCode::NoSuchKeyspace,
                    0,
                    format!("there is no keyspace {name:?}"),
                ));
            };
            if keyspace.id == KEYSPACE_DEFAULT {
                return Err(Refusal::new(
                    ErrorCode::BadRequest,
                    0,
                    "the default keyspace cannot be dropped",
                ));
            }
            let definition = Definition {
                id: keyspace.id,
                options: keyspace.options,
                dropped: true,
            };
            this.own_write(HOME, &[put(&name, &keyspaces::encode(&definition))])
                .await?;
            this.tell_all(&origin, &KeyspaceChange::Dropped(keyspace.clone()))
                .await;
            // What cannot be deleted now, for want of a leader, is deleted later.
            let mut drop = this.drop_of(keyspace);
            if !this.finish_drop(&mut drop).await {
                this.dropping.borrow_mut().push(drop);
            }
            Ok(Response::Done)
        });
    }

    /// Runs a change of the keyspaces, one at a time.
    fn alone<F>(self: &Rc<Self>, origin: Origin, change: impl FnOnce(Rc<Self>) -> F + 'static)
    where
        F: Future<Output = Result<Response<'static>, Refusal>>,
    {
        if self.keyspaces_busy.replace(true) {
            return self.refuse(
                &origin,
                &Refusal::retry(
                    ErrorCode::Overloaded,
                    50,
                    "another keyspace is being created or dropped: try again",
                ),
            );
        }
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let answer = change(Rc::clone(&this)).await;
            this.keyspaces_busy.set(false);
            match answer {
                Ok(response) => this.answer(&origin, &response),
                Err(refusal) => this.refuse(&origin, &refusal),
            }
        });
    }

    async fn create(
        self: &Rc<Self>,
        origin: &Origin,
        name: String,
        options: KeyspaceOptions,
    ) -> Result<Keyspace, Refusal> {
        if !keyspace_name_ok(&name) {
            return Err(Refusal::new(
                ErrorCode::BadRequest,
                0,
                "a keyspace's name is 1 to 64 of A-Z a-z 0-9 _ . - and starts with none of . -",
            ));
        }
        let limit = self.config.limits.keyspaces_max;
        {
            let known = self.keyspaces.borrow();
            if let Some(other) = known.by_name(&name) {
                return Err(Refusal::new(
                    ErrorCode::KeyspaceExists,
                    u64::from(other.id),
                    format!("there is a keyspace {name:?} already"),
                ));
            }
            if known.len() >= limit {
                return Err(Refusal::new(
                    ErrorCode::TooLarge,
                    limit as u64,
                    format!("there are {limit} keyspaces, the limit"),
                ));
            }
        }
        let (_, at) = self.view(HOME, KEYSPACE_DEFAULT, ReadLevel::Linearizable)?;
        if self.definition_of(&name).await?.is_some() {
            return Err(Refusal::retry(
                ErrorCode::Overloaded,
                DROPPING_RETRY_MS,
                format!(
                    "the last keyspace {name:?} is being dropped still: its records in partitions \
                     without a leader are to be deleted first"
                ),
            ));
        }
        let row_key = RowKeyBuf::of(HOME, KEYSPACE_SYSTEM, NEXT_ID);
        let next = self.engine.tree().get(&row_key, at).await?;
        let id = next
            .and_then(|row| Some(u32::from_le_bytes(row.value[..].try_into().ok()?)))
            .unwrap_or(KEYSPACE_DEFAULT + 1);
        let definition = Definition {
            id,
            options,
            dropped: false,
        };
        let encoded = keyspaces::encode(&definition);
        let next = (id + 1).to_le_bytes();
        let effects = [
            put(&name, &encoded),
            Effect::Put {
                keyspace: KEYSPACE_SYSTEM,
                key: NEXT_ID,
                value: &next,
                expires_ms: 0,
                created_ms: 0,
            },
        ];
        self.own_write(HOME, &effects).await?;
        let keyspace = Keyspace { id, name, options };
        self.tell_all(origin, &KeyspaceChange::Created(keyspace.clone()))
            .await;
        Ok(keyspace)
    }

    /// The row of a name as it stands.
    async fn definition_of(&self, name: &str) -> Result<Option<Definition>, Refusal> {
        let row_key = RowKeyBuf::of(HOME, KEYSPACE_SYSTEM, name.as_bytes());
        let row = self.engine.tree().get(&row_key, ReadAt::newest(0)).await?;
        Ok(row.and_then(|row| keyspaces::decode(&row.value)))
    }

    fn drop_of(&self, keyspace: Keyspace) -> UnfinishedDrop {
        UnfinishedDrop {
            keyspace,
            left: (0..self.config.map.partitions()).collect(),
        }
    }

    /// Has the leader of every partition that is left forget a dropped keyspace and delete its rows; its
    /// definition goes once all have. Whether that is done. Only while no other keyspace is created or
    /// dropped.
    async fn finish_drop(self: &Rc<Self>, drop: &mut UnfinishedDrop) -> bool {
        let keyspace = &drop.keyspace;
        let origin = Origin {
            deadline: self.env.now() + DROPPED_WITHIN,
            ..self.nobody()
        };
        let frame_of = |partition| {
            let mut frame = Vec::new();
            let request = Request::Clear {
                keyspace: keyspace.id,
                partition,
            };
            // Two numbers can be encoded.
            let _encoded = request.encode(0, 0, &mut frame);
            frame
        };
        let frames: Vec<_> = drop.left.iter().copied().map(frame_of).collect();
        let replies = self
            .ask_each(&frames, &origin, |this, frame, origin| {
                this.execute_frame(origin, Scope::Share, frame);
            })
            .await;
        let is_done = |reply: &Vec<u8>| matches!(decode_reply(reply), Ok(Response::Written { .. }));
        let mut done = replies.iter().map(is_done);
        drop.left.retain(|_| done.next() != Some(true));
        if !drop.left.is_empty() {
            return false;
        }
        // Another leader may have brought it to its end, and a new one of this name have been created.
        match self.definition_of(&keyspace.name).await {
            Ok(Some(found)) if found.dropped && found.id == keyspace.id => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
        let gone = Effect::Delete {
            keyspace: KEYSPACE_SYSTEM,
            key: keyspace.name.as_bytes(),
        };
        self.own_write(HOME, &[gone]).await.is_ok()
    }

    /// Goes on with what could not be dropped whole.
    pub(super) fn go_on_dropping(self: &Rc<Self>) {
        let now = self.clock.get().now;
        if now < self.next_dropping.get() || self.dropping.borrow().is_empty() {
            return;
        }
        self.next_dropping.set(now + DROP_EVERY);
        if self.check_leads(HOME, KEYSPACE_DEFAULT).is_err() {
            // Whoever leads now finds the definitions.
            return self.dropping.borrow_mut().clear();
        }
        if self.keyspaces_busy.replace(true) {
            return;
        }
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Background, async move {
            for mut drop in this.dropping.take() {
                if !this.finish_drop(&mut drop).await {
                    this.dropping.borrow_mut().push(drop);
                }
            }
            this.keyspaces_busy.set(false);
        });
    }

    /// Takes a change that the home core decided.
    pub(super) fn keyspace_changed(self: &Rc<Self>, origin: Origin, change: KeyspaceChange) {
        match change {
            KeyspaceChange::Created(keyspace) => {
                self.keyspaces.borrow_mut().insert(keyspace);
                self.answer(&origin, &Response::Done);
            }
            KeyspaceChange::Dropped(keyspace) => {
                self.keyspaces.borrow_mut().remove(keyspace.id);
                self.answer(&origin, &Response::Done);
            }
        }
    }

    /// A write of the server's own: waits until it is committed.
    pub(super) async fn own_write(
        &self,
        partition: PartitionId,
        effects: &[Effect<'_>],
    ) -> Result<(), Refusal> {
        loop {
            match self.own_proposal(partition, effects) {
                Ok(committed) => {
                    return match committed.wait().await {
                        Some(_) => Ok(()),
                        None => Err(Refusal::retry(
                            ErrorCode::Unavailable,
                            50,
                            format!("partition {partition} changed its leader: try again"),
                        )),
                    };
                }
                Err(refusal) if refusal.code == ErrorCode::Overloaded => {
                    self.env.sleep(OWN_RETRY).await;
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// Proposes a write of the server's own, at once or not at all; the signal tells when it is
    /// committed.
    pub(super) fn own_proposal(
        &self,
        partition: PartitionId,
        effects: &[Effect<'_>],
    ) -> Result<Signal<Option<LogId>>, Refusal> {
        let head = self.propose(partition, None, effects)?;
        let committed = Signal::new();
        let pending = Pending {
            id: head.id,
            keys: KeyHashes::None,
            outcome: Outcome::Own(Some(committed.clone())),
            ack: Ack::Quorum,
            bytes: 0,
        };
        self.await_commit(partition, pending);
        Ok(committed)
    }

    /// Takes over what the rows of the home partition say, after they were replaced.
    pub(super) async fn load_home(self: &Rc<Self>) -> Result<(), Refusal> {
        self.load_map().await?;
        self.load_keyspaces().await
    }

    /// Reads the definitions and tells every core of this node what there is, and what is no more; a
    /// leader of the home partition goes on with drops that were cut short. Only on the core that holds
    /// the home partition. No keyspace is created or dropped meanwhile.
    pub(super) async fn load_keyspaces(self: &Rc<Self>) -> Result<(), Refusal> {
        while self.keyspaces_busy.replace(true) {
            self.env.sleep(OWN_RETRY).await;
        }
        let loaded = self.load_definitions().await;
        self.keyspaces_busy.set(false);
        loaded
    }

    async fn load_definitions(self: &Rc<Self>) -> Result<(), Refusal> {
        let (from, to) = keyspace_range(HOME, KEYSPACE_SYSTEM, own_rows::END, b"");
        let mut cursor = self
            .engine
            .tree()
            .cursor(&from, &to, false, ReadAt::newest(0));
        let mut found = Vec::new();
        while let Some((row_key, _, value)) = cursor.next().await? {
            let name = split_row_key(row_key).map_or(&[][..], |parts| parts.key);
            found.extend(defined(name, value));
        }
        let origin = self.nobody();
        let gone: Vec<Keyspace> = {
            let known = self.keyspaces.borrow();
            let is_found = |one: &Keyspace| found.iter().any(|(other, _)| other.id == one.id);
            let known = known.list().into_iter();
            known
                .filter(|one| one.id != KEYSPACE_DEFAULT && !is_found(one))
                .collect()
        };
        for keyspace in gone {
            self.tell_all(&origin, &KeyspaceChange::Dropped(keyspace))
                .await;
        }
        for (keyspace, dropped) in found {
            if !dropped {
                self.tell_all(&origin, &KeyspaceChange::Created(keyspace))
                    .await;
            } else {
                let mut dropping = self.dropping.borrow_mut();
                if !dropping
                    .iter()
                    .any(|other| other.keyspace.id == keyspace.id)
                {
                    dropping.push(self.drop_of(keyspace));
                }
            }
        }
        Ok(())
    }

    /// A follower of the home partition has applied an entry: what it says of keyspaces becomes
    /// known to this node's cores. A leader tells them itself, and waits for it.
    pub(super) fn keyspaces_applied(self: &Rc<Self>, effects: Effects<'_>) {
        for effect in effects {
            let Effect::Put {
                keyspace: KEYSPACE_SYSTEM,
                key,
                value,
                ..
            } = effect
            else {
                continue;
            };
            let change = match defined(key, value) {
                Some((keyspace, false)) => KeyspaceChange::Created(keyspace),
                Some((keyspace, true)) => KeyspaceChange::Dropped(keyspace),
                None => continue,
            };
            match &change {
                KeyspaceChange::Created(keyspace) => {
                    self.keyspaces.borrow_mut().insert(keyspace.clone());
                }
                KeyspaceChange::Dropped(keyspace) => {
                    self.keyspaces.borrow_mut().remove(keyspace.id);
                }
            }
            let this = Rc::clone(self);
            self.env.spawn(TaskClass::Foreground, async move {
                let origin = this.nobody();
                this.tell_all(&origin, &change).await;
            });
        }
    }

    /// An origin that waits for no answer.
    pub(super) fn nobody(&self) -> Origin {
        Origin {
            core: self.config.core,
            ticket: Ticket::None,
            request_id: 0,
            cost: 0,
            deadline: Duration::MAX,
            forwarded: false,
            settled: false,
            trace: Trace::default(),
        }
    }
}

/// The keyspace that a row of the system keyspace defines, and whether it is being dropped.
fn defined(name: &[u8], value: &[u8]) -> Option<(Keyspace, bool)> {
    if name < own_rows::END {
        return None;
    }
    let definition = keyspaces::decode(value)?;
    let keyspace = Keyspace {
        id: definition.id,
        name: std::str::from_utf8(name).ok()?.to_owned(),
        options: definition.options,
    };
    Some((keyspace, definition.dropped))
}

/// A definition's row.
fn put<'a>(name: &'a str, encoded: &'a [u8]) -> Effect<'a> {
    Effect::Put {
        keyspace: KEYSPACE_SYSTEM,
        key: name.as_bytes(),
        value: encoded,
        expires_ms: 0,
        created_ms: 0,
    }
}
