//! Uses the generated Rust client against a running api. `scripts/clients-test` runs it.

use std::{collections::BTreeMap, env, error::Error as StdError, fs, num::NonZeroU32};

use eventsource_stream::{Event, Eventsource};
use futures_util::{StreamExt, TryStreamExt};
use order_client::{
    ByteStream, Client, Error,
    types::{BatchGetRequest, Order, Problem, ProblemCode},
};
use serde_json::Value;

type Checked = Result<String, Box<dyn StdError>>;

/// Fails with what was found instead.
macro_rules! check {
    ($condition:expr, $found:expr) => {
        if !$condition {
            return Err(format!("unexpected: {:?}", $found).into());
        }
    };
}

/// The orders of the running system.
struct Expected {
    steady: Vec<Value>,
    changing: String,
    erased: String,
    customer_id: String,
}

impl Expected {
    fn read() -> Result<Self, Box<dyn StdError>> {
        let file = fs::read(env::var("ORDERS_FILE")?)?;
        let all: Value = serde_json::from_slice(&file)?;
        let text = |name: &str| all[name].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            steady: all["steady"].as_array().cloned().unwrap_or_default(),
            changing: text("changing"),
            erased: text("erased"),
            customer_id: text("customer_id"),
        })
    }
}

fn uid(order: &Value) -> &str {
    order["order_uid"].as_str().unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn StdError>> {
    let client = &Client::new(&env::var("API_URL")?);
    let expected = &Expected::read()?;
    for (name, checked) in [
        ("gets_an_order", gets_an_order(client, expected).await),
        (
            "gets_a_typed_error",
            gets_a_typed_error(client, expected).await,
        ),
        (
            "revalidates_a_copy",
            revalidates_a_copy(client, expected).await,
        ),
        ("reads_all_pages", reads_all_pages(client, expected).await),
        ("gets_a_batch", gets_a_batch(client, expected).await),
        ("exports", exports(client, expected).await),
        ("watches_an_order", watches_an_order(client, expected).await),
        (
            "watches_all_orders",
            watches_all_orders(client, expected).await,
        ),
    ] {
        println!("rust: {name}: {}", checked?);
    }
    Ok(())
}

async fn gets_an_order(client: &Client, expected: &Expected) -> Checked {
    let steady = &expected.steady[0];
    let answer = client.get_order().order_uid(uid(steady)).send().await?;
    check!(answer.headers().contains_key("etag"), answer);
    let order = answer.into_inner();
    check!(serde_json::to_value(&order)? == *steady, order);
    Ok(format!(
        "amount {}, {} items",
        order.payment.amount,
        order.items.len()
    ))
}

async fn gets_a_typed_error(client: &Client, expected: &Expected) -> Checked {
    let mut codes = Vec::new();
    for (uid, code) in [
        ("unknown", ProblemCode::OrderNotFound),
        (expected.erased.as_str(), ProblemCode::OrderErased),
    ] {
        match client.get_order().order_uid(uid).send().await {
            Err(Error::ErrorResponse(answer)) => {
                let problem: &Problem = &answer;
                check!(problem.code == code, problem);
                check!(
                    i32::from(answer.status().as_u16()) == problem.status,
                    answer
                );
                codes.push(format!("{} {}", problem.status, problem.code));
            }
            other => return Err(format!("unexpected: {other:?}").into()),
        }
    }
    // The client knows the pattern of a uid.
    let malformed = client.get_order().order_uid("not a uid").send().await;
    check!(
        matches!(malformed, Err(Error::InvalidRequest(_))),
        malformed
    );
    Ok(codes.join(", "))
}

async fn revalidates_a_copy(client: &Client, expected: &Expected) -> Checked {
    let get = || client.get_order().order_uid(uid(&expected.steady[1]));
    let first = get().send().await?;
    let etag = first.headers()["etag"].to_str()?.to_owned();
    // A status without a body, neither success nor error.
    match get().if_none_match(&etag).send().await {
        Err(Error::UnexpectedResponse(answer)) if answer.status() == 304 => {
            Ok(format!("304 for {etag}"))
        }
        other => Err(format!("unexpected: {other:?}").into()),
    }
}

async fn reads_all_pages(client: &Client, expected: &Expected) -> Checked {
    let (mut uids, mut pages, mut cursor) = (Vec::new(), 0, None);
    loop {
        let mut request = client
            .list_orders()
            .customer_id(expected.customer_id.as_str())
            .limit(NonZeroU32::new(10).ok_or("zero")?);
        if let Some(cursor) = cursor {
            request = request.cursor(cursor);
        }
        let page = request.send().await?.into_inner();
        uids.extend(page.orders.iter().map(|order| order.order_uid.to_string()));
        pages += 1;
        match page.next_cursor {
            Some(next) => cursor = Some(next.to_string()),
            None => break,
        }
    }
    let steady = expected.steady.iter().map(uid);
    let mut wanted: Vec<&str> = steady.chain([expected.changing.as_str()]).collect();
    wanted.sort_unstable();
    uids.sort_unstable();
    check!(uids == wanted, uids);
    Ok(format!("{} orders in {pages} pages", uids.len()))
}

async fn gets_a_batch(client: &Client, expected: &Expected) -> Checked {
    let steady = &expected.steady[..3];
    let uids = steady.iter().map(uid);
    let uids = uids.chain(["unknown", expected.erased.as_str(), uid(&steady[0])]);
    let order_uids: Result<Vec<_>, _> = uids.map(TryInto::try_into).collect();
    let body = BatchGetRequest {
        order_uids: order_uids?,
    };
    let batch = client
        .batch_get_orders()
        .body(body)
        .send()
        .await?
        .into_inner();
    check!(
        serde_json::to_value(&batch.orders)? == Value::from(steady),
        batch.orders
    );
    let (missing, erased) = (&batch.missing, &batch.erased);
    check!(
        missing.len() == 1 && missing[0].as_str() == "unknown",
        missing
    );
    check!(
        erased.len() == 1 && erased[0].as_str() == expected.erased,
        erased
    );
    let none = BatchGetRequest {
        order_uids: Vec::new(),
    };
    match client.batch_get_orders().body(none).send().await {
        Err(Error::ErrorResponse(problem)) if problem.code == ProblemCode::BadRequest => {}
        other => return Err(format!("unexpected: {other:?}").into()),
    }
    Ok(format!(
        "{} orders, missing unknown, 1 erased",
        batch.orders.len()
    ))
}

async fn exports(client: &Client, expected: &Expected) -> Checked {
    let request = client
        .export_orders()
        .customer_id(expected.customer_id.as_str());
    let bytes = collect(request.send().await?.into_inner()).await?;
    let mut orders = BTreeMap::new();
    for line in String::from_utf8(bytes)?.lines() {
        let order: Order = serde_json::from_str(line)?;
        orders.insert(order.order_uid.to_string(), serde_json::to_value(&order)?);
    }
    check!(orders.len() == expected.steady.len() + 1, orders);
    for order in &expected.steady {
        check!(
            orders.get(uid(order)) == Some(order),
            orders.get(uid(order))
        );
    }
    Ok(format!("{} documents", orders.len()))
}

async fn collect(mut stream: ByteStream) -> Result<Vec<u8>, Box<dyn StdError>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.try_next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads events until `wanted` of them are accepted, then closes the stream.
async fn events(
    stream: ByteStream,
    wanted: usize,
    accepts: impl Fn(&Event) -> bool,
) -> Result<Vec<Event>, Box<dyn StdError>> {
    let mut events = stream.into_inner().eventsource();
    let mut found = Vec::new();
    while found.len() < wanted {
        let event = events.next().await.ok_or("the stream ended")??;
        if accepts(&event) {
            found.push(event);
        }
    }
    Ok(found)
}

async fn watches_an_order(client: &Client, expected: &Expected) -> Checked {
    let answer = client
        .watch_order()
        .order_uid(expected.changing.as_str())
        .send()
        .await?;
    let found = events(answer.into_inner(), 3, |_| true).await?;
    let mut carriers = Vec::new();
    for event in &found {
        check!(event.event == "order", event);
        let order: Order = serde_json::from_str(&event.data)?;
        carriers.push(order.delivery_service.to_string());
    }
    check!(found.is_sorted_by(|one, next| one.id < next.id), found);
    Ok(format!("{}, versions ascend", carriers.join(", ")))
}

async fn watches_all_orders(client: &Client, expected: &Expected) -> Checked {
    let answer = client.watch_orders().send().await?;
    let is_wanted =
        |event: &Event| event.event == "change" && event.data.contains(&expected.changing);
    let found = events(answer.into_inner(), 2, is_wanted).await?;
    Ok(format!("{} changes of one order", found.len()))
}
