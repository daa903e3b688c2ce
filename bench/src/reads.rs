//! Measures the api with all features on, against a bare hyper server that returns the same
//! responses.

use std::{
    collections::BTreeMap,
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use e2e::{Answer, Http, Stack, until};
use serde::Serialize;

use crate::{
    cpu::cpu_time,
    http_floor::Tier,
    load::Load,
    part::{Figure, Goal, Part},
};

/// Core of the server under test. The load generator and Redis share the other core.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const LOAD_CORE: usize = 1;

/// TTL of the local cache. No entry expires during a run.
pub(crate) const LONG: &str = "1h";

/// The tiers, each with the goal for its ratio to the floor.
const TIERS: [(Tier, f64); 3] = [
    (Tier::Local, 0.90),
    (Tier::Redis, 0.88),
    (Tier::Signed, 0.88),
];

/// `CACHE_MAC_KEY` of [`Tier::Signed`].
const MAC_KEY: &str = "6f72646572732d6f72646572732d6f72646572732d6f72646572732d6f726465";

/// Headers whose values differ between responses.
const CHANGING: [&str; 3] = ["date", "x-duration-ms", "x-request-id"];

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Number of different orders in the requests.
    #[arg(short = 'n', long, default_value_t = 2000)]
    orders: usize,
    /// Measure only this tier.
    #[arg(long)]
    tier: Option<Tier>,
    /// Rounds. In each round, api and floor of each tier are restarted and take turns.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds per turn. Turns are short, so that both sides of a round meet the same conditions.
    /// Many short rounds are more precise than a few long ones.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Result of one turn of one server. The CPU time is per request.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Turn {
    pub(crate) requests_per_second: f64,
    pub(crate) cpu_us: f64,
}

/// Results of one turn of the api and one of its floor.
#[derive(Clone, Copy, Debug, Serialize)]
struct Pair {
    api: Turn,
    floor: Turn,
}

/// A server under test.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) pid: u32,
}

/// The floor as a separate process, killed on drop.
struct Floor {
    child: Child,
    server: Server,
}

/// Starts a system with so many orders in Redis, and returns it with their paths.
///
/// # Errors
/// If Redis does not have all of them.
pub(crate) fn cached_orders(
    name: &'static str,
    orders: usize,
) -> anyhow::Result<(Stack, Vec<String>)> {
    let count = orders.to_string();
    let mut stack = Stack::builder(name)
        .variable("REDIS_TIMEOUT", "100ms")
        .variable("LOCAL_CACHE_TTL", LONG)
        .variable("CACHE_WARMUP", &count)
        .workers(1)
        .start();
    stack
        .command(
            "producer",
            &["send", "-n", &count, "--min-items", "2", "--max-items", "3"],
        )
        .succeeded();
    stack.settle();
    stack.stop_workers();
    let uids = shuffled(e2e::entries(&stack.addresses().redis_url)?.into_keys());
    ensure!(uids.len() == orders, "{} orders in Redis", uids.len());
    let paths = uids.iter().map(|uid| format!("/order/{uid}")).collect();
    Ok((stack, paths))
}

/// Runs the part.
///
/// # Errors
/// If a program is missing, or api and floor return different responses.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let (mut stack, paths) = cached_orders("bench-reads", options.orders)?;
    let redis_url = stack.addresses().redis_url.clone();
    pin(redis_pid(&redis_url)?, LOAD_CORE)?;
    let folder = env::temp_dir().join(format!("bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let load = Load::new(&folder, &paths, LOAD_CORE)?;
    let duration = Duration::from_secs(options.seconds);
    let mut tiers: Vec<(Tier, f64, Vec<Pair>)> = TIERS
        .into_iter()
        .filter(|(tier, _)| options.tier.is_none_or(|only| only == *tier))
        .map(|(tier, goal)| (tier, goal, Vec::new()))
        .collect();
    for number in 1..=options.rounds {
        for (tier, _, pairs) in &mut tiers {
            let floor_first = number.is_multiple_of(2);
            let pair = pair(&mut stack, *tier, &paths, floor_first, |server| {
                turn(&load, server, None, duration)
            })?;
            eprintln!(
                "round {number}, {}: {}",
                tier.as_str(),
                serde_json::to_string(&pair)?
            );
            pairs.push(pair);
        }
    }
    fs::remove_dir_all(&folder)?;
    let figures = tiers
        .iter()
        .flat_map(|(tier, goal, pairs)| figures(tier.as_str(), *goal, pairs))
        .collect();
    Ok(Part::new("reads", &method(options), figures))
}

fn method(options: &Options) -> String {
    format!(
        "the api bound to one core, wrk with 64 connections on the other, {} orders in turn, {} s \
         per turn, a new process for each turn; floor: bare hyper that returns the same bytes and \
         headers, from a table or by HMGET over one connection",
        options.orders, options.seconds
    )
}

/// Returns the uids in the order of their hashes. In insertion order each response would be next to
/// the previous one in memory, which would speed up some servers more than others.
pub(crate) fn shuffled(uids: impl Iterator<Item = String>) -> Vec<String> {
    let mut uids: Vec<String> = uids.collect();
    uids.sort_by_cached_key(|uid| {
        let mut hasher = DefaultHasher::new();
        uid.hash(&mut hasher);
        hasher.finish()
    });
    uids
}

/// Measures one turn of the api and one of its floor.
///
/// Both are started for this turn: the speed of the same program varies by a tenth from start to
/// start. The first side changes from round to round, so that a machine whose speed drifts favours
/// neither.
fn pair(
    stack: &mut Stack,
    tier: Tier,
    paths: &[String],
    floor_first: bool,
    turn: impl Fn(&Server) -> anyhow::Result<Turn>,
) -> anyhow::Result<Pair> {
    let floor = Floor::start(tier, &stack.addresses().redis_url)?;
    let variables: &[_] = match tier {
        Tier::Local => &[],
        Tier::Redis => &[("LOCAL_CACHE_MAX_BYTES", "0")],
        // The first read of each order writes its entry again, with a MAC.
        Tier::Signed => &[("LOCAL_CACHE_MAX_BYTES", "0"), ("CACHE_MAC_KEY", MAC_KEY)],
    };
    let api = stack.start_api_with(variables);
    let server = Server {
        url: api.url(),
        pid: api.process.id(),
    };
    for server in [&server, &floor.server] {
        pin(server.pid, SERVER_CORE)?;
    }
    for path in paths {
        await_tier(&server, path, tier);
    }
    same_answers(&server, &floor.server, &paths[0])?;
    let pair = if floor_first {
        let floor = turn(&floor.server)?;
        let api = turn(&server)?;
        Pair { api, floor }
    } else {
        let api = turn(&server)?;
        let floor = turn(&floor.server)?;
        Pair { api, floor }
    };
    api.process.terminate();
    stack.apis.clear();
    Ok(pair)
}

impl Floor {
    fn start(tier: Tier, redis_url: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args([
                "serve-floor",
                "--tier",
                tier.as_str(),
                "--redis-url",
                redis_url,
            ])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("the floor's output")?;
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address)?;
        ensure!(!address.is_empty(), "the floor did not start");
        let server = Server {
            url: format!("http://{}", address.trim_end()),
            pid: child.id(),
        };
        Ok(Self { child, server })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Both calls fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Binds all threads of a process to one core.
pub(crate) fn pin(pid: u32, core: usize) -> anyhow::Result<()> {
    let status = Command::new("taskset")
        .args([
            "--all-tasks",
            "--cpu-list",
            "--pid",
            &core.to_string(),
            &pid.to_string(),
        ])
        .stdout(Stdio::null())
        .status()
        .context("taskset is needed (util-linux)")?;
    ensure!(status.success(), "taskset could not bind process {pid}");
    Ok(())
}

fn redis_pid(url: &str) -> anyhow::Result<u32> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let info: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("process_id:"));
    Ok(pid
        .context("INFO of Redis has no process_id")?
        .trim()
        .parse()?)
}

fn await_tier(api: &Server, path: &str, tier: Tier) {
    let url = format!("{}{path}", api.url);
    until(
        &format!("{path} from {}", tier.source()),
        || match Http::new().get(&url).header("X-Source") {
            Some(source) if source == tier.source() => Ok(()),
            source => Err(format!("{source:?}")),
        },
    );
}

/// Verifies that api and floor return the same response; otherwise the comparison would be invalid.
fn same_answers(api: &Server, floor: &Server, path: &str) -> anyhow::Result<()> {
    let [api, floor] = [api, floor].map(|server| Http::new().get(&format!("{}{path}", server.url)));
    ensure!(
        api.status == 200 && floor.status == 200,
        "api or floor did not return 200"
    );
    ensure!(
        api.body == floor.body,
        "api and floor returned different bodies"
    );
    let headers = |answer: &Answer| -> BTreeMap<String, String> {
        let headers = answer.headers.iter().cloned();
        headers
            .map(|(name, value)| match CHANGING.contains(&name.as_str()) {
                true => (name, String::new()),
                false => (name, value),
            })
            .collect()
    };
    ensure!(
        headers(&api) == headers(&floor),
        "headers differ: {:?}, {:?}",
        headers(&api),
        headers(&floor)
    );
    Ok(())
}

/// Measures one turn of a server, with requests of a caller with `token`.
pub(crate) fn turn(
    load: &Load,
    server: &Server,
    token: Option<&str>,
    duration: Duration,
) -> anyhow::Result<Turn> {
    let before = cpu_time(server.pid)?;
    let run = load.run(&server.url, token, duration)?;
    let cpu = cpu_time(server.pid)? - before;
    Ok(Turn {
        requests_per_second: run.per_second,
        cpu_us: cpu.as_secs_f64() * 1e6 / run.requests as f64,
    })
}

fn figures(tier: &str, goal: f64, pairs: &[Pair]) -> [Figure; 2] {
    let of = |value: fn(&Pair) -> f64| pairs.iter().map(value);
    [
        Figure::new(
            &format!("api, {tier} hit"),
            "requests/s",
            of(|pair| pair.api.requests_per_second),
        )
        .floor(of(|pair| pair.floor.requests_per_second))
        .goal(Goal::AtLeast(goal)),
        Figure::new(
            &format!("api CPU per {tier} hit"),
            "µs",
            of(|pair| pair.api.cpu_us),
        )
        .floor(of(|pair| pair.floor.cpu_us)),
    ]
}
