//! Sends commands that are issued at the same time to Redis in one pipeline.
//!
//! The task of a connection wakes up for each command and writes it immediately. That costs one
//! system call per command, here and in Redis. So the first command waits until every ready task
//! has run. It is sent together with the commands that came meanwhile: one write, one deadline.
//! This saves a quarter of the CPU time of a read.

use std::{mem, sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{Cmd, Pipeline, Value, aio::ConnectionLike};
use tokio::{sync::oneshot, task::yield_now, time::timeout};

use super::{CacheError, link::Node};

/// Number of commands that are sent without waiting for more, so that Redis works while the api
/// reads further requests.
const FULL: usize = 16;

/// Groups commands for one connection into pipelines. Clones share all state.
#[derive(Clone)]
pub(super) struct ReadPipeline {
    node: Arc<Node>,
    timeout: Duration,
    waiting: Arc<Mutex<Vec<Call>>>,
}

/// A command, and the channel for its reply.
struct Call {
    command: Cmd,
    reply: oneshot::Sender<Result<Value, CacheError>>,
}

impl ReadPipeline {
    /// Creates a pipeline. Redis must answer each batch within `timeout`.
    pub(super) fn new(node: Arc<Node>, timeout: Duration) -> Self {
        Self {
            node,
            timeout,
            waiting: Arc::default(),
        }
    }

    /// Returns the reply of Redis to `command`.
    ///
    /// # Errors
    /// When Redis does not answer in time, or rejects this command.
    pub(super) async fn call(&self, command: Cmd) -> Result<Value, CacheError> {
        let (sender, reply) = oneshot::channel();
        self.enqueue(Call {
            command,
            reply: sender,
        });
        // The task drops the sender without a reply only when the process ends.
        let lost = || Err(CacheError::Connection("no reply".to_owned()));
        reply.await.unwrap_or_else(|_| lost())
    }

    /// Queues `call`. Each batch runs in its own task, so a cancelled caller does not cancel the
    /// commands of other callers.
    fn enqueue(&self, call: Call) {
        let mut waiting = self.waiting.lock();
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

    async fn send_soon(self) {
        yield_now().await;
        let calls = mem::take(&mut *self.waiting.lock());
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
        // A caller may have been cancelled meanwhile.
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
