//! The environment that the tests need. If something is missing, the test fails and names the
//! command that provides it.

use std::{
    borrow::Cow,
    env, fs,
    path::{self, Path, PathBuf},
    process::Command,
    thread,
};

/// Returns a variable that `scripts/services env` prints.
pub(crate) fn required(name: &str) -> String {
    match env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!(
            "{name} is not set: run `make test`, or start the services with `make services` and \
             set the environment with `eval \"$(scripts/services env)\"`"
        ),
    }
}

/// Runs a script of this repository.
///
/// # Errors
/// The output of the script when it fails.
pub(crate) fn script(path: &str, arguments: &[&str]) -> Result<(), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../scripts")
        .join(path);
    let output = Command::new(&script)
        .args(arguments)
        .output()
        .map_err(|error| format!("cannot run {}: {error}", script.display()))?;
    if output.status.success() {
        Ok(())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("scripts/{path} {arguments:?}: {said}"))
    }
}

/// Absolute path of a built program: in `ORDER_SERVICE_BIN_DIR`, or in the default target folder of
/// cargo.
pub fn program(name: &str) -> PathBuf {
    let folder = env::var_os("ORDER_SERVICE_BIN_DIR").map_or_else(
        || {
            let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
                || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
                PathBuf::from,
            );
            target.join("debug")
        },
        PathBuf::from,
    );
    let program = path::absolute(folder.join(name)).unwrap();
    assert!(
        program.is_file(),
        "{} does not exist: source scripts/lib/programs.sh and call `build_programs` and \
         `build_next_release`, or run `make test`; \
         ORDER_SERVICE_BIN_DIR names the folder of the programs",
        program.display()
    );
    program
}

/// A folder for logs and data. Dropping it removes the folder, unless the test failed and a process
/// left a core dump.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Creates a folder below `ORDER_SERVICE_HOME`, which the user that Postgres runs as can enter.
    pub(crate) fn create(name: &str) -> Self {
        let folder = PathBuf::from(required("ORDER_SERVICE_HOME"))
            .join("e2e")
            .join(name);
        fs::create_dir_all(&folder)
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Process id that a script wrote into the folder, if any.
    pub(crate) fn pid(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.0.join("pid")).ok()?;
        pid.trim().parse().ok()
    }

    /// Path of the folder as an argument.
    pub(crate) fn argument(&self) -> Cow<'_, str> {
        self.0.to_string_lossy()
    }

    /// Whether a process left a core dump in the folder, under the kernel's usual file name.
    fn has_core(&self) -> bool {
        fs::read_dir(&self.0).is_ok_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| file.file_name().as_encoded_bytes().starts_with(b"core"))
            })
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() && self.has_core() {
            eprintln!("a process left a core; kept: {}", self.0.display());
            return;
        }
        // An error leaves a few kilobytes behind, which `make clean` removes.
        let _ = fs::remove_dir_all(&self.0);
    }
}
