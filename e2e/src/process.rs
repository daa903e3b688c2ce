//! Child processes, each with its own environment, ended by their process ids.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{environment::Folder, wait::until};

/// Lines of a log that a failure prints.
const TAIL_LINES: usize = 25;

/// Interval between two checks whether a command has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: shut down in order.
    Terminate,
    /// SIGHUP: reread files.
    Hangup,
    /// SIGSTOP: freeze.
    Stop,
    /// SIGCONT: continue.
    Continue,
    /// SIGKILL: end at once, as in a crash.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Hangup => "HUP",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
            Self::Kill => "KILL",
        }
    }

    /// Sends the signal to the process `pid`. It must be a child of this process that was not
    /// reaped yet, or a child of such a child. Returns whether the process existed.
    pub(crate) fn send(self, pid: u32) -> bool {
        // The built-in `kill` of bash, which exists wherever the scripts of this repository run.
        Command::new("bash")
            .args(["-c", "kill -s \"$0\" \"$1\"", self.name(), &pid.to_string()])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// A running child process whose output goes to a log file. Dropping it kills the process, and
/// prints the end of the log if a test failed.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program`, an absolute path, in `folder`, with only `variables` as its environment.
    /// The output goes to `NAME.log` in `folder`.
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

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns the exit status if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Returns the resident memory in bytes.
    #[track_caller]
    pub fn resident_bytes(&self) -> usize {
        self.status_bytes("VmRSS:")
    }

    /// Returns the peak of the resident memory in bytes.
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
    /// The process has already ended.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        assert!(
            self.ended().is_none() && signal.send(self.child.id()),
            "{} has ended before {signal:?}: {:?}",
            self.name,
            self.ended
        );
    }

    /// Kills the process and waits for its end.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::Kill);
        self.wait();
        let status = self.ended.and_then(|status| status.signal());
        assert_eq!(status, Some(9), "{} ended by itself", self.name);
    }

    /// Sends SIGTERM and asserts exit code 0 within the time that an orchestrator allows.
    #[track_caller]
    pub fn terminate(&mut self) {
        self.signal(Signal::Terminate);
        self.expect_orderly_end();
    }

    /// Sends SIGTERM and waits until the process has ended by itself, with any exit code. Returns
    /// how long that took.
    #[track_caller]
    pub fn terminate_somehow(&mut self) -> Duration {
        let asked = Instant::now();
        self.signal(Signal::Terminate);
        let status = self.wait();
        assert!(status.code().is_some(), "{} ended with {status}", self.name);
        asked.elapsed()
    }

    /// Waits for the end of the process and asserts exit code 0.
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
            // Both calls fail only if the process has just ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Exit code, or `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Runs `program` to its end, with only `variables` as its environment. Kills it and returns
    /// `None` if it still runs after `limit`.
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
                // Both calls fail only if the process has just ended by itself.
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

    /// Asserts exit code 0 and returns the standard output.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts a non-zero exit code and returns the whole output.
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

/// Clears the environment: variables of the caller must not influence the tests.
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
