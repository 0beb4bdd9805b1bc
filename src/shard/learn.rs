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
use ringbolt_wire::message::{
    ErrorCode, KEYSPACE_DEFAULT, KeyspaceId, ReadLevel, Request, Response,
};

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
            let learnt = this.learn_keyspaces().await;
            if this.env.now() > origin.deadline {
                this.too_late(&origin);
            } else if learnt {
                this.execute_as_learnt(origin, scope, &frame);
            } else {
                this.refuse(&origin, &no_home());
            }
        });
    }

    /// Takes over what the home leader knows by now, and whether it could be asked. A core asks once at a
    /// time; who came after the question was put waits for the next one.
    pub(super) async fn learn_keyspaces(self: &Rc<Self>) -> bool {
        if let Some(under_way) = self.join_learning() {
            under_way.wait().await;
        }
        if let Some(under_way) = self.join_learning() {
            return under_way.wait().await;
        }
        *self.learning.borrow_mut() = Some(Vec::new());
        let learnt = self.ask_for_keyspaces().await;
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

    async fn ask_for_keyspaces(self: &Rc<Self>) -> bool {
        let mut frame = Vec::new();
        let origin = Origin {
            deadline: self.env.now() + WITHIN,
            ..self.nobody()
        };
        // A request without a body can be encoded.
        let _encoded = Request::KeyspaceList.encode(0, 0, &mut frame);
        loop {
            let changes = self.keyspaces.borrow().changes();
            let reply = self.request(&frame, Scope::Share, &origin).await;
            let Ok(Response::Keyspaces(list)) = decode_reply(&reply) else {
                return false;
            };
            if self.leads_home() {
                return true;
            }
            let mut known = self.keyspaces.borrow_mut();
            // Else this core was told of one meanwhile that the list is too old for.
            if known.changes() == changes {
                known.replace(list);
                return true;
            }
        }
    }

    /// A replica here has applied that a keyspace was emptied, maybe since it was dropped.
    pub(super) fn learn_soon(&self) {
        self.next_learning.set(Duration::ZERO);
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
            let _learnt = this.learn_keyspaces().await;
        });
    }

    /// Answers with the keyspaces. A client is told what is known here if the home leader cannot be asked;
    /// a core that asks ([`Scope::Share`] and the like) is answered by the home leader or not at all.
    pub(super) fn list_keyspaces(self: &Rc<Self>, origin: Origin, scope: Scope, bytes: &[u8]) {
        let leads = self.leads_home();
        if scope != Scope::Whole && !leads {
            // Whoever leads answers; or this is refused.
            if self.owned_as(HOME, origin, scope, bytes) {
                self.serves_here(HOME, true, &origin, scope, bytes);
            }
            return;
        }
        let this = Rc::clone(self);
        self.env.spawn(TaskClass::Foreground, async move {
            let known = match leads {
                true => this.prove_home().await,
                false => this
                    .learn_keyspaces()
                    .await
                    .then_some(())
                    .ok_or_else(no_home),
            };
            match known {
                Err(refusal) if scope != Scope::Whole => this.refuse(&origin, &refusal),
                _ => this.tell_keyspaces(&origin),
            }
        });
    }

    /// Whether this core serves as the leader of the home partition.
    fn leads_home(&self) -> bool {
        self.with_replica(HOME, |home| home.serves()) == Some(true)
    }

    /// Makes sure that what is known here is what the home leader knows: that this is the one.
    async fn prove_home(&self) -> Result<(), Refusal> {
        let seen = self.applied(HOME);
        self.prove_reads([seen], ReadLevel::Linearizable).await
    }

    fn tell_keyspaces(&self, origin: &Origin) {
        let list = self.keyspaces.borrow().list();
        self.answer(origin, &Response::Keyspaces(list));
    }
}

fn no_home() -> Refusal {
    let message = "whether there is such a keyspace is not known here, and partition 0, which knows, has \
                   no leader that answers: try again";
    Refusal::retry(ErrorCode::Unavailable, RETRY_MS, message)
}
