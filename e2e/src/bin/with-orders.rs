//! Runs a command against a private system that holds known orders.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    env, fs,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use clap::Parser;
use e2e::{Draft, Ledger, Stack};
use serde_json::{Value, json};
use shared::order::{Order, sample::Generator};

const SEED: u64 = 20_261_130;

/// Customer of the generated orders.
const CUSTOMER: &str = "clients-test";

/// Number of orders that do not change.
const STEADY: usize = 25;

/// An amount that JavaScript's `JSON.parse` rounds: 2^53 + 1.
const LARGE_AMOUNT: i64 = 9_007_199_254_740_993;

/// Time between two versions of the changing order: the rate of its changes. Nothing waits for it.
const PERIOD: Duration = Duration::from_millis(200);

/// Starts a worker and an api replica, sends orders through Kafka, and runs a command.
///
/// Needs the environment of `scripts/services env`, and the programs in `ORDER_SERVICE_BIN_DIR`.
/// The command finds the api at `API_URL`. The file at `ORDERS_FILE` describes the orders:
///
/// - `steady`: documents that do not change; the first has an amount above 2^53
/// - `changing`: uid of an order that gets a new version five times a second
/// - `erased`: uid of an erased order
/// - `customer_id`: the customer of these orders
#[derive(Debug, Parser)]
struct Cli {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let stack = Stack::builder("clients").workers(1).apis(1).start();
    let mut ledger = Ledger::default();
    let mut orders = orders();
    let (mut changing, erased) = (orders.pop().unwrap(), orders.pop().unwrap());
    let generated = orders.iter().chain([&changing, &erased]);
    // The order of the document's examples.
    let documented = Draft::valid(Order::ENTITY.example().to_string().into_bytes());
    let drafts: Vec<Draft> = generated.map(Draft::order).chain([documented]).collect();
    stack.send(&mut ledger, &drafts);
    stack.send(&mut ledger, &[Draft::erasure(&erased.order_uid)]);
    stack.settle();
    stack.await_answers(&ledger);

    let file = env::temp_dir().join(format!("orders-{}.json", std::process::id()));
    fs::write(&file, description(&orders, &changing, &erased).to_string()).unwrap();
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .env("API_URL", stack.apis[0].url())
        .env("ORDERS_FILE", &file)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}", command[0]));
    let mut round = 0_u64;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        round += 1;
        changing.delivery_service = format!("carrier-{round}").into();
        stack.send(&mut ledger, &[Draft::order(&changing)]);
        thread::sleep(PERIOD);
    };
    fs::remove_file(&file).unwrap();
    // A signal counts as a failure.
    let code = status.code().and_then(|code| code.try_into().ok());
    ExitCode::from(code.unwrap_or(1))
}

/// Two more orders than do not change.
fn orders() -> Vec<Order> {
    let mut orders: Vec<Order> = Generator::new(SEED, 1..=3).take(STEADY + 2).collect();
    for order in &mut orders {
        order.customer_id = CUSTOMER.into();
    }
    orders[0].payment.amount = LARGE_AMOUNT;
    orders
}

fn description(steady: &[Order], changing: &Order, erased: &Order) -> Value {
    let documents = steady
        .iter()
        .map(|order| serde_json::from_slice::<Value>(&order.to_json()).unwrap());
    json!({
        "steady": documents.collect::<Vec<_>>(),
        "changing": changing.order_uid,
        "erased": erased.order_uid,
        "customer_id": CUSTOMER,
    })
}
