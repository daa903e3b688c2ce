//! Redis as seen through `redis-cli`, and a Redis that a test can stop.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use redis::{Connection, RedisError, RedisResult, cmd};
use shared::order::Version;

use crate::{
    environment::{Folder, required},
    port::Port,
    process::{Process, Signal},
    roles,
    wait::until,
};

/// Timeout of one command.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Result of `PTTL` for a key that does not exist.
const GONE: i64 = -2;

/// The content of `order:{uid}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Fields of the hash.
    pub fields: BTreeMap<String, Vec<u8>>,
    /// Remaining TTL in ms; -1 means no expiry.
    pub ttl_ms: i64,
}

impl Entry {
    /// Returns the version of the order, without the shape of the document.
    pub fn version(&self) -> Option<String> {
        let version = self.fields.get("version")?;
        let version = version.get(..Version::WIDTH).unwrap_or(version);
        Some(String::from_utf8_lossy(version).into_owned())
    }

    /// Returns the document.
    pub fn json(&self) -> Option<&[u8]> {
        self.fields.get("json").map(Vec::as_slice)
    }
}

/// Returns every order in the Redis at `url`, by its uid. For a cluster, `url` lists all masters,
/// separated by commas.
///
/// # Errors
/// Redis does not answer.
pub fn entries(url: &str) -> RedisResult<BTreeMap<String, Entry>> {
    let mut all = BTreeMap::new();
    for node in url.split(',') {
        all.append(&mut entries_of_node(node)?);
    }
    Ok(all)
}

fn entries_of_node(url: &str) -> RedisResult<BTreeMap<String, Entry>> {
    let mut connection = connect(url)?;
    let keys: Vec<String> = cmd("KEYS").arg("order:*").query(&mut connection)?;
    let uids = keys
        .iter()
        .map(|key| key.trim_start_matches("order:").to_owned())
        .collect();
    read(&mut connection, uids)
}

/// Returns those of these orders that the Redis at `url` holds.
///
/// # Errors
/// Redis does not answer.
pub fn entries_of(
    url: &str,
    uids: impl IntoIterator<Item = String>,
) -> RedisResult<BTreeMap<String, Entry>> {
    read(&mut connect(url)?, uids.into_iter().collect())
}

fn read(connection: &mut Connection, uids: Vec<String>) -> RedisResult<BTreeMap<String, Entry>> {
    let mut pipe = redis::pipe();
    for uid in &uids {
        let key = format!("order:{uid}");
        pipe.cmd("HGETALL").arg(&key).cmd("PTTL").arg(&key);
    }
    let replies: Vec<redis::Value> = match uids.is_empty() {
        true => Vec::new(),
        false => pipe.query(connection)?,
    };
    let mut entries = BTreeMap::new();
    for (uid, reply) in uids.into_iter().zip(replies.chunks_exact(2)) {
        let fields: BTreeMap<String, Vec<u8>> = redis::from_redis_value_ref(&reply[0])?;
        let ttl_ms: i64 = redis::from_redis_value_ref(&reply[1])?;
        // The entry may have been evicted between the two commands.
        if !fields.is_empty() && ttl_ms != GONE {
            entries.insert(uid, Entry { fields, ttl_ms });
        }
    }
    Ok(entries)
}

/// Like [`RedisServer::watermark`], for the Redis at `url`, which may be a master of a cluster.
///
/// # Errors
/// Redis does not answer, or another master holds the watermark.
pub(crate) fn watermark(url: &str) -> RedisResult<Option<String>> {
    cmd("HGET")
        .arg("order-cache")
        .arg("watermark")
        .query(&mut connect(url)?)
}

/// Creates the users of the programs in each Redis of `url`.
#[track_caller]
pub(crate) fn create_users(url: &str) {
    for line in roles::acl(url).lines() {
        let rules = line.split(' ').skip(1).collect::<Vec<_>>();
        for node in url.split(',') {
            let mut set = cmd("ACL");
            set.arg("SETUSER").arg(&rules);
            let created: RedisResult<()> =
                connect(node).and_then(|mut connection| set.query(&mut connection));
            created.unwrap_or_else(|error| panic!("{rules:?}: {error}"));
        }
    }
}

/// Returns what the Redis at `url` has denied to users.
///
/// # Errors
/// Redis does not answer.
pub fn denials(url: &str) -> RedisResult<Vec<String>> {
    let entries: Vec<BTreeMap<String, redis::Value>> =
        cmd("ACL").arg("LOG").query(&mut connect(url)?)?;
    Ok(entries.iter().map(|entry| format!("{entry:?}")).collect())
}

fn connect(url: &str) -> RedisResult<Connection> {
    let connection = redis::Client::open(url)?.get_connection_with_timeout(TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    Ok(connection)
}

/// A private Redis that a test can stop, crash and freeze.
pub struct RedisServer {
    process: Option<Process>,
    port: Port,
    folder: Folder,
}

impl RedisServer {
    pub(crate) fn start(name: &str) -> Self {
        let mut server = Self {
            process: None,
            port: Port::reserve(),
            folder: Folder::create(&format!("{name}-redis")),
        };
        server.start_again();
        server
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    /// Starts Redis after [`RedisServer::crash`], with the content of the last save, if any.
    #[track_caller]
    pub fn start_again(&mut self) {
        let program = PathBuf::from(required("ORDER_SERVICE_REDIS_SERVER"));
        let (port, folder) = (self.port.number().to_string(), self.folder.path());
        let users = folder.join("users.acl");
        if !users.exists() {
            fs::write(&users, roles::acl(&self.url())).unwrap();
        }
        #[rustfmt::skip]
        let arguments = [
            "--bind", "127.0.0.1", "--port", &port, "--dir", &folder.to_string_lossy(),
            "--daemonize", "no", "--save", "",
            "--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru",
            // The default user, which the tests use, keeps all rights.
            "--aclfile", &users.to_string_lossy(),
        ];
        let mut process = Process::start("redis", &program, &arguments, &[], folder);
        until("an answer of Redis", || -> Result<(), RedisError> {
            assert!(process.ended().is_none(), "Redis ended: {}", process.log());
            cmd("PING").query(&mut connect(&self.url())?)
        });
        self.process = Some(process);
    }

    /// Kills Redis. Content that was not saved is lost.
    #[track_caller]
    pub fn crash(&mut self) {
        self.process.take().expect("Redis runs").kill();
    }

    /// Freezes Redis: connections stay open and get no answer.
    #[track_caller]
    pub fn freeze(&mut self) {
        self.process
            .as_mut()
            .expect("Redis runs")
            .signal(Signal::Stop);
    }

    /// Ends [`RedisServer::freeze`].
    #[track_caller]
    pub fn thaw(&mut self) {
        self.process
            .as_mut()
            .expect("Redis runs")
            .signal(Signal::Continue);
    }

    /// Saves the content to the dump file, which the next start loads.
    #[track_caller]
    pub fn save(&self) {
        self.command(&["SAVE"]);
    }

    /// Removes the dump file, so that the next start is empty.
    pub fn forget_dump(&self) {
        // Without a save there is no file to remove.
        let _ = fs::remove_file(self.folder.path().join("dump.rdb"));
    }

    /// Removes the entry of an order, as an eviction would.
    #[track_caller]
    pub fn evict(&self, uid: &str) {
        self.command(&["DEL", &format!("order:{uid}")]);
    }

    /// Returns the watermark: the time up to which this Redis is complete, as far as the workers
    /// know. `None` before a worker has set it.
    ///
    /// # Errors
    /// Redis does not answer.
    pub fn watermark(&self) -> RedisResult<Option<String>> {
        watermark(&self.url())
    }

    /// Runs a command as `redis-cli` would.
    #[track_caller]
    pub fn command(&self, words: &[&str]) {
        let mut command = cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        let reply: RedisResult<redis::Value> =
            connect(&self.url()).and_then(|mut connection| command.query(&mut connection));
        reply.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }
}
