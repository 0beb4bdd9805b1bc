//! `CLIENT`: what a connection has chosen, and who else is connected.
//!
//! A core knows its own connections alone, so that `CLIENT LIST` asks every core of the node. Each describes its
//! own in a task that gives way, since they may be thousands.

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::{Env, TaskClass};

use super::super::Inner;
use super::super::mail::Origin;
use super::super::sessions::Session;
use super::Asked;
use crate::resp::command::Talk;
use crate::resp::connection::{Connection, Touches};
use crate::resp::reply::{self, OK, Version};

impl<E: Env> Inner<E> {
    pub(super) fn client(self: &Rc<Self>, asked: &Asked, talk: Talk<'_>) {
        match talk {
            Talk::ClientList => self.list_clients(asked),
            Talk::ClientInfo => {
                let now = self.clock.get().now;
                let found = self
                    .sessions
                    .borrow_mut()
                    .get(asked.key)
                    .map(|session| describe(session, now));
                let text = found.unwrap_or_default();
                self.say(asked.key, |out| {
                    reply::verbatim(out, asked.version, &text);
                });
            }
            talk => {
                self.with_connection(asked.key, |connection, out| own(connection, out, talk));
            }
        }
    }

    fn list_clients(self: &Rc<Self>, asked: &Asked) {
        let job = self.begin_job(asked, Touches::NOTHING);
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let origin = this.origin_of_job(&job);
            let texts = this.ask_clients(&origin).await;
            let text = String::from_utf8_lossy(&texts.concat()).into_owned();
            let mut bytes = Vec::new();
            reply::verbatim(&mut bytes, job.asked.version, &text);
            this.finish_job(&job, bytes);
        });
    }

    /// Another core, or this one, wants to know who is connected here: a line for each Redis client.
    pub(in super::super) fn tell_clients(self: &Rc<Self>, origin: Origin) {
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let mut text = String::new();
            let keys = this.sessions.borrow().keys();
            for key in keys {
                if let Some(session) = this.sessions.borrow_mut().get(key) {
                    text.push_str(&describe(session, this.clock.get().now));
                }
                this.env.yield_if_needed().await;
            }
            this.reply(&origin, |out| out.extend_from_slice(text.as_bytes()));
        });
    }
}

/// What concerns the connection alone.
fn own(connection: &mut Connection, out: &mut Vec<u8>, talk: Talk<'_>) {
    match talk {
        Talk::ClientSetName(name) => connection.name = name.to_vec(),
        Talk::ClientSetInfo { version, text } => {
            let place = match version {
                true => &mut connection.library_version,
                false => &mut connection.library,
            };
            *place = text.to_vec();
        }
        Talk::ClientGetName if connection.name.is_empty() => {
            let null = reply::null(connection.version);
            return connection.say(out, |out| out.extend_from_slice(null));
        }
        Talk::ClientGetName => {
            let name = connection.name.clone();
            return connection.say(out, |out| reply::bulk(out, &name));
        }
        _ => {
            let id = connection.id;
            return connection.say(out, |out| reply::integer(out, id as i64));
        }
    }
    connection.say(out, |out| out.extend_from_slice(OK));
}

/// A line of `CLIENT LIST`; nothing for a connection that is no Redis client's.
fn describe(session: &Session, now: Duration) -> String {
    let Some(connection) = &session.resp else {
        return String::new();
    };
    let age = now.saturating_sub(connection.since).as_secs();
    let idle = now.saturating_sub(session.heard).as_secs();
    let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let protocol = if connection.version == Version::Three {
        3
    } else {
        2
    };
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        line,
        "id={} name={} age={age} idle={idle} flags=N db={} sub=0 psub=0 multi=-1 qbuf={} omem={} cmd={} \
         user=default resp={protocol} lib-name={} lib-ver={}",
        connection.id,
        shown(&connection.name),
        connection.database,
        session.input.len(),
        session.backlog(),
        connection.last_command,
        shown(&connection.library),
        shown(&connection.library_version),
    );
    line
}
