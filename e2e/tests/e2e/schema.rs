//! The schema changes under running processes: a table or a right is missing, everything is
//! dropped, migrations are reverted.

use e2e::{Admin, Ledger, Stack, until};

use crate::orders::drafts;

/// Waits until `/readyz` has this status and the check has this state.
#[track_caller]
fn await_state(admin: &Admin, status: u16, check: &str, state: &str) {
    until(&format!("{check}: {state} with status {status}"), || {
        let answer = admin.get("/readyz");
        match (answer.status, admin.state_of(check)) {
            (seen, found) if seen == status && found == state => Ok(()),
            _ => Err(answer.text()),
        }
    });
}

fn admins(stack: &Stack) -> [&Admin; 2] {
    [&stack.workers[0].admin, &stack.apis[0].admin]
}

/// Returns the logs of all processes.
fn logs(stack: &Stack) -> String {
    let workers = stack.workers.iter().map(|worker| worker.process.log());
    let apis = stack.apis.iter().map(|api| api.process.log());
    workers.chain(apis).collect()
}

/// Asserts that the processes named the problem, and reported no outage.
#[track_caller]
fn assert_named(stack: &Stack, expected: &str) {
    let log = logs(stack);
    assert!(log.contains(expected), "{log}");
    assert!(!log.contains("does not answer"), "{log}");
}

#[test]
fn while_a_table_is_missing_no_process_is_ready_and_no_record_is_lost() {
    let mut stack = Stack::builder("table").start();
    stack.start_worker();
    // The order must come from Postgres.
    stack.start_api_with(&[("CACHE_ENABLED", "false")]);
    let (mut ledger, database) = (Ledger::default(), stack.database());
    stack.send(&mut ledger, &drafts(11, 20));
    stack.settle();
    let stored = ledger.some_uid();

    database.execute("ALTER TABLE orders RENAME TO elsewhere");
    let state = "orders missing; run `worker migrate`";
    for admin in admins(&stack) {
        await_state(admin, 503, "schema", state);
        await_state(admin, 503, "postgres", "rejecting");
        assert_eq!(admin.metric("db_up", ""), 0);
        assert_eq!(admin.get("/livez").status, 200);
    }
    stack.send(&mut ledger, &drafts(12, 20));
    until("a worker that waits", || {
        match stack.workers[0].admin.state_of("waiting_for") {
            waits if waits == "deployment" => Ok(()),
            waits => Err(waits),
        }
    });
    stack.apis[0].order(&stored).problem(503);
    let said = stack.command("worker", &["migrate"]).failed();
    assert!(
        said.contains("every migration is applied, but orders is missing"),
        "{said}"
    );
    assert_named(
        &stack,
        "SQLSTATE 42P01: orders is missing; run `worker migrate`",
    );

    database.execute("ALTER TABLE elsewhere RENAME TO orders");
    for admin in admins(&stack) {
        await_state(admin, 200, "schema", "ok");
        await_state(admin, 200, "postgres", "up");
    }
    stack.settle();
    stack.check().tiers(&ledger);
    assert_eq!(stack.apis[0].order(&stored).status, 200);
}

#[test]
fn after_everything_was_dropped_the_migration_brings_all_processes_back() {
    let mut stack = Stack::builder("dropped").start();
    stack.start_worker();
    stack.start_api();
    stack.send(&mut Ledger::default(), &drafts(13, 5));
    stack.settle();

    let database = stack.database();
    database.execute("DROP SCHEMA public CASCADE");
    database.execute("CREATE SCHEMA public");
    stack.grant_rights();
    for admin in admins(&stack) {
        await_state(admin, 503, "schema", "too old; run `worker migrate`");
    }
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(14, 20));
    assert_named(
        &stack,
        "the database schema is too old; run `worker migrate`",
    );

    stack.command("worker", &["migrate"]).succeeded();
    for admin in admins(&stack) {
        await_state(admin, 200, "schema", "ok");
    }
    stack.settle();
    stack.check().postgres(&ledger);
    stack.check().dead_letters_at_least_once(&ledger);
    assert!(!logs(&stack).contains("does not answer"));
}

#[test]
fn a_missing_right_is_not_an_outage_and_dead_letters_nothing() {
    let mut stack = Stack::builder("right").start();
    let database = stack.database();
    let role = format!("reader_{:08x}", rand::random::<u32>());
    database.execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'right'"));
    database.execute(&format!(
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    let url = stack.addresses().database_url.clone();
    let (_, address) = url.split_once('@').unwrap();
    let url = format!("postgres://{role}:right@{address}");
    stack.start_worker_with(&[("DATABASE_URL", &url)]);
    let mut ledger = Ledger::default();
    stack.send(&mut ledger, &drafts(15, 5));
    until("a worker that waits", || {
        match stack.workers[0].admin.state_of("waiting_for") {
            waits if waits == "deployment" => Ok(()),
            waits => Err(waits),
        }
    });
    assert_named(&stack, "SQLSTATE 42501: the user lacks a right on ");

    database.execute(&format!(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"
    ));
    database.execute(&format!(
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
    ));
    stack.settle();
    stack.check().tiers(&ledger);
    assert!(!logs(&stack).contains("does not answer"));
    stack.stop_workers();
    database.execute(&format!("DROP OWNED BY {role}"));
    database.execute(&format!("DROP ROLE {role}"));
}

#[test]
fn a_revert_is_rejected_while_workers_run_and_unless_it_may_drop_orders() {
    let mut stack = Stack::builder("revert").start();
    stack.start_worker();
    stack.start_api();
    let database = stack.database();
    let versions = "SELECT count(*) FROM _sqlx_migrations WHERE success";
    let all = database.number(versions);
    let (every, more) = (all.to_string(), (all + 1).to_string());
    for (arguments, expected) in [
        (&["--down", "1"][..], "sessions of workers use this schema"),
        (
            &["--down", &every, "--yes-drop-orders"],
            "stop every worker first",
        ),
        (
            &["--down", &every],
            "reverts migration 1, which drops every order",
        ),
        (
            &["--down", &more, "--yes-drop-orders"],
            "write a number from 1 to",
        ),
        (&["--down", "0"], "write a number from 1 to"),
        (&["--yes-drop-orders"], "--down"),
    ] {
        let said = stack
            .command("worker", &[&["migrate"], arguments].concat())
            .failed();
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(database.number(versions), all, "{arguments:?}");
    }
    // A killed worker leaves no session behind.
    stack.workers[0].process.kill();
    let finished = stack.command("worker", &["migrate", "--down", "1"]);
    assert!(
        finished.stderr.starts_with("reverting 1 of "),
        "{finished:?}"
    );
    finished.succeeded();
    assert_eq!(database.number(versions), all - 1);
    await_state(
        &stack.apis[0].admin,
        503,
        "schema",
        "too old; run `worker migrate`",
    );
    stack.command("worker", &["migrate"]).succeeded();
    await_state(&stack.apis[0].admin, 200, "schema", "ok");
}

#[test]
fn a_worker_that_starts_during_a_revert_logs_what_it_waits_for() {
    let mut stack = Stack::builder("waits").start();
    let mut reverting = stack.database().session();
    // The lock of `worker migrate --down`.
    reverting.execute("SELECT pg_advisory_lock(1869767794, hashtext(current_schema()))");
    stack.launch_worker(&[]);
    until("a log line that names the revert", || {
        let log = stack.workers[0].process.log();
        match log.contains("waiting for the end of `worker migrate --down`") {
            true => Ok(()),
            false => Err(log),
        }
    });
    drop(reverting);
    await_state(&stack.workers[0].admin, 200, "schema", "ok");
}
