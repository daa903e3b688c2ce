//! Promise 17: clients that mean harm.

mod crowd;
mod honest;
mod shapes;

use std::{net::SocketAddr, time::Duration};

use shared::order::sample::Generator;

use super::{
    run::Run,
    trial::{Promise, Trial},
};
use crate::{
    ledger::Ledger,
    record::Draft,
    stack::{Api, Stack},
    wait::until_within,
};
use crowd::{Crowd, Kind, Origin};
use honest::{Honest, Probes};

pub(super) const PROMISE: Promise = Promise {
    number: 17,
    sentence: "Hostile clients, as many as a replica has places for, fail no request of another \
               client and no probe. The replica stays within 128 MiB.",
    trials: &[
        Trial {
            name: "hostile_clients_fail_no_honest_request",
            fault: "8000 connections from 40 addresses stay silent, send heads and bodies slowly \
                    or not to their end, read nothing, stay idle, pipeline, flood, and smuggle \
                    requests, and one address opens more than it may, beside 200 honest requests \
                    per second",
            body: crowded,
        },
        Trial {
            name: "hostile_clients_stop_no_probe_of_a_replica_with_few_descriptors",
            fault: "a replica with 1024 file descriptors has twice as many hostile clients at its \
                    public port, and hundreds at its admin port",
            body: few_descriptors,
        },
    ],
};

/// The promised limit of a release build. A debug build also keeps its checks and larger tasks.
const MEMORY: usize = if cfg!(debug_assertions) { 256 } else { 128 } << 20;

/// The promised time of a probe is 100 ms. A busy machine may take longer.
const SLOWEST_PROBE: Duration = Duration::from_secs(2);

/// Deadline of a trial.
const LONGEST: Duration = Duration::from_secs(300);

/// Honest requests per second.
const RATE: u32 = 200;

/// Connections of one address that exceed `API_MAX_CONNECTIONS_PER_ADDRESS`.
const TOO_MANY: usize = 300;

/// Starts a replica with orders that are all in its local cache. Returns their uids.
fn prepare(run: &Run, stack: &mut Stack) -> Vec<String> {
    let mut ledger = Ledger::default();
    let orders = Generator::new(run.seed, 1..=5).take(50);
    let drafts: Vec<Draft> = orders.map(|order| Draft::order(&order)).collect();
    stack.send(&mut ledger, &drafts);
    stack.settle();
    ledger.orders().into_keys().collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

/// Counts connections that the replica closed for one reason.
fn closed(api: &Api, port: &str, reason: &str) -> u64 {
    let label = format!("port=\"{port}\",reason=\"{reason}\"");
    api.admin.metric("http_connections_closed_total", &label)
}

fn crowded(run: &mut Run) {
    let mut stack = run.stack("hostile").workers(1).start();
    let uids = prepare(run, &mut stack);
    let api = stack.start_api();
    let size = run.choose(400, 8000);
    let public = address(&api.address());
    let crowd = Crowd::start(public, &Kind::ALL, size, Origin::Addresses(40), &uids);
    let flood = Crowd::start(public, &[Kind::Silent], TOO_MANY, Origin::One, &uids);
    let (honest, probes) = (
        Honest::start(&api.url(), &uids, RATE),
        Probes::start(&api.admin),
    );
    let wanted = run.choose(400, 20_000);
    until_within(LONGEST, "hostile connections and honest answers", || {
        let (open, answers) = (crowd.most_open(), honest.count());
        match open * 10 >= size * 8 && answers >= wanted {
            true => Ok(()),
            false => Err(format!("{open} connections, {answers} answers")),
        }
    });
    report(run, api, honest, probes, &[&crowd, &flood]);
    assert!(closed(api, "public", "address") > 0);
    assert!(closed(api, "public", "malformed") > 0);
    run.figure("most open", crowd.most_open());
    let violations = [crowd.stop(), flood.stop()].concat();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

fn few_descriptors(run: &mut Run) {
    let mut stack = run.stack("descriptors").workers(1).start();
    let uids = prepare(run, &mut stack);
    let api = stack.start_api_with_open_files(1024);
    let (public, admin) = (address(&api.address()), address(&api.admin.address()));
    let size = run.choose(1100, 2000);
    let crowd = Crowd::start(public, &Kind::ALL, size, Origin::Addresses(20), &uids);
    let callers = Crowd::start(admin, &Kind::WITHOUT_ORDERS, 300, Origin::One, &uids);
    let (honest, probes) = (
        Honest::start(&api.url(), &uids, RATE),
        Probes::start(&api.admin),
    );
    let wanted = run.choose(400, 10_000);
    until_within(LONGEST, "evictions and honest answers", || {
        let (evicted, answers) = (closed(api, "public", "evicted"), honest.count());
        match evicted > 200 && answers >= wanted {
            true => Ok(()),
            false => Err(format!("{evicted} evicted, {answers} answers")),
        }
    });
    assert!(closed(api, "admin", "evicted") > 0);
    report(run, api, honest, probes, &[&crowd, &callers]);
    let log = api.process.log();
    assert!(!log.contains("accepting a connection failed"), "{log}");
    let violations = [crowd.stop(), callers.stop()].concat();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// Ends the honest clients, asserts that none failed, and records how the replica did.
#[track_caller]
fn report(run: &mut Run, api: &Api, honest: Honest, probes: Probes, crowds: &[&Crowd]) {
    let (answers, failures) = honest.stop();
    let probed = probes.stop();
    let attacks: usize = crowds.iter().map(|crowd| crowd.attacks()).sum();
    run.figure("attacks", attacks);
    run.figure("honest answers", answers);
    run.figure("honest failures", failures.len());
    run.figure("probes", probed.count);
    run.figure("slowest probe", format!("{:.0?}", probed.slowest));
    run.figure("p99", format!("{:.0?}", probed.p99));
    let peak = api.process.peak_bytes();
    run.figure("peak memory", format!("{} MiB", peak >> 20));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(probed.failures.is_empty(), "{}", probed.failures.join("\n"));
    assert!(peak <= MEMORY, "{} MiB", peak >> 20);
    let slowest = probed.slowest;
    assert!(
        !run.is_full() || slowest <= SLOWEST_PROBE,
        "the slowest probe took {slowest:?}"
    );
}
