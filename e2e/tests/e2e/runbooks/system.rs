//! A system in which the commands of the pages run, and what replaces their placeholders.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use e2e::{Draft, Finished, Ledger, Stack, rejected_samples};
use shared::order::sample::Generator;

use super::table::SQL;

/// Kafka's tools, each with its class. They come with Kafka's distribution, not with its jars.
const KAFKA_TOOLS: [&str; 7] = [
    "kafka-acls.sh",
    "kafka-configs.sh",
    "kafka-console-consumer.sh",
    "kafka-console-producer.sh",
    "kafka-consumer-groups.sh",
    "kafka-delete-records.sh",
    "kafka-topics.sh",
];

pub(super) struct System {
    stack: Stack,
    /// Folder in which the commands run.
    folder: PathBuf,
    /// Placeholders and fixed names of the pages, each with its value here.
    values: Vec<(String, String)>,
    /// Name that the pages' `orders_rw` and so on have here: roles belong to the whole server.
    role: String,
}

impl System {
    /// Starts a worker and an api, and sends orders and records that cannot be stored.
    pub(super) fn start() -> Self {
        let stack = Stack::builder("commands").workers(1).apis(1).start();
        let mut ledger = Ledger::default();
        let orders: Vec<_> = Generator::new(301, 1..=3).take(40).collect();
        let drafts: Vec<Draft> = orders.iter().map(Draft::order).collect();
        stack.send(&mut ledger, &drafts);
        stack.send(&mut ledger, &rejected_samples(302));
        stack.settle();
        let role = format!("role_{:08x}", rand::random::<u32>());
        for user in ["a", "b"] {
            stack
                .database()
                .execute(&format!("CREATE ROLE {role}_{user}"));
        }
        let folder = env::temp_dir().join(&role);
        fs::create_dir_all(folder.join("bin")).unwrap();
        let system = Self {
            values: values(&stack, &ledger, &role),
            stack,
            folder,
            role,
        };
        system.install_tools();
        let uids = format!("{}\n", ledger.some_uid());
        fs::write(system.folder.join("uids.txt"), uids).unwrap();
        system
    }

    fn install_tools(&self) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka/tool");
        for tool in KAFKA_TOOLS {
            symlink(&source, self.folder.join("bin").join(tool)).unwrap();
        }
        // As in `docker compose exec redis redis-cli`.
        let redis = self.folder.join("bin/redis-cli");
        let text = "#!/usr/bin/env bash\n[[ $1 == -u ]] || set -- -u \"$REDIS_URL\" \"$@\"\n\
                    exec /usr/bin/env PATH=\"${PATH#*:}\" redis-cli \"$@\"\n";
        fs::write(&redis, text).unwrap();
        fs::set_permissions(&redis, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs commands in one shell, as in the page except for the values.
    pub(super) fn run(&self, commands: &[String]) -> Finished {
        let mut script = String::new();
        for command in commands {
            let mut command = command.clone();
            for (from, to) in &self.values {
                command = command.replace(from, to);
            }
            let is_sql = SQL.contains(&command.split_whitespace().next().unwrap_or_default());
            script += &match is_sql {
                true => {
                    format!("psql \"$DATABASE_URL\" -v ON_ERROR_STOP=1 <<'SQL'\n{command};\nSQL\n")
                }
                false => format!("{command}\n"),
            };
        }
        let (api, worker) = (&self.stack.apis[0], self.stack.workers.first());
        let admin = worker.map_or_else(String::new, |worker| worker.admin.address());
        let url = api.url();
        let pg =
            env::var("ORDER_SERVICE_PG_BIN").expect("ORDER_SERVICE_PG_BIN: `make test` sets it");
        let home = env::var("ORDER_SERVICE_HOME").unwrap_or_default();
        let bin = self.folder.join("bin");
        let variables = [
            ("API", url.as_str()),
            ("TOKEN", "any"),
            ("ADMIN_ADDR", &admin),
            ("ORDER_SERVICE_HOME", &home),
        ];
        let folders = [bin.to_str().unwrap(), &pg];
        self.stack
            .script(&script, &self.folder, &folders, &variables)
    }

    pub(super) fn stop_workers(&mut self) {
        self.stack.stop_workers();
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Leftovers in the temporary folder are harmless.
        let _ = fs::remove_dir_all(&self.folder);
        let database = self.stack.database();
        for role in ["rw", "a", "b"] {
            let role = format!("{}_{role}", self.role);
            // The role may be missing if the test failed earlier.
            let _ = database.try_execute(&format!("DROP OWNED BY {role}"));
            let _ = database.try_execute(&format!("DROP ROLE {role}"));
        }
    }
}

/// Returns what replaces the placeholders and the fixed names of the pages, in this order.
fn values(stack: &Stack, ledger: &Ledger, role: &str) -> Vec<(String, String)> {
    let addresses = stack.addresses();
    let (topic, letters) = (&addresses.topic, &addresses.dead_letter_topic);
    let sent = &ledger.records()[0];
    let (partition, offset) = (sent.position.partition, sent.position.offset);
    let uid = ledger.some_uid();
    let letter = place_of_letter(stack);
    let (api, admin) = (&stack.apis[0], &stack.workers[0].admin);
    let (_, database) = addresses.database_url.rsplit_once('/').unwrap();
    let values = [
        ("localhost:8080", api.address()),
        ("localhost:8181", admin.address()),
        ("localhost:19092", addresses.brokers.clone()),
        ("-b BROKER", format!("-b {}", addresses.brokers)),
        ("-t orders-dlq", format!("-t {letters}")),
        ("-t orders ", format!("-t {topic} ")),
        ("--topic orders", format!("--topic {topic}")),
        ("\"topic\": \"orders\"", format!("\"topic\": \"{topic}\"")),
        (
            "--group order-worker",
            format!("--group {}", addresses.group_id),
        ),
        (
            "-p PARTITION -o OFFSET",
            format!("-p {partition} -o {offset}"),
        ),
        (
            "--partition 3 --offset 42",
            format!("--partition {partition} --offset {offset}"),
        ),
        (
            "\"partition\": 3, \"offset\": OFFSET",
            format!("\"partition\": {partition}, \"offset\": 0"),
        ),
        ("show --partition 3 --offset 17", format!("show {letter}")),
        ("show --partition P --offset O", format!("show {letter}")),
        ("--max-messages COUNT", "--max-messages 2".to_owned()),
        ("retention.ms=...", "retention.ms=604800000".to_owned()),
        ("--reason REASON", "--reason malformed_json".to_owned()),
        ("/tmp/", String::new()),
        ("<uid>", uid.clone()),
        ("UID", uid.clone()),
        ("b563feb7b2b84b6test", uid),
        ("customer_id=<id>", "customer_id=test".to_owned()),
        ("redis-cli -p 16379", "redis-cli".to_owned()),
        (
            "api health",
            format!("ADMIN_ADDR={} api health", stack.apis[0].admin.address()),
        ),
        (
            "ALTER DATABASE orders",
            format!("ALTER DATABASE \"{database}\""),
        ),
        ("--to 2026-11-21T15:47:00Z", "--to 1h".to_owned()),
    ];
    let text = |(from, to): (&str, String)| (from.to_owned(), to);
    values.into_iter().chain(roles(role)).map(text).collect()
}

/// Returns what replaces the names of roles, which belong to the whole server.
fn roles(role: &str) -> [(&'static str, String); 4] {
    [
        (
            "--only sql |",
            "--only sql --migrate e2e_migrate --worker e2e_worker --api e2e_api |".to_owned(),
        ),
        (
            "--worker orders_rw",
            "--migrate e2e_migrate --worker orders_rw --api e2e_api".to_owned(),
        ),
        ("orders_rw", format!("{role}_rw")),
        ("orders_a, orders_b", format!("{role}_a, {role}_b")),
    ]
}

/// Returns the options that name the first dead letter of a partition.
fn place_of_letter(stack: &Stack) -> String {
    let letters = &stack.addresses().dead_letter_topic;
    let ends = stack.broker().watermarks(letters);
    let mut filled = ends.iter().filter(|(_, (low, high))| low < high);
    let (partition, (offset, _)) = filled.next().unwrap();
    format!("--partition {partition} --offset {offset}")
}
