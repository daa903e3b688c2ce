//! Processes of a system.

use serde_json::Value;

use crate::{
    http::{Answer, Http},
    port::Port,
    process::Process,
    wait::until,
};

/// A running worker.
pub struct Worker {
    /// The process.
    pub process: Process,
    /// Admin port.
    pub admin: Admin,
}

/// A running api replica.
pub struct Api {
    /// The process.
    pub process: Process,
    pub(super) port: Port,
    /// Admin port.
    pub admin: Admin,
}

/// Admin port of a process.
pub struct Admin(Port);

impl Admin {
    pub(super) fn reserve() -> Self {
        Self(Port::reserve())
    }

    /// Returns the address.
    pub fn address(&self) -> String {
        self.0.address()
    }

    /// Sends GET to a path such as `/readyz`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        Http::new().get(&self.url(path))
    }

    /// Returns the state of a check in `/readyz`.
    #[track_caller]
    pub fn state_of(&self, name: &str) -> String {
        check_of(&self.get("/readyz"), name)
    }

    /// Like [`Admin::state_of`], but returns `None` if the process does not answer yet.
    pub fn try_state_of(&self, name: &str) -> Option<String> {
        let answer = Http::new().try_get(&self.url("/readyz"), &[]).ok()?;
        Some(check_of(&answer, name))
    }

    /// Returns the sum of a counter over all series with that label; an empty label matches every
    /// series.
    #[track_caller]
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        metric(&self.get("/metrics").text(), name, label)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }
}

impl Worker {
    /// Returns the number of records with that outcome.
    #[track_caller]
    pub fn messages(&self, outcome: &str) -> u64 {
        let label = format!("outcome=\"{outcome}\"");
        self.admin.metric("worker_messages_total", &label)
    }

    /// Returns the number of records with any outcome.
    #[track_caller]
    pub fn all_messages(&self) -> u64 {
        self.admin.metric("worker_messages_total", "")
    }
}

impl Api {
    /// Returns the base URL, such as `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Returns the address, such as `127.0.0.1:8080`.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// Sends `GET /order/{uid}`.
    #[track_caller]
    pub fn order(&self, uid: &str) -> Answer {
        Http::new().get(&format!("{}/order/{uid}", self.url()))
    }

    /// Waits until `source` answers `GET /order/{uid}`. An announcement during a read, or a link
    /// that was lost for a moment, keeps an answer out of the local cache.
    #[track_caller]
    pub fn await_source(&self, uid: &str, source: &str) -> Answer {
        until(&format!("{uid} from {source}"), || {
            let answer = self.order(uid);
            match answer.header("X-Source").map(str::to_owned) {
                Some(seen) if seen == source => Ok(answer),
                seen => Err(format!("{seen:?}")),
            }
        })
    }

    /// Sends `GET /order/{uid}?nocache=1`.
    #[track_caller]
    pub fn order_in_postgres(&self, uid: &str) -> Answer {
        Http::new().get(&format!("{}/order/{uid}?nocache=1", self.url()))
    }
}

/// Returns the state of a check in the response of a probe.
fn check_of(answer: &Answer, name: &str) -> String {
    let report: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let check = report["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["name"] == name));
    check.map_or_else(
        || format!("no check {name} in {}", answer.text()),
        |check| check["state"].as_str().unwrap_or_default().to_owned(),
    )
}

/// Returns the sum of a counter over all series with that label; an empty label matches every
/// series.
fn metric(text: &str, name: &str, label: &str) -> u64 {
    text.lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name)?;
            let whole_name = labels.is_empty() || labels.starts_with('{');
            let ours = whole_name && labels.contains(label);
            ours.then(|| value.parse::<f64>().ok())?
        })
        .sum::<f64>() as u64
}

/// Waits until a process that has just been started is ready.
#[track_caller]
pub(super) fn await_ready(process: &mut Process, admin: &Admin) {
    let http = Http::new();
    let url = admin.url("/readyz");
    until("a ready process", || {
        if let Some(status) = process.ended() {
            panic!("the process ended during its start: {status}");
        }
        match http.try_get(&url, &[]) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_the_sum_of_its_series() {
        let text = "# TYPE a_total counter\na_total{x=\"1\"} 2\na_total{x=\"2\"} \
                    3\nab_total{x=\"1\"} 7\nb_total 4\n";
        assert_eq!(metric(text, "a_total", ""), 5);
        assert_eq!(metric(text, "b_total", ""), 4);
        assert_eq!(metric(text, "a_total", "x=\"2\""), 3);
    }
}
