//! Child processes: started with an environment of their own, ended by their own pids.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{environment::Folder, wait::until};

/// How much of a log is shown.
const TAIL_LINES: usize = 25;

/// How often a command is looked at that is to end by itself.
const PAUSE: Duration = Duration::from_millis(20);

/// What a process can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End in order.
    Terminate,
    /// Freeze.
    Stop,
    /// Go on.
    Continue,
    /// End at once, as in a crash.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
            Self::Kill => "KILL",
        }
    }

    /// Sends it to the process `pid`, which must be a child of ours that was not reaped yet, or a child of such a one.
    pub(crate) fn send(self, pid: u32) -> bool {
        // The shell's own `kill`: it is there wherever the scripts of this repository run.
        Command::new("bash")
            .args(["-c", "kill -s \"$0\" \"$1\"", self.name(), &pid.to_string()])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// A running child process with its output in a log file. Killed when dropped; shows the end of its log when that happens
/// because a test failed.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program`, an absolute path, in `folder` with nothing but `variables` in its environment; its output goes to
    /// `NAME.log` there.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        arguments: &[&str],
        variables: &[(String, String)],
        folder: &Path,
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let child = command(program, arguments, variables)
            .current_dir(folder)
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Self {
            name: name.to_owned(),
            child,
            log,
            ended: None,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// How much memory it has in use, in bytes.
    #[track_caller]
    pub fn resident_bytes(&self) -> usize {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that it ever had in use at once, in bytes.
    #[track_caller]
    pub fn peak_bytes(&self) -> usize {
        self.status_bytes("VmHWM:")
    }

    #[track_caller]
    fn status_bytes(&self, name: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it has ended already.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        assert!(
            self.ended().is_none() && signal.send(self.child.id()),
            "{} has ended before {signal:?}: {:?}",
            self.name,
            self.ended
        );
    }

    /// Ends it as a crash would.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::Kill);
        self.wait();
        let status = self.ended.and_then(|status| status.signal());
        assert_eq!(status, Some(9), "{} ended by itself", self.name);
    }

    /// Asks it to end and expects exit code 0, within the time that an orchestrator would give it.
    #[track_caller]
    pub fn terminate(&mut self) {
        self.signal(Signal::Terminate);
        self.expect_orderly_end();
    }

    /// Asks it to end and waits until it has ended by itself, with whatever exit code; how long that took.
    #[track_caller]
    pub fn terminate_somehow(&mut self) -> Duration {
        let asked = Instant::now();
        self.signal(Signal::Terminate);
        let status = self.wait();
        assert!(status.code().is_some(), "{} ended with {status}", self.name);
        asked.elapsed()
    }

    /// Expects exit code 0.
    #[track_caller]
    pub fn expect_orderly_end(&mut self) {
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{} ended with {status}", self.name);
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        until(&what, || self.ended().ok_or("it still runs"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n    ");
            eprintln!("the end of the log of {}:\n    {tail}", self.name);
        }
        if self.ended.is_none() {
            // Either fails only when it has just ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Runs `program` to its end, with nothing but `variables` in its environment. None when it still ran after `limit`;
    /// it is killed then.
    #[track_caller]
    pub(crate) fn run(
        program: &Path,
        arguments: &[&str],
        variables: &[(String, String)],
        limit: Duration,
    ) -> Option<Self> {
        let folder = Folder::create(&format!("command-{:016x}", rand::random::<u64>()));
        let (stdout, stderr) = (folder.path().join("stdout"), folder.path().join("stderr"));
        let mut child = command(program, arguments, variables)
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= deadline {
                // Either fails only when it has just ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            thread::sleep(PAUSE);
        };
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Some(Self {
            code: status.code(),
            stdout: read(&stdout),
            stderr: read(&stderr),
        })
    }

    /// Expects exit code 0 and hands back the standard output.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Expects another exit code than 0 and hands back all that it said.
    #[track_caller]
    pub fn failed(self) -> String {
        let said = self.stdout + &self.stderr;
        assert!(
            self.code.is_some_and(|code| code != 0),
            "exit code {:?}: {said}",
            self.code
        );
        said
    }
}

/// Only what is named counts: variables of the one who runs the tests must not decide how they end.
fn command(program: &Path, arguments: &[&str], variables: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    command
}
