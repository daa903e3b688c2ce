//! A program that crashes writes no core dump: its memory holds passwords and tokens.

use std::{
    env, fs,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
};

use e2e::{program, until};

/// SIGABRT, whose default action dumps the core.
const ABORT: i32 = 6;

/// Starts a program that may dump its core, waits for a service that does not exist, and ends when
/// it is dropped.
struct Waiting(Child);

impl Waiting {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let variables = [
            ("DATABASE_URL", "postgres://none@127.0.0.1:1/none"),
            ("REDIS_URL", "redis://127.0.0.1:1"),
            ("KAFKA_BROKERS", "127.0.0.1:1"),
            ("ADMIN_ADDR", "127.0.0.1:0"),
            ("API_ADDR", "127.0.0.1:0"),
        ];
        let child = Command::new("bash")
            .args([
                "-c",
                "ulimit -S -c \"$(ulimit -H -c)\" && exec \"$0\" \"$@\"",
            ])
            .arg(program(name))
            .args(arguments)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap())
            .envs(variables)
            .current_dir(env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// Returns the line of `/proc/PID/limits` about core dumps, once `program` runs.
    fn core_limit(&mut self) -> String {
        assert!(self.0.try_wait().unwrap().is_none(), "the program ended");
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.0.id())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core"));
        line.unwrap().to_owned()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_program_that_aborts_writes_no_core_dump() {
    for (name, arguments) in [
        ("api", &["serve"][..]),
        ("worker", &["run"]),
        ("producer", &["send", "--file", "-"]),
    ] {
        let mut waiting = Waiting::start(name, arguments);
        until(&format!("{name} to forbid core dumps"), || {
            let limit = waiting.core_limit();
            let values: Vec<_> = limit.split_whitespace().skip(4).take(2).collect();
            if values == ["0", "0"] {
                Ok(())
            } else {
                Err(limit)
            }
        });
        let pid = waiting.0.id().to_string();
        let sent = Command::new("bash")
            .args(["-c", "kill -s ABRT \"$0\"", &pid])
            .status();
        assert!(sent.unwrap().success());
        let status = waiting.0.wait().unwrap();
        assert_eq!(status.signal(), Some(ABORT), "{name}: {status:?}");
        assert!(!status.core_dumped(), "{name}: {status:?}");
    }
}
