//! An OpenID Connect issuer on this machine: `oidc-provider`, which is certified.

use std::{collections::HashMap, path::PathBuf, process::Command, time::Duration};

use crate::{
    environment::{Folder, required, script},
    http::Http,
    port::Port,
    process::Process,
    wait::until,
};

/// Timeout of a request for a token.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An issuer that a test can stop. `e2e/oidc/issuer.mjs` lists its clients.
pub struct OidcIssuer {
    process: Option<Process>,
    port: Port,
    folder: Folder,
    is_tls: bool,
}

impl OidcIssuer {
    /// Reserves the address of an issuer that does not run yet.
    pub fn reserve(name: &str) -> Self {
        // It is `localhost` in the certificate, and has no other name.
        Self {
            process: None,
            port: Port::reserve(),
            folder: Folder::create(&format!("{name}-{:08x}-oidc", rand::random::<u32>())),
            is_tls: false,
        }
    }

    /// Starts an issuer.
    #[track_caller]
    pub fn start(name: &str) -> Self {
        let mut issuer = Self::reserve(name);
        issuer.start_again();
        issuer
    }

    /// Makes the issuer serve HTTPS with a certificate of its own, before it is started. Returns
    /// the file with the certificate.
    #[track_caller]
    pub fn certify(&mut self) -> PathBuf {
        let (certificate, key) = self.tls_files();
        let arguments = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
                         -addext subjectAltName=DNS:localhost \
                         -addext basicConstraints=critical,CA:FALSE";
        let made = Command::new("openssl")
            .args(arguments.split_ascii_whitespace())
            .arg("-out")
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        self.is_tls = true;
        certificate
    }

    fn tls_files(&self) -> (PathBuf, PathBuf) {
        let folder = self.folder.path();
        (folder.join("certificate.pem"), folder.join("key.pem"))
    }

    /// Starts the issuer, with new keys, and waits until it listens.
    #[track_caller]
    pub fn start_again(&mut self) {
        // Downloads packages, and needs the environment of the test for that.
        script("oidc-issuer", &["--install"]).unwrap();
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/oidc-issuer");
        let (certificate, key) = self.tls_files();
        let port = self.port.number().to_string();
        let mut arguments = vec![port.as_str()];
        if self.is_tls {
            arguments.extend([certificate.to_str().unwrap(), key.to_str().unwrap()]);
        }
        let variables = ["ORDER_SERVICE_HOME", "HOME"];
        let variables = variables.map(|name| (name.to_owned(), required(name)));
        let folder = self.folder.path();
        let mut process = Process::start("issuer", &program, &arguments, &variables, folder);
        until("the start of the OpenID Connect issuer", || {
            assert!(process.ended().is_none(), "{}", process.log());
            let log = process.log();
            log.contains("listening").then_some(()).ok_or(log)
        });
        self.process = Some(process);
    }

    /// Stops the issuer. Its address stays reserved.
    #[track_caller]
    pub fn stop(&mut self) {
        self.process.take().expect("the issuer runs").kill();
    }

    /// Returns the name of the issuer.
    pub fn name(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.port.number())
    }

    /// Returns a token for `resource` with `scope`, signed as the client is configured.
    #[track_caller]
    pub fn token_for(&self, resource: &str, client: &str, scope: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id={client}&client_secret={client}\
             &resource={resource}&scope={}",
            scope.replace(' ', "+")
        );
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .build()
            .into();
        let sent = agent
            .post(format!("{}/token", self.name()))
            .content_type("application/x-www-form-urlencoded")
            .send(form);
        let answer = sent.unwrap().body_mut().read_to_string().unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let token = parsed["access_token"].as_str();
        token
            .unwrap_or_else(|| panic!("no token: {answer}"))
            .to_owned()
    }

    /// Returns a token for the api with `scope`.
    #[track_caller]
    pub fn token(&self, client: &str, scope: &str) -> String {
        self.token_for("urn:orders", client, scope)
    }

    /// Replaces all keys of the issuer.
    #[track_caller]
    pub fn rotate(&self) {
        self.get("/test/rotate");
    }

    /// Returns how often the keys were requested.
    #[track_caller]
    pub fn key_requests(&self) -> u64 {
        let requests: HashMap<String, u64> =
            serde_json::from_slice(&self.get("/test/requests")).unwrap();
        requests.get("/jwks").copied().unwrap_or_default()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Vec<u8> {
        let answer = Http::new().get(&format!("{}{path}", self.name()));
        assert_eq!(answer.status, 200);
        answer.body
    }
}
