//! A Postgres server for one test.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use uuid::Uuid;

use super::{TestCertificate, free_port, required};

/// A Postgres server for one test. Dropping the value ends it and removes its data.
pub struct TestPostgres {
    folder: PathBuf,
    port: u16,
}

impl TestPostgres {
    /// Starts a server that offers TLS with `certificate`. It verifies client certificates with
    /// `authority`, and requires one of the user `certified`.
    pub fn start_tls(certificate: &TestCertificate, authority: &Path) -> Self {
        let folder = Path::new(&required("ORDER_SERVICE_HOME"))
            .join("tests")
            .join(Uuid::new_v4().to_string());
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let server = Self {
            folder,
            port: free_port(),
        };
        let rules = server.folder.join("hba.conf");
        let text = "hostssl all certified 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n\
                    host all certified 127.0.0.1/32 reject\n\
                    host all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(&rules, text).unwrap_or_else(|error| panic!("{}: {error}", rules.display()));
        let key = server.folder.join("server.key");
        fs::copy(&certificate.key, &key).unwrap_or_else(|error| panic!("the key: {error}"));
        give_to_postgres(&key);
        let settings = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", certificate.certificate.display()),
            format!("ssl_key_file={}", key.display()),
            format!("ssl_ca_file={}", authority.display()),
            format!("hba_file={}", rules.display()),
        ];
        server.script(
            "start",
            &[&[server.port.to_string()], &settings[..]].concat(),
        );
        server
    }

    /// URL of the database of a user, without parameters.
    pub fn url(&self, user: &str, host: &str) -> String {
        format!("postgres://{user}:postgres@{host}:{}/orders", self.port)
    }

    fn script(&self, command: &str, arguments: &[String]) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres");
        let output = Command::new(script)
            .arg(command)
            .arg(&self.folder)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{script}: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script} {command}: {errors}");
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        self.script("stop", &["immediate".to_owned()]);
        // Leftover data in the folder of the tests does no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Lets only Postgres read the key, as it requires. For root the script starts it as another user.
fn give_to_postgres(key: &Path) {
    let run = |program: &str, how: &str| {
        let status = Command::new(program).arg(how).arg(key).status();
        assert!(status.is_ok_and(|status| status.success()), "{program}");
    };
    run("chmod", "600");
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if is_root {
        run("chown", "postgres");
    }
}
