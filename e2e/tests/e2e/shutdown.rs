//! SIGTERM under load.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use e2e::{Draft, Ledger, Stack, until};
use shared::order::sample::Generator;

/// Sends a request on a new connection. Returns `None` if the connection was refused, or closed
/// before the first byte.
///
/// # Panics
/// The answer is incomplete.
fn answer(address: &str, uid: &str) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!(
        "GET /order/{uid}?nocache=1 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    );
    let mut answer = Vec::new();
    // A connection that was not accepted is reset at either step.
    let outcome = stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_end(&mut answer));
    if answer.is_empty() {
        return None;
    }
    outcome.expect("an answer that has begun comes to its end");
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .expect("whole headers");
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map(|length| length.parse().unwrap());
    let body = answer.split_off(end + 4);
    assert_eq!(Some(body.len()), length, "length of the body");
    Some((head["http/1.1 ".len()..][..3].parse().unwrap(), body))
}

#[test]
fn a_terminated_api_completes_accepted_requests() {
    let mut stack = Stack::builder("apiterm").workers(1).apis(1).start();
    let mut ledger = Ledger::default();
    let drafts: Vec<Draft> = Generator::new(22, 1..=3)
        .take(50)
        .map(|order| Draft::order(&order))
        .collect();
    stack.send(&mut ledger, &drafts);
    stack.settle();
    let orders = ledger.orders();
    let address = stack.apis[0].address();
    let (terminated, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for (uid, state) in orders.iter().cycle() {
                    let Some((status, body)) = answer(&address, uid) else {
                        assert!(
                            terminated.load(Ordering::Relaxed),
                            "the api stopped listening before SIGTERM"
                        );
                        break;
                    };
                    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
                    assert_eq!(Some(body), state.json);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        until("200 answers", || match answered.load(Ordering::Relaxed) {
            200.. => Ok(()),
            answers => Err(answers),
        });
        terminated.store(true, Ordering::Relaxed);
        stack.apis[0].process.terminate();
    });
}
