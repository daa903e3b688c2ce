//! A certificate authority for one test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use uuid::Uuid;

/// What `openssl ca` needs to sign a request: nothing but the name is checked.
const SETTINGS: &str = "[ca]\ndefault_ca = ours\n[ours]\ndatabase = index.txt\nnew_certs_dir = .\n\
                        default_md = sha256\npolicy = any\nrand_serial = yes\n\
                        unique_subject = no\ncopy_extensions = copy\n\
                        [any]\ncommonName = supplied\n";

/// A new key on a curve, which is created faster than one for RSA.
const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

/// A certificate authority for one test, made with `openssl`. Dropping the value removes its files.
pub struct TestAuthority {
    folder: PathBuf,
}

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug)]
pub struct TestCertificate {
    /// Path of the certificate.
    pub certificate: PathBuf,
    /// Path of the key.
    pub key: PathBuf,
}

impl TestAuthority {
    /// Creates an authority. Other users may read its files.
    pub fn create() -> Self {
        let folder = env::temp_dir().join(format!("order-service-tls-{}", Uuid::new_v4()));
        fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let authority = Self { folder };
        authority.write("ca.conf", SETTINGS);
        authority.write("index.txt", "");
        let name = format!("/CN=Authority {}", Uuid::new_v4());
        let subject = ["-subj", &name, "-days", "2"];
        let files = ["-keyout", "ca.key", "-out", "ca.pem"];
        authority.openssl(&[&["req", "-x509"], &NEW_KEY[..], &subject, &files].concat());
        authority
    }

    /// The certificate of the authority.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Path of a file next to those of the authority.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Issues a valid certificate for `names`, such as `DNS:localhost,IP:127.0.0.1`.
    pub fn issue(&self, names: &str) -> TestCertificate {
        self.sign(names, "20200101000000Z", "20990101000000Z")
    }

    /// Like [`TestAuthority::issue`], but the certificate expired on 2020-01-02.
    pub fn issue_expired(&self, names: &str) -> TestCertificate {
        self.sign(names, "20200101000000Z", "20200102000000Z")
    }

    fn sign(&self, names: &str, from: &str, until: &str) -> TestCertificate {
        let name = Uuid::new_v4().simple().to_string();
        let [key, request, certificate] =
            ["key", "csr", "pem"].map(|extension| format!("{name}.{extension}"));
        let names = format!("subjectAltName={names}");
        let subject = ["-subj", "/CN=test", "-addext", &names];
        let files = ["-keyout", &key, "-out", &request];
        self.openssl(&[&["req", "-new"], &NEW_KEY[..], &subject, &files].concat());
        let files = ["-in", &request, "-out", &certificate];
        let authority = [
            "-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key",
        ];
        let validity = ["-startdate", from, "-enddate", until];
        let command = ["ca", "-batch", "-notext"];
        self.openssl(&[&command[..], &authority, &files, &validity].concat());
        TestCertificate {
            certificate: self.folder.join(certificate),
            key: self.folder.join(key),
        }
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.folder.join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.folder)
            .output()
            .unwrap_or_else(|error| panic!("openssl: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {errors}");
    }
}

impl Drop for TestAuthority {
    fn drop(&mut self) {
        // A leftover folder in the temporary directory does no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl TestCertificate {
    /// Path of the certificate as an argument.
    pub fn certificate_argument(&self) -> &str {
        argument(&self.certificate)
    }

    /// Path of the key as an argument.
    pub fn key_argument(&self) -> &str {
        argument(&self.key)
    }
}

fn argument(path: &Path) -> &str {
    path.to_str()
        .unwrap_or_else(|| panic!("{} is not UTF-8", path.display()))
}
