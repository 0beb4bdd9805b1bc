//! What a core learns of keyspaces from whoever leads the home partition.
//!
//! The definitions are rows of that partition ([`super::keyspaces`]). A change is told at once to the
//! cores of the nodes that hold it; but a follower is a moment behind its leader, and nodes that do not
//! hold it are told nothing. So a request that names a keyspace unknown here is no mistake yet: the core
//! asks the home leader first, and takes the request up again. What a core knows it asks for anew from
//! time to time, so that it forgets what was dropped.

use std::rc::Rc;
use std::time::Duration;

use ringbolt_engine::env::{Env, TaskClass};
use ringbolt_wire::message::{ErrorCode, KEYSPACE_DEFAULT, KeyspaceId, Request, Response};

use super::Inner;
use super::keyspaces::HOME;
use super::mail::{Origin, Scope};
use super::read::decode_reply;
use super::reply::Refusal;
use super::signal::Signal;

/// How often a core asks anew.
const LEARN_EVERY: Duration = Duration::from_secs(5);
/// How long the home leader is waited for.
const WITHIN: Duration = Duration::from_secs(1);
/// How long a client waits while the home leader cannot be asked, in milliseconds.
const RETRY_MS: u32 = 50;

/// A question to the home leader that is under way, and who else waits for its answer.
pub(super) type Learning = Option<Vec<Signal<bool>>>;

impl<E: Env> Inner<E> {
    /// Whether requests for a keyspace can be decided.
    pub(super) fn knows_keyspace(&self, keyspace: KeyspaceId) -> bool {
        keyspace == KEYSPACE_DEFAULT || self.keyspaces.borrow().options(keyspace).is_some()
    }

    /// Asks for the keyspaces, then executes a request that names one unknown before.
    pub(super) fn execute_once_learnt(self: &Rc<Self>, origin: Origin, scope: Scope, bytes: &[u8]) {
        let this = Rc::clone(self);
        let frame = bytes.to_vec();
        self.env.spawn(TaskClass::Foreground, async move {
            if this.learn_keyspaces(origin.deadline).await {
                this.execute_as_learnt(origin, scope, &frame);
            } else {
                let message = "whether there is such a keyspace is not known here, and partition 0, \
                               which knows, has no leader that answers: try again";
                let refusal = Refusal::retry(ErrorCode::Unavailable, RETRY_MS, message);
                this.refuse(&origin, &refusal);
            }
        });
    }

    /// Takes over what the home leader knows by now, and whether it could be asked by `deadline`. A core
    /// asks once at a time; who came after the question was put waits for the next one.
    pub(super) async fn learn_keyspaces(self: &Rc<Self>, deadline: Duration) -> bool {
        if let Some(under_way) = self.join_learning() {
            under_way.wait().await;
        }
        if let Some(under_way) = self.join_learning() {
            return under_way.wait().await;
        }
        *self.learning.borrow_mut() = Some(Vec::new());
        let learnt = self.ask_for_keyspaces(deadline).await;
        for waiting in self.learning.take().into_iter().flatten() {
            waiting.set(learnt);
        }
        learnt
    }

    fn join_learning(&self) -> Option<Signal<bool>> {
        let mut learning = self.learning.borrow_mut();
        learning.as_mut().map(|waiting| {
            let signal = Signal::new();
            waiting.push(signal.clone());
            signal
        })
    }

    async fn ask_for_keyspaces(self: &Rc<Self>, deadline: Duration) -> bool {
        let mut frame = Vec::new();
        let origin = Origin {
            deadline: deadline.min(self.env.now() + WITHIN),
            ..self.nobody()
        };
        // A request without a body can be encoded.
        let _encoded = Request::KeyspaceList.encode(0, 0, &mut frame);
        loop {
            let removals = self.keyspaces.borrow().removals();
            let reply = self.request(&frame, Scope::Share, &origin).await;
            let Ok(Response::Keyspaces(list)) = decode_reply(&reply) else {
                return false;
            };
            let mut known = self.keyspaces.borrow_mut();
            // Else one was dropped meanwhile, which the list may have.
            if known.removals() == removals {
                known.replace(list);
                return true;
            }
        }
    }

    /// Asks anew if it is time. The home leader need not.
    pub(super) fn keep_learning(self: &Rc<Self>) {
        let now = self.clock.get().now;
        if now < self.next_learning.get() || self.config.cluster.nodes().len() == 1 {
            return;
        }
        self.next_learning.set(now + LEARN_EVERY);
        if self.leads_home.get() {
            return;
        }
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            // If not now, then the next time, or when somebody asks.
            let _learnt = this.learn_keyspaces(Duration::MAX).await;
        });
    }

    /// Answers with the keyspaces. A client is told what is known here if the home leader cannot be asked;
    /// a core that asks ([`Scope::Share`] and the like) is answered by the home leader or not at all.
    pub(super) fn list_keyspaces(self: &Rc<Self>, origin: Origin, scope: Scope, bytes: &[u8]) {
        if self.with_replica(HOME, |home| home.serves()) == Some(true) {
            return self.tell_keyspaces(&origin);
        }
        if scope != Scope::Whole {
            if self.owned_as(HOME, origin, scope, bytes)
                && self.serves_here(HOME, true, &origin, scope, bytes)
            {
                self.tell_keyspaces(&origin);
            }
            return;
        }
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let _learnt = this.learn_keyspaces(origin.deadline).await;
            this.tell_keyspaces(&origin);
        });
    }

    fn tell_keyspaces(&self, origin: &Origin) {
        let list = self.keyspaces.borrow().list();
        self.answer(origin, &Response::Keyspaces(list));
    }
}
