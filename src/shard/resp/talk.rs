//! What Redis clients ask of the server itself: answered at once, but for `INFO` and `CLIENT LIST`.

use std::rc::Rc;

use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_wire::message::{KEYSPACE_DEFAULT, Request, Response};
use ringbolt_wire::slot::slot;

use super::super::Inner;
use super::super::mail::{Scope, SessionKey};
use super::super::read::decode_reply;
use super::super::reply::Refusal;
use super::task::refusal_of;
use super::{Asked, Job, refused};
use crate::resp::command::Talk;
use crate::resp::connection::Touches;
use crate::resp::info::{Facts, Parameters, REDIS_VERSION, mode_name};
use crate::resp::introspect;
use crate::resp::reply::{self, OK, Version};
use crate::resp::table::keys_of;

impl<E: Env> Inner<E> {
    pub(super) fn talk(self: &Rc<Self>, asked: &Asked, talk: Talk<'_>, name: &'static str) {
        let key = asked.key;
        self.with_connection(key, |connection, _| connection.last_command = name);
        match talk {
            Talk::Ping(None) => self.say(key, |out| reply::simple(out, "PONG")),
            Talk::Ping(Some(text)) | Talk::Echo(text) => {
                self.say(key, |out| reply::bulk(out, text))
            }
            Talk::Quit => {
                self.say_ok(key);
                self.finish(key);
            }
            Talk::Acknowledge => self.say_ok(key),
            Talk::Reset => {
                self.with_connection(key, |connection, _| {
                    connection.version = Version::Two;
                    (connection.database, connection.keyspace) = (0, KEYSPACE_DEFAULT);
                    connection.name.clear();
                });
                self.say(key, |out| reply::simple(out, "RESET"));
            }
            Talk::Hello { version, name } => self.say_hello(asked, version, name),
            Talk::Select(index) => self.select(asked, index),
            Talk::Time => {
                let wall_ms = self.clock.get().wall_ms;
                self.say(key, |out| {
                    reply::array(out, 2);
                    reply::bulk(out, (wall_ms / 1000).to_string().as_bytes());
                    reply::bulk(out, (wall_ms % 1000 * 1000).to_string().as_bytes());
                });
            }
            Talk::Info(sections) => self.info(asked, sections),
            Talk::CommandAll => self.say(key, |out| introspect::commands(out, asked.version, None)),
            Talk::CommandInfo(names) => {
                self.say(key, |out| {
                    introspect::commands(out, asked.version, Some(names))
                });
            }
            Talk::CommandCount => {
                self.say(key, |out| reply::integer(out, introspect::count() as i64));
            }
            Talk::CommandDocs(names) => {
                self.say(key, |out| introspect::docs(out, asked.version, names));
            }
            Talk::CommandList => self.say(key, introspect::list),
            Talk::CommandGetKeys(command) => match keys_of(command) {
                Ok(keys) => self.say(key, |out| {
                    reply::array(out, keys.len());
                    keys.iter().for_each(|key| reply::bulk(out, key));
                }),
                Err(fault) => self.say_error(key, &fault),
            },
            Talk::ConfigGet(patterns) => {
                let limits = &self.config.limits;
                let parameters = Parameters {
                    options: &self.resp.options,
                    nodes: self.config.cluster.nodes().len(),
                    value_bytes_max: limits.value_bytes_max,
                    clients_max: limits.sessions_max * usize::from(self.config.map.cores()),
                    idle_seconds: limits.idle_timeout.as_secs(),
                };
                self.say(key, |out| parameters.get(out, asked.version, patterns));
            }
            Talk::ClientId
            | Talk::ClientGetName
            | Talk::ClientSetName(_)
            | Talk::ClientSetInfo { .. }
            | Talk::ClientInfo
            | Talk::ClientList => self.client(asked, talk),
            Talk::ClusterInfo
            | Talk::ClusterKeySlot(_)
            | Talk::ClusterMyId
            | Talk::ClusterNodes
            | Talk::ClusterShards
            | Talk::ClusterSlots => self.cluster_talk(asked, talk),
        }
    }

    fn say_ok(&self, key: SessionKey) {
        self.say(key, |out| out.extend_from_slice(OK));
    }

    fn say_hello(&self, asked: &Asked, version: Option<Version>, name: Option<&[u8]>) {
        let nodes = self.config.cluster.nodes().len();
        let mode = mode_name(self.resp.options.mode, nodes);
        self.with_connection(asked.key, |connection, out| {
            if let Some(name) = name {
                connection.name = name.to_vec();
            }
            connection.version = version.unwrap_or(connection.version);
            let (version, id) = (connection.version, connection.id);
            connection.say(out, |out| {
                reply::map(out, version, 7);
                let mut text = |name: &str, text: &str| {
                    reply::bulk(out, name.as_bytes());
                    reply::bulk(out, text.as_bytes());
                };
                text("server", "ringbolt");
                text("version", REDIS_VERSION);
                text("mode", mode);
                text("role", "master");
                reply::bulk(out, b"proto");
                reply::integer(out, if version == Version::Three { 3 } else { 2 });
                reply::bulk(out, b"id");
                reply::integer(out, id as i64);
                reply::bulk(out, b"modules");
                reply::array(out, 0);
            });
        });
    }

    fn select(self: &Rc<Self>, asked: &Asked, index: i64) {
        let key = asked.key;
        let names = &self.resp.options.databases;
        let name = usize::try_from(index).ok().and_then(|at| names.get(at));
        let Some(name) = name else {
            return self.say_error(key, "ERR DB index is out of range");
        };
        let known = self.keyspaces.borrow().by_name(name).map(|found| found.id);
        if let Some(keyspace) = known {
            self.with_connection(key, |connection, out| {
                (connection.database, connection.keyspace) = (index as u16, keyspace);
                connection.say(out, |out| out.extend_from_slice(OK));
            });
            return;
        }
        // It may be new.
        let job = self.begin_job(asked, Touches::ALL);
        let (this, name) = (Rc::clone(self), name.clone());
        self.env.spawn(TaskClass::Foreground, async move {
            this.learn_keyspaces().await;
            let known = this.keyspaces.borrow().by_name(&name).map(|found| found.id);
            let mut bytes = Vec::new();
            match known {
                Some(keyspace) => {
                    this.with_connection(key, |connection, _| {
                        (connection.database, connection.keyspace) = (index as u16, keyspace);
                    });
                    bytes.extend_from_slice(OK);
                }
                None => {
                    let text = format!(
                        "ERR there is no keyspace {name:?} for database {index} yet: create it \
                         first (ringbolt keyspace create {name})"
                    );
                    reply::error(&mut bytes, &text);
                }
            }
            this.finish_job(&job, bytes);
        });
    }

    fn cluster_talk(&self, asked: &Asked, talk: Talk<'_>) {
        let (cluster, version) = (self.resp_cluster(), asked.version);
        self.say(asked.key, |out| match talk {
            Talk::ClusterInfo => reply::verbatim(out, version, &cluster.info()),
            Talk::ClusterNodes => reply::verbatim(out, version, &cluster.nodes()),
            Talk::ClusterKeySlot(key) => reply::integer(out, i64::from(slot(key))),
            Talk::ClusterMyId => cluster.my_id(out),
            Talk::ClusterShards => cluster.shards(out, version),
            _ => cluster.slots(out, version),
        });
    }

    fn info(self: &Rc<Self>, asked: &Asked, sections: &[&[u8]]) {
        let sections: Vec<Vec<u8>> = sections.iter().map(|name| name.to_vec()).collect();
        let job = self.begin_job(asked, Touches::NOTHING);
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let text = this.info_text(&job, &sections).await;
            let bytes = match text {
                Ok(text) => {
                    let mut bytes = Vec::new();
                    reply::verbatim(&mut bytes, job.asked.version, &text);
                    bytes
                }
                Err(refusal) => refused(&refusal),
            };
            this.finish_job(&job, bytes);
        });
    }

    async fn info_text(
        self: &Rc<Self>,
        job: &Job,
        sections: &[Vec<u8>],
    ) -> Result<String, Refusal> {
        let frame = self.request_for(job, &Request::Stats, Scope::Whole).await?;
        let counters = match decode_reply(&frame)? {
            Response::Stats(counters) => counters,
            other => return Err(refusal_of(&other)),
        };
        let up = self.env.now().saturating_sub(self.began);
        let facts = Facts {
            start: self.config.cluster.identity().start,
            up_seconds: up.as_secs(),
            nodes: self.config.cluster.nodes().len(),
            memory: self.resp.options.memory,
            port: self.resp.options.listen.map_or(0, |listen| listen.port()),
            mode: self.resp.options.mode,
            counters: &counters,
        };
        Ok(facts.text(sections))
    }
}
