//! Measures what keys, the access log and masking cost a local hit, against the api without them.

use std::{env, fs, path::PathBuf, time::Duration};

use clap::Args;
use e2e::{Api, Http, Stack, until};
use serde::Serialize;

use crate::{
    load::Load,
    part::{Figure, Goal, Part},
    reads::{LOAD_CORE, SERVER_CORE, Server, Turn, cached_orders, pin, turn},
};

/// A token, and the line of its key without the scopes.
const TOKEN: &str = "secret";
const KEY: &str = "bench sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// Callers with a key: the name of the figure, the scopes, the goal for the ratio to the api
/// without keys.
const CALLERS: [(&str, &str, f64); 2] = [
    ("all scopes", "orders:read,orders:list,orders:pii", 0.8),
    ("masked", "orders:read", 0.5),
];

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Number of different orders in the requests.
    #[arg(short = 'n', long, default_value_t = 2000)]
    orders: usize,
    /// Rounds. In each round, the api is restarted without keys and for each caller.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds per turn.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// Results of one round: of the api without keys, and of it with each of [`CALLERS`].
#[derive(Debug, Serialize)]
struct Round {
    open: Turn,
    guarded: Vec<Turn>,
}

/// What each turn reads.
struct Bench {
    stack: Stack,
    paths: Vec<String>,
    load: Load,
    /// The file of keys.
    keys: PathBuf,
    duration: Duration,
}

/// Runs the part.
///
/// # Errors
/// If a program is missing, or a request fails.
pub(crate) fn run(options: &Options) -> anyhow::Result<Part> {
    let (stack, paths) = cached_orders("bench-access", options.orders)?;
    let folder = env::temp_dir().join(format!("bench-access-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut bench = Bench {
        stack,
        load: Load::new(&folder, &paths, LOAD_CORE)?,
        paths,
        keys: folder.join("keys"),
        duration: Duration::from_secs(options.seconds),
    };
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let open = bench.measure(None)?;
        let guarded: anyhow::Result<_> = CALLERS
            .iter()
            .map(|(_, scopes, _)| bench.measure(Some(scopes)))
            .collect();
        let round = Round {
            open,
            guarded: guarded?,
        };
        eprintln!("round {number}: {}", serde_json::to_string(&round)?);
        rounds.push(round);
    }
    fs::remove_dir_all(&folder)?;
    Ok(Part::new("access", &method(options), figures(&rounds)))
}

impl Bench {
    /// Measures a new api, without keys or with a key of these scopes.
    fn measure(&mut self, scopes: Option<&str>) -> anyhow::Result<Turn> {
        let path = self.keys.display().to_string();
        let (variables, token) = match scopes {
            Some(scopes) => {
                fs::write(&self.keys, format!("{KEY} {scopes}\n"))?;
                (vec![("API_KEYS_FILE", path.as_str())], Some(TOKEN))
            }
            None => (Vec::new(), None),
        };
        let api = self.stack.start_api_with(&variables);
        let server = Server {
            url: api.url(),
            pid: api.process.id(),
        };
        pin(server.pid, SERVER_CORE)?;
        await_hits(api, &self.paths, token);
        let turn = turn(&self.load, &server, token, self.duration)?;
        api.process.terminate();
        self.stack.apis.clear();
        Ok(turn)
    }
}

fn method(options: &Options) -> String {
    format!(
        "the api bound to one core, wrk with 64 connections on the other, {} orders in turn from \
         the local cache, {} s per turn, a new process for each turn; with keys, the access log \
         goes to a file; floor: the api without keys",
        options.orders, options.seconds
    )
}

/// Waits until the local cache has all orders.
fn await_hits(api: &Api, paths: &[String], token: Option<&str>) {
    let authorization = token.map(|token| format!("Bearer {token}"));
    let headers = authorization
        .as_deref()
        .map(|value| ("Authorization", value));
    let http = Http::new();
    for path in paths {
        let url = format!("{}{path}", api.url());
        until(&format!("{path} from the local cache"), || {
            let answer = http.get_with(&url, headers.as_slice());
            match answer.header("X-Source") {
                Some("local") => Ok(()),
                source => Err(format!("{source:?}")),
            }
        });
    }
}

fn figures(rounds: &[Round]) -> Vec<Figure> {
    let callers = CALLERS.iter().enumerate();
    let figures = callers.flat_map(|(index, (name, _, goal))| {
        let guarded =
            |value: fn(&Turn) -> f64| rounds.iter().map(move |round| value(&round.guarded[index]));
        let open = |value: fn(&Turn) -> f64| rounds.iter().map(move |round| value(&round.open));
        [
            Figure::new(
                &format!("api with keys and access log, local hit, {name}"),
                "requests/s",
                guarded(|turn| turn.requests_per_second),
            )
            .floor(open(|turn| turn.requests_per_second))
            .goal(Goal::AtLeast(*goal)),
            Figure::new(
                &format!("its CPU per hit, {name}"),
                "µs",
                guarded(|turn| turn.cpu_us),
            )
            .floor(open(|turn| turn.cpu_us)),
        ]
    });
    figures.collect()
}
