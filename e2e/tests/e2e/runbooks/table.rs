//! Which commands the test runs, and what runs the others.

/// Programs that the test runs. `SELECT` and so on run in psql.
const RUN: [&str; 12] = [
    "worker",
    "api",
    "producer",
    "kcat",
    "psql",
    "pg_dump",
    "pg_restore",
    "redis-cli",
    "curl",
    "echo",
    "printf",
    "while",
];

/// The first words of SQL.
pub(super) const SQL: [&str; 6] = ["SELECT", "ALTER", "CREATE", "GRANT", "UPDATE", "TABLE"];

/// Commands that the test cannot run, by their beginning, with what runs them instead, or why
/// nothing does.
const ELSEWHERE: [(&str, &str); 42] = [
    (
        "ss -Htn",
        "counts the connections of the host; nothing runs it",
    ),
    (
        "worker grants --only kafka | bash",
        "needs a broker with ACLs; e2e/tests/e2e/grants.rs runs the same commands",
    ),
    (
        "worker completions",
        "needs the folders of a shell; e2e/tests/e2e/commands.rs runs it",
    ),
    (
        "worker dead-letters edit",
        "opens an editor; e2e/tests/e2e/letters runs it with one",
    ),
    (
        "producer erase UID",
        "asks on a terminal; the line after it runs with --yes",
    ),
    (
        "curl -N",
        "a stream without end; api/tests/api/events.rs follows both",
    ),
    ("docker build", "scripts/images-test"),
    ("docker compose up", "make up, scripts/upgrade-test"),
    ("docker compose run", "make up, scripts/upgrade-test"),
    (
        "docker compose exec worker",
        "needs containers; the command of the worker runs in this test",
    ),
    (
        "docker compose exec api",
        "needs containers; the command of the api runs in this test",
    ),
    (
        "docker compose exec",
        "needs containers; psql and redis-cli run in this test",
    ),
    (
        "docker compose",
        "needs containers; scripts/upgrade-test uses ps, logs and down",
    ),
    (
        "while sleep 1; do docker",
        "needs containers; prints their memory",
    ),
    (
        "COMPOSE_PROFILES=",
        "needs containers; scripts/check-compose checks the profile",
    ),
    (
        "export COMPOSE_PROFILES",
        "needs containers; scripts/check-compose checks the profile",
    ),
    (
        "curl -s 'localhost:16686",
        "needs Jaeger; e2e/tests/e2e/traces.rs checks the spans",
    ),
    (
        "curl -s localhost:16686",
        "needs Jaeger; e2e/tests/e2e/traces.rs checks the spans",
    ),
    ("spans=", "a filter for the answer of Jaeger"),
    ("helm ", "scripts/chart-test, scripts/cluster-test"),
    ("kubectl ", "scripts/cluster-test"),
    ("make publish", "scripts/publish-test"),
    ("make upgrade", "scripts/upgrade-test"),
    (
        "make ",
        "the developer: it starts this test, or takes hours",
    ),
    ("scripts/extending-test", "make test"),
    (
        "scripts/update-registries",
        "needs the registries; shared/src/order/tests/registries.rs",
    ),
    (
        "scripts/",
        "the developer: a long measurement, or state of this machine",
    ),
    (
        "cargo install",
        "scripts/clients-test compiles the same generator",
    ),
    (
        "cargo progenitor",
        "scripts/clients-test runs the same generator",
    ),
    (
        "sed 's|",
        "scripts/clients-test replaces the same media type",
    ),
    ("npm install", "scripts/clients-test installs the packages"),
    ("npx openapi-typescript", "scripts/clients-test"),
    ("pip install", "scripts/clients-test installs the package"),
    ("openapi-python-client", "scripts/clients-test"),
    ("cargo ", "make test builds and runs the same targets"),
    ("RENEW_PAGES=1 cargo", "make test compares the pages"),
    (
        "ADMIN_ADDR=127.0.0.1:8082 cargo",
        "the same program runs here with another address",
    ),
    ("source scripts/lib", "make test"),
    ("eval ", "make test"),
    ("git ", "scripts/extending-test applies the same diffs"),
    (
        "patch ",
        "scripts/extending-test, scripts/patched-copy apply the same diffs",
    ),
    ("mv /tmp", "a step of a change to this repository"),
];

/// Blocks that are no commands, by the beginning of their first line.
const TEXT: [&str; 34] = [
    "event: ",
    "producer ──▶",
    "client ──▶",
    "sent   ",
    "every record is accounted",
    "order 09b5",
    "error: ",
    "services:",
    "(workers + 1)",
    "HTTP/1.1",
    "{\"orders\"",
    "{\"timestamp\"",
    "API_OIDC_ISSUER=",
    "{\"type\"",
    "import {",
    "group order-worker",
    "Postgres lacks records",
    "Kafka deleted records",
    "partition went back",
    "committed offsets without",
    "[databases]",
    "~order:*",
    "listen redis",
    "1) \"order-changes\"",
    "workers             W",
    "producer  create orders",
    "api       GET",
    "api  GET",
    "OTEL_TRACES_SAMPLER",
    "retry: ",
    "const events",
    "const integer",
    "warning: ",
    "stale  ",
];

/// Returns whether the text begins like a command that is run here or elsewhere.
pub(super) fn is_command(text: &str) -> bool {
    is_run(text) || elsewhere(text).is_some()
}

/// Returns whether the test runs the command.
pub(super) fn is_run(command: &str) -> bool {
    let first = command.split_whitespace().next().unwrap_or_default();
    let assigns = first
        .split_once('=')
        .is_some_and(|(name, _)| ["API", "TOKEN", "token", "cursor"].contains(&name));
    let is_kafka = first.starts_with("kafka-") && first.ends_with(".sh");
    let is_completion = command.starts_with("source <(");
    assigns || is_completion || is_kafka || RUN.contains(&first) || SQL.contains(&first)
}

/// Returns what runs the command instead of the test.
pub(super) fn elsewhere(command: &str) -> Option<&'static str> {
    let found = ELSEWHERE
        .iter()
        .find(|(start, _)| command.starts_with(start));
    found.map(|(_, what)| *what)
}

/// Returns whether the block is no command.
pub(super) fn is_text(first: &str) -> bool {
    TEXT.iter().any(|start| first.starts_with(start))
}
