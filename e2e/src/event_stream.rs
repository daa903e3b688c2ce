//! Client of server-sent events.

use std::{
    io::{BufRead, BufReader},
    time::Duration,
};

/// Longest life of a stream. A test that waits longer for an event fails.
const LIFE: Duration = Duration::from_secs(120);

/// An open event stream.
pub struct EventStream {
    url: String,
    text: BufReader<ureq::BodyReader<'static>>,
}

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Name of the event.
    pub name: String,
    /// Its id; empty if it has none.
    pub id: String,
    /// Its data.
    pub data: String,
}

impl EventStream {
    /// Opens the stream at `url`. `last` is the id of the last event of an earlier stream.
    ///
    /// # Panics
    /// The response is not an event stream.
    #[track_caller]
    pub fn open(url: &str, last: Option<&str>) -> Self {
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(LIFE));
        let agent = ureq::Agent::from(config.build());
        let request = last.iter().fold(agent.get(url), |request, id| {
            request.header("Last-Event-ID", *id)
        });
        let response = request
            .call()
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        let content_type = response
            .headers()
            .get("Content-Type")
            .map(|value| value.as_bytes());
        assert_eq!(content_type, Some(&b"text/event-stream; charset=utf-8"[..]));
        Self {
            url: url.to_owned(),
            text: BufReader::new(response.into_body().into_reader()),
        }
    }

    /// Waits for the next event that is not a reset.
    ///
    /// # Panics
    /// The stream ends, or no event arrives.
    #[track_caller]
    pub fn next_event(&mut self) -> Event {
        loop {
            let event = self.block();
            if !event.data.is_empty() && event.name != "reset" {
                return event;
            }
        }
    }

    /// Reads the lines up to the next empty one.
    #[track_caller]
    fn block(&mut self) -> Event {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            let read = self.text.read_line(&mut line);
            let read = read.unwrap_or_else(|error| panic!("{}: {error}", self.url));
            assert!(read > 0, "{}: the stream ended", self.url);
            match line.trim_end_matches('\n').split_once(": ") {
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("data", data)) => data.clone_into(&mut event.data),
                _ if line == "\n" => return event,
                _ => {}
            }
        }
    }
}
