//! Commands that are given at the same time go to Redis in one pipeline.
//!
//! The task of a connection is woken by every command that it is given, and writes it at once: a system call each, for us
//! and for Redis. So the first command waits until every task that is ready has run, and goes with those that came
//! meanwhile: one write, one deadline. A quarter of a read's CPU went into what this spares.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{Cmd, Pipeline, Value, aio::ConnectionLike};
use tokio::{sync::oneshot, task::yield_now, time::timeout};

use super::{CacheError, link::Node};

/// So many commands go without waiting for more: Redis is to be at work while further requests are read.
const FULL: usize = 16;

/// Puts commands for one connection together; clones share everything.
#[derive(Clone)]
pub(super) struct Batcher {
    node: Arc<Node>,
    timeout: Duration,
    waiting: Arc<Mutex<Vec<Call>>>,
}

/// A command, and whoever waits for its reply.
struct Call {
    command: Cmd,
    reply: oneshot::Sender<Result<Value, CacheError>>,
}

impl Batcher {
    /// A batch must be answered within `timeout`.
    pub(super) fn new(node: Arc<Node>, timeout: Duration) -> Self {
        Self {
            node,
            timeout,
            waiting: Arc::default(),
        }
    }

    /// What Redis replies to `command`.
    ///
    /// # Errors
    /// When Redis does not answer in time, or refuses this command.
    pub(super) async fn call(&self, command: Cmd) -> Result<Value, CacheError> {
        let (sender, reply) = oneshot::channel();
        self.enqueue(Call {
            command,
            reply: sender,
        });
        // The sender is lost only with the task that has it, when the process ends.
        let lost = || Err(CacheError::Connection("no reply".to_owned()));
        reply.await.unwrap_or_else(|_| lost())
    }

    /// The batch is a task of its own: a caller that goes away takes nobody else's command along.
    fn enqueue(&self, call: Call) {
        let mut waiting = self.waiting();
        waiting.push(call);
        match waiting.len() {
            1 => {
                tokio::spawn(self.clone().send_soon());
            }
            FULL => {
                let calls = mem::replace(&mut *waiting, Vec::with_capacity(FULL));
                tokio::spawn(self.clone().send(calls));
            }
            _ => {}
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Call>> {
        // Nothing that is done with the list can panic half-way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_soon(self) {
        yield_now().await;
        let calls = mem::take(&mut *self.waiting());
        self.send(calls).await;
    }

    async fn send(self, mut calls: Vec<Call>) {
        calls.retain(|call| !call.reply.is_closed());
        if calls.is_empty() {
            return;
        }
        let mut pipeline = Pipeline::with_capacity(calls.len());
        let mut senders = Vec::with_capacity(calls.len());
        for Call { command, reply } in calls {
            pipeline.add_command(command);
            senders.push(reply);
        }
        let mut connection = self.node.connection();
        let query = connection.req_packed_commands(&pipeline, 0, senders.len());
        let replies = match timeout(self.timeout, query).await {
            Ok(replies) => replies.map_err(CacheError::from),
            Err(_) => Err(CacheError::Deadline(self.timeout)),
        };
        // A caller may have gone away meanwhile.
        match replies {
            Ok(values) => senders.into_iter().zip(values).for_each(|(sender, value)| {
                let _ = sender.send(value.extract_error().map_err(CacheError::from));
            }),
            Err(error) => senders.into_iter().for_each(|sender| {
                let _ = sender.send(Err(error.clone()));
            }),
        }
    }
}
