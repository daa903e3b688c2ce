//! A real Prometheus, queried as Grafana does.

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path};

use serde_json::Value;

use crate::{environment::Folder, http::Http, port::Port, process::Process, wait::until};

/// One sample of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Labels, including the name of the metric if the sample has one.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// A running Prometheus with the alert rules of this repository.
pub struct Prometheus {
    url: String,
    http: Http,
    _own: Option<(Process, Port, Folder)>,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes these jobs, each with its addresses, once a second.
    #[track_caller]
    pub fn start(name: &str, jobs: &[(&str, Vec<String>)]) -> Self {
        assert!(
            env::split_paths(&env::var_os("PATH").unwrap_or_default())
                .any(|folder| folder.join("prometheus").is_file()),
            "there is no program `prometheus`: run `scripts/deps prometheus`"
        );
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../observability/alerts.yml");
        let mut config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{:?}]\nscrape_configs:\n",
            rules.canonicalize().unwrap()
        );
        for (job, addresses) in jobs {
            let _ = writeln!(
                config,
                "- {{job_name: {job}, static_configs: [{{targets: {addresses:?}}}]}}"
            );
        }
        let (folder, port) = (
            Folder::create(&format!("{name}-prometheus")),
            Port::reserve(),
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let mut process = Process::start(
            "prometheus",
            Path::new("prometheus"),
            &[
                &format!("--config.file={}", file.display()),
                &format!("--storage.tsdb.path={}/data", folder.argument()),
                &format!("--web.listen-address={}", port.address()),
            ],
            &[],
            folder.path(),
        );
        let prometheus = Self::at(&format!("http://{}", port.address()));
        until("a ready Prometheus", || {
            assert!(
                process.ended().is_none(),
                "Prometheus ended: {}",
                process.log()
            );
            match prometheus
                .http
                .try_get(&format!("{}/-/ready", prometheus.url), &[])
            {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            }
        });
        Self {
            _own: Some((process, port, folder)),
            ..prometheus
        }
    }

    /// The Prometheus at `url`, such as `http://localhost:9090`.
    pub fn at(url: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            http: Http::new(),
            _own: None,
        }
    }

    /// Returns the current value of an expression.
    ///
    /// # Errors
    /// The error of Prometheus.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Result<Vec<Sample>, String> {
        let answer = self.api(&format!("query?query={}", encoded(expression)))?;
        let samples = answer["result"].as_array().ok_or("no instant vector")?;
        Ok(samples.iter().map(sample).collect())
    }

    /// Returns the address of each target, its job and its last error (empty for none).
    #[track_caller]
    pub fn targets(&self) -> Vec<(String, String, String)> {
        let answer = self.api("targets?state=active").unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let targets = answer["activeTargets"].as_array().unwrap();
        targets
            .iter()
            .map(|target| {
                let error = match target["health"].as_str() {
                    Some("up") => String::new(),
                    health => format!("{health:?}: {}", target["lastError"]),
                };
                (
                    text(&target["labels"]["instance"]),
                    text(&target["labels"]["job"]),
                    error,
                )
            })
            .collect()
    }

    /// Returns the alert rules as the API of Prometheus lists them.
    #[track_caller]
    pub fn rules(&self) -> Vec<Value> {
        let answer = self.api("rules").unwrap();
        let groups = answer["groups"].as_array().unwrap();
        groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap().clone())
            .collect()
    }

    #[track_caller]
    fn api(&self, call: &str) -> Result<Value, String> {
        let answer = self.http.get(&format!("{}/api/v1/{call}", self.url));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        match body["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(body["data"].clone()),
        }
    }
}

fn sample(value: &Value) -> Sample {
    let labels = value["metric"].as_object().unwrap();
    Sample {
        labels: labels
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
        value: value["value"][1].as_str().unwrap().parse().unwrap(),
    }
}

/// Percent-encodes a text for a query string.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte.is_ascii_alphanumeric() {
            true => encoded.push(byte.into()),
            false => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    })
}
