//! The key file while the api runs, and the access log.

use std::{fs, path::PathBuf};

use e2e::{Api, Draft, Http, Ledger, Signal, Stack, until};
use serde_json::{Value, json};
use shared::order::{Order, sample::Generator};

/// SHA-256 of `secret`.
pub(crate) const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
/// SHA-256 of `other`.
const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

/// A key file. Dropping it removes the file.
pub(crate) struct KeyFile(PathBuf);

impl KeyFile {
    pub(crate) fn new(text: &str) -> Self {
        let name = format!("e2e-keys-{:016x}", rand::random::<u64>());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    pub(crate) fn variable(&self) -> (&'static str, &str) {
        ("API_KEYS_FILE", self.0.to_str().unwrap())
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Sends GET with a token. Returns the status.
fn status(api: &Api, token: &str, path: &str) -> u16 {
    let token = format!("Bearer {token}");
    let url = format!("{}{path}", api.url());
    Http::new()
        .get_with(&url, &[("Authorization", &token)])
        .status
}

/// The lines of the access log, without what differs from run to run.
fn access_log(api: &Api) -> Vec<Value> {
    let log = api.process.log();
    let lines = log.lines().filter_map(|line| {
        let mut line: Value = serde_json::from_str(line).ok()?;
        if line["target"] != "access" {
            return None;
        }
        for field in ["timestamp", "request_id", "duration_ms"] {
            assert!(!line[field].is_null(), "{line}");
            line.as_object_mut()?.remove(field);
        }
        Some(line)
    });
    lines.collect()
}

#[test]
fn sighup_makes_the_api_reread_its_keys_and_ends_no_process() {
    let mut stack = Stack::builder("hangup").workers(1).start();
    let file = KeyFile::new(&format!("support sha256:{SECRET} orders:list\n"));
    stack.start_api_with(&[file.variable()]);
    assert_eq!(status(&stack.apis[0], "secret", "/orders"), 200);
    assert_eq!(status(&stack.apis[0], "other", "/orders"), 401);
    file.write(&format!("support sha256:{OTHER} orders:list\n"));
    let (api, worker) = (&mut stack.apis[0], &mut stack.workers[0]);
    for process in [&mut api.process, &mut worker.process] {
        process.signal(Signal::Hangup);
        until("a line about the signal", || match process.log() {
            log if log.contains("SIGHUP received") => Ok(()),
            log => Err(log),
        });
        assert_eq!(process.ended(), None);
    }
    until("the new key", || match status(api, "other", "/orders") {
        200 => Ok(()),
        status => Err(status),
    });
    assert_eq!(status(api, "secret", "/orders"), 401);
    assert!(api.process.log().contains("API keys reread"));
    assert_eq!(worker.admin.get("/readyz").status, 200);

    // A broken file is one error, and changes nothing.
    file.write("support sha256:");
    api.process.signal(Signal::Hangup);
    until("an error", || match api.process.log() {
        log if log.contains("rereading the API keys failed") => Ok(()),
        log => Err(log),
    });
    assert_eq!(status(api, "other", "/orders"), 200);
    assert_eq!(api.admin.metric("api_keys_file_broken", ""), 1);
    assert!(!api.process.log().contains(OTHER), "the log has a digest");
}

/// Checks the fields of a line of the access log.
fn expect(line: &Value, fields: Value) {
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(line[name], *value, "{name} of {line}");
    }
    assert_eq!(line["client"], "127.0.0.1");
}

/// Also where the operator wants no messages but errors.
#[test]
fn the_access_log_has_each_request_for_orders() {
    let mut stack = Stack::builder("access").workers(1).start();
    let orders: Vec<_> = Generator::new(1, 1..=1).take(2).collect();
    let (first, second) = (&orders[0], &orders[1]);
    let drafts: Vec<_> = orders.iter().map(Draft::order).collect();
    stack.send(&mut Ledger::default(), &drafts);
    stack.settle();
    let file = KeyFile::new(&format!(
        "support sha256:{SECRET} orders:read,orders:list\n"
    ));
    stack.start_api_with(&[file.variable(), ("RUST_LOG", "error")]);
    let api = &stack.apis[0];
    let uid = first.order_uid.as_str();
    let phone = first.delivery.phone.replace('+', "%2B");
    for (token, path, expected) in [
        ("secret", format!("/order/{uid}?nocache=1"), 200),
        ("secret", "/order/unknown".to_owned(), 404),
        ("secret", "/order/not%20a%20uid".to_owned(), 400),
        ("wrong", format!("/order/{uid}"), 401),
        ("secret", "/orders?limit=2".to_owned(), 200),
        ("secret", "/orders/export".to_owned(), 200),
        ("secret", format!("/orders?phone={phone}&limit=0"), 400),
        ("secret", "/caller".to_owned(), 200),
        ("secret", "/".to_owned(), 200),
    ] {
        assert_eq!(status(api, token, &path), expected, "{path}");
    }
    let lines = until("seven lines", || match access_log(api) {
        lines if lines.len() >= 7 => Ok(lines),
        lines => Err(format!("{lines:?}")),
    });
    let text = api.process.log();
    for personal in [first.delivery.phone.as_str(), &phone, &first.delivery.name] {
        assert!(!text.contains(personal), "{text}");
    }
    check_lines(&lines, first, second);
}

/// Checks the lines of the requests of [`the_access_log_has_each_request_for_orders`].
fn check_lines(lines: &[Value], first: &Order, second: &Order) {
    let uid = first.order_uid.as_str();
    let one = "/order/{order_uid}";
    let named = json!({"caller": "support", "key": "support", "method": "GET"});
    lines
        .iter()
        .enumerate()
        .for_each(|(index, line)| match index {
            3 => expect(line, json!({"caller": null, "key": null})),
            _ => expect(line, named.clone()),
        });
    expect(
        &lines[0],
        json!({"route": one, "uid": uid, "status": 200, "source": "postgres", "orders": 1}),
    );
    assert!(lines[0]["bytes"].as_u64().unwrap() > 100, "{}", lines[0]);
    expect(
        &lines[1],
        json!({"route": one, "uid": "unknown", "status": 404, "orders": 0}),
    );
    expect(
        &lines[2],
        json!({"route": one, "uid": null, "status": 400, "orders": 0}),
    );
    expect(
        &lines[3],
        json!({"route": one, "uid": uid, "status": 401, "orders": 0}),
    );
    expect(
        &lines[4],
        json!({"route": "/orders", "status": 200, "orders": 2}),
    );
    let uids = lines[4]["uids"].as_array().unwrap();
    for order in [first, second] {
        assert!(uids.contains(&order.order_uid.as_str().into()), "{uids:?}");
    }
    expect(
        &lines[5],
        json!({"route": "/orders/export", "status": 200, "orders": 2, "uids": null}),
    );
    expect(
        &lines[6],
        json!({"route": "/orders", "status": 400, "orders": 0}),
    );
}

#[test]
fn the_access_log_can_be_turned_on_and_off() {
    let mut stack = Stack::builder("access-off").start();
    let file = KeyFile::new(&format!("support sha256:{SECRET} orders:read\n"));
    let off = [file.variable(), ("API_ACCESS_LOG", "false")];
    for (variables, is_on) in [
        (&[file.variable()][..], true),
        (&off, false),
        (&[("API_ACCESS_LOG", "true")], true),
        (&[], false),
    ] {
        let api = stack.start_api_with(variables);
        assert_eq!(status(api, "secret", "/order/unknown"), 404);
        // The end of the process writes all lines.
        api.process.terminate();
        assert_eq!(access_log(api).len(), usize::from(is_on), "{variables:?}");
    }
}
