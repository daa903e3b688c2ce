//! TLS towards Kafka, and passwords and certificates that are replaced while the worker runs.
//! `shared` tests the same for Postgres and Redis.

use std::{env, fs, path::Path, process::Command};

use e2e::{Draft, Ledger, Stack, until};
use shared::order::sample::Generator;
use shared::testing::{TestAuthority, TestCertificate, free_port};

/// Names that are right for the address of the broker.
const NAMES: &str = "DNS:localhost";
/// How often librdkafka may fail before a test counts log lines.
const FAILURES: usize = 10;

/// A listener of the broker besides the one without security.
struct Listener {
    name: &'static str,
    protocol: &'static str,
    port: u16,
    /// Settings below `listener.name.NAME.`.
    settings: Vec<String>,
}

impl Listener {
    /// A listener for TLS. The file of the key and certificate is created beside them.
    fn tls(name: &'static str, certificate: &TestCertificate) -> Self {
        let keystore = certificate.key.with_extension("store");
        let parts = [&certificate.key, &certificate.certificate].map(fs::read);
        let parts: Vec<u8> = parts.into_iter().flat_map(Result::unwrap).collect();
        fs::write(&keystore, parts).unwrap();
        Self {
            name,
            protocol: "SSL",
            port: free_port(),
            settings: vec![
                "ssl.keystore.type=PEM".to_owned(),
                format!("ssl.keystore.location={}", keystore.display()),
            ],
        }
    }

    /// Requires a client certificate of the authority.
    fn mutual(mut self, authority: &Path) -> Self {
        self.settings.extend([
            "ssl.client.auth=required".to_owned(),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", authority.display()),
        ]);
        self
    }

    fn scram(mut self) -> Self {
        self.protocol = "SASL_SSL";
        self.settings.extend([
            "sasl.enabled.mechanisms=SCRAM-SHA-256".to_owned(),
            "scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.\
             ScramLoginModule required;"
                .to_owned(),
        ]);
        self
    }

    fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }
}

/// Returns the settings of a broker with these listeners.
fn settings(listeners: &[&Listener]) -> &'static [&'static str] {
    let each = |part: &dyn Fn(&Listener) -> String| -> String {
        listeners.iter().map(|listener| part(listener)).collect()
    };
    let bound = each(&|it| format!(",{}://127.0.0.1:{}", it.name, it.port));
    let advertised = each(&|it| format!(",{}://{}", it.name, it.address()));
    let protocols = each(&|it| format!(",{}:{}", it.name, it.protocol));
    let own = each(&|it| {
        let prefix = format!("listener.name.{}.", it.name.to_lowercase());
        let lines = it.settings.iter();
        lines.map(|line| format!("{prefix}{line}\n")).collect()
    });
    let text = format!(
        "listeners=PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@{bound}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:@ADVERTISED_PORT@{advertised}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n\
         {own}"
    );
    // The settings of a stack are static; this text lives as long as the test process.
    vec![&*text.leak()].leak()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns the variables of a program that connects to this listener.
fn variables(
    listener: &Listener,
    authority: &Path,
    client: Option<&TestCertificate>,
) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("KAFKA_BROKERS", listener.address()),
        ("KAFKA_SECURITY_PROTOCOL", "ssl".to_owned()),
        ("KAFKA_SSL_CA_LOCATION", text(authority).to_owned()),
    ];
    if let Some(client) = client {
        let (certificate, key) = (text(&client.certificate), text(&client.key));
        variables.push(("KAFKA_SSL_CERTIFICATE_LOCATION", certificate.to_owned()));
        variables.push(("KAFKA_SSL_KEY_LOCATION", key.to_owned()));
    }
    variables
}

#[test]
fn a_failed_handshake_with_a_broker_names_its_cause() {
    let (authority, stranger) = (TestAuthority::create(), TestAuthority::create());
    let trusted = authority.certificate();
    let right = Listener::tls("RIGHT", &authority.issue(NAMES));
    let other = Listener::tls("OTHER", &authority.issue("DNS:other.internal"));
    let expired = Listener::tls("EXPIRED", &authority.issue_expired(NAMES));
    let mutual = Listener::tls("MUTUAL", &authority.issue(NAMES)).mutual(&trusted);
    let all = settings(&[&right, &other, &expired, &mutual]);
    let mut stack = Stack::builder("tls-causes").private_kafka_with(all).start();
    let topic = stack.addresses().topic.clone();
    let send = ["send", "-n", "1", "--topic", &topic, "--timeout", "5s"];
    let client = authority.issue("DNS:producer");
    for variables in [
        variables(&right, &trusted, None),
        variables(&mutual, &trusted, Some(&client)),
    ] {
        let variables: Vec<_> = variables.iter().map(|(name, it)| (*name, &**it)).collect();
        stack
            .command_with("producer", &send, &variables)
            .succeeded();
    }
    let identity = "KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION";
    for (variables, expected) in [
        (
            variables(&right, &stranger.certificate(), None),
            "no trusted authority signed the certificate of the server; check \
             KAFKA_SSL_CA_LOCATION"
                .to_owned(),
        ),
        (
            variables(&other, &trusted, None),
            "the certificate of the server is valid for other.internal, not for localhost; check \
             the host in KAFKA_BROKERS"
                .to_owned(),
        ),
        (
            variables(&expired, &trusted, None),
            "the certificate of the server expired at 2020-01-02T00:00:00Z; renew it at the server"
                .to_owned(),
        ),
        (
            variables(&mutual, &trusted, None),
            format!("the server requires a client certificate; set {identity}"),
        ),
        (
            variables(&mutual, &trusted, Some(&stranger.issue("DNS:producer"))),
            "the server rejects the client certificate".to_owned(),
        ),
    ] {
        let variables: Vec<_> = variables.iter().map(|(name, it)| (*name, &**it)).collect();
        let said = stack.command_with("producer", &send, &variables).failed();
        assert!(said.contains(&expected), "{expected}\n{said}");
    }
    let variables = variables(&right, &stranger.certificate(), None);
    warns_once(&mut stack, &variables);
}

/// Checks that a worker with these variables explains its failed handshakes once.
fn warns_once(stack: &mut Stack, variables: &[(&str, String)]) {
    let mut variables: Vec<_> = variables.iter().map(|(name, it)| (*name, &**it)).collect();
    variables.push(("KAFKA_CREATE_TOPICS", "false"));
    variables.push(("RUST_LOG", "info,worker::kafka::handshakes=debug"));
    let worker = stack.launch_worker(&variables);
    let failure = "TLS handshake with a Kafka broker failed";
    let log = until("failed handshakes", || {
        let log = worker.process.log();
        match log.matches(failure).count() {
            0..FAILURES => Err(log),
            _ => Ok(log),
        }
    });
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""))
        .collect();
    let explained = |line: &&&str| line.contains("no trusted authority signed");
    assert_eq!(lines.iter().filter(explained).count(), 1, "{lines:#?}");
    assert!(lines.len() <= 3, "{lines:#?}");
    worker.process.terminate();
}

/// Sets the password of the SASL user `worker`.
fn set_password(brokers: &str, password: &str) {
    let libs = env::var("ORDER_SERVICE_KAFKA_LIBS").expect("`scripts/services env` sets it");
    let config = format!("SCRAM-SHA-256=[password={password}]");
    // scripts/kafka/admin runs only the commands that Kafka has moved to org.apache.kafka.tools.
    let output = Command::new("java")
        .args(["-Xmx128m", "-cp", &format!("{libs}/*")])
        .args(["kafka.admin.ConfigCommand", "--bootstrap-server", brokers])
        .args(["--alter", "--entity-type", "users", "--entity-name"])
        .args(["worker", "--add-config", &config])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

fn await_log(stack: &Stack, expected: &str) {
    until(expected, || {
        let log = stack.workers[0].process.log();
        match log.contains(expected) {
            true => Ok(()),
            false => Err(log),
        }
    });
}

#[test]
fn a_worker_uses_replaced_passwords_and_certificates_of_kafka() {
    let authority = TestAuthority::create();
    let trusted = authority.certificate();
    let listener = Listener::tls("SCRAM", &authority.issue(NAMES));
    let listener = listener.mutual(&trusted).scram();
    let mut stack = Stack::builder("tls-replaced")
        .private_kafka_with(settings(&[&listener]))
        .start();
    let brokers = stack.addresses().brokers.clone();
    set_password(&brokers, "old");
    let file = |name: &str| authority.file(name);
    let (password, certificate, key) = (file("password"), file("client.pem"), file("client.key"));
    let install = |client: &TestCertificate| {
        fs::copy(&client.certificate, &certificate).unwrap();
        fs::copy(&client.key, &key).unwrap();
    };
    install(&authority.issue("DNS:worker"));
    fs::write(&password, "old").unwrap();
    stack.start_worker_with(&[
        ("KAFKA_BROKERS", &listener.address()),
        ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
        ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-256"),
        ("KAFKA_SASL_USERNAME", "worker"),
        ("KAFKA_SASL_PASSWORD_FILE", text(&password)),
        ("KAFKA_SSL_CA_LOCATION", text(&trusted)),
        ("KAFKA_SSL_CERTIFICATE_LOCATION", text(&certificate)),
        ("KAFKA_SSL_KEY_LOCATION", text(&key)),
    ]);
    let mut ledger = Ledger::default();
    let drafts: Vec<Draft> = Generator::new(71, 1..=2)
        .take(4)
        .map(|order| Draft::order(&order))
        .collect();
    stack.send(&mut ledger, &drafts[0..1]);
    stack.settle();

    set_password(&brokers, "new");
    fs::write(&password, "new").unwrap();
    await_log(&stack, "Kafka password replaced");
    // Closes every connection.
    stack.kafka().stop();
    stack.kafka().start_again();
    stack.send(&mut ledger, &drafts[1..2]);
    stack.settle();

    fs::write(&certificate, "no certificate").unwrap();
    await_log(&stack, "replaced Kafka certificates cannot be used");
    stack.send(&mut ledger, &drafts[2..3]);
    stack.settle();

    install(&authority.issue("DNS:renewed"));
    await_log(&stack, "Kafka certificates replaced");
    stack.send(&mut ledger, &drafts[3..4]);
    stack.settle();
    stack.assert_no_difference();
    stack.stop_workers();
}
