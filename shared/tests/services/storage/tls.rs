//! TLS towards Postgres, and passwords and certificates that are replaced while the process runs.

use std::{fs, path::Path, time::Duration};

use shared::{
    config,
    storage::{Postgres, Role},
    testing::{TestAuthority, TestDatabase, TestPostgres, eventually},
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

const NAMES: &str = "DNS:localhost";

fn connect(url: &str) -> Postgres {
    let config = config::Database {
        timeout: Some(Duration::from_secs(10)),
        ..config::Database::default()
    };
    Postgres::new(url, &config, Role::Api).unwrap()
}

async fn failure(url: &str) -> String {
    connect(url).now().await.err().unwrap().to_string()
}

fn trusting(url: &str, authority: &Path) -> String {
    format!(
        "{url}?sslmode=verify-full&sslrootcert={}",
        authority.display()
    )
}

#[tokio::test]
async fn a_server_whose_certificate_cannot_be_verified_is_an_error_that_names_the_cause() {
    let (authority, stranger) = (TestAuthority::create(), TestAuthority::create());
    let trusted = authority.certificate();
    let server = TestPostgres::start_tls(&authority.issue(NAMES), &trusted);
    let url = server.url("postgres", "localhost");
    connect(&trusting(&url, &trusted)).now().await.unwrap();
    assert_eq!(
        failure(&trusting(&url, &stranger.certificate())).await,
        "connection to Postgres: no trusted authority signed the certificate of the server; check \
         sslrootcert in DATABASE_URL"
    );
    // As libpq does, `require` with an authority verifies the certificate.
    let required = trusting(&url, &stranger.certificate()).replace("verify-full", "require");
    assert!(failure(&required).await.contains("no trusted authority"));
    let by_address = trusting(&server.url("postgres", "127.0.0.1"), &trusted);
    assert_eq!(
        failure(&by_address).await,
        "connection to Postgres: the certificate of the server is valid for localhost, not for \
         127.0.0.1; check the host in DATABASE_URL"
    );
}

#[tokio::test]
async fn an_expired_server_certificate_is_an_error_that_names_the_date() {
    let authority = TestAuthority::create();
    let trusted = authority.certificate();
    let server = TestPostgres::start_tls(&authority.issue_expired(NAMES), &trusted);
    assert_eq!(
        failure(&trusting(&server.url("postgres", "localhost"), &trusted)).await,
        "connection to Postgres: the certificate of the server expired at 2020-01-02T00:00:00Z; \
         renew it at the server"
    );
}

#[tokio::test]
async fn a_server_that_rejects_the_client_certificate_is_an_error_that_says_so() {
    let authority = TestAuthority::create();
    let trusted = authority.certificate();
    let server = TestPostgres::start_tls(&authority.issue(NAMES), &trusted);
    let admin = trusting(&server.url("postgres", "localhost"), &trusted);
    let mut session = PgConnection::connect(&admin).await.unwrap();
    sqlx::query("CREATE ROLE certified LOGIN PASSWORD 'postgres'")
        .execute(&mut session)
        .await
        .unwrap();
    let url = trusting(&server.url("certified", "localhost"), &trusted);
    let missing = failure(&url).await;
    assert_eq!(
        missing,
        "Postgres: SQLSTATE 28000: Postgres rejects the user, or how it connects: TLS, client \
         certificate or address (pg_hba.conf); correct them"
    );
    let with = |certificate: &shared::testing::TestCertificate| {
        let (certificate, key) = (&certificate.certificate, &certificate.key);
        let (certificate, key) = (certificate.display(), key.display());
        format!("{url}&sslcert={certificate}&sslkey={key}")
    };
    connect(&with(&authority.issue("DNS:worker")))
        .now()
        .await
        .unwrap();
    let expired = failure(&with(&authority.issue_expired("DNS:worker"))).await;
    assert_eq!(
        expired,
        "connection to Postgres: the server reports an expired client certificate; renew it \
         (sslcert and sslkey in DATABASE_URL)"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_an_error_that_says_so() {
    let database = TestDatabase::empty().await;
    assert_eq!(
        failure(&format!("{}?sslmode=require", database.url)).await,
        "connection to Postgres: the server offers no TLS, which sslmode in DATABASE_URL requires"
    );
}

#[tokio::test]
async fn new_connections_use_a_replaced_password_and_open_ones_stay() {
    let (database, folder) = (TestDatabase::empty().await, TestAuthority::create());
    let role = format!("role_{}", Uuid::new_v4().simple());
    database
        .execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'old'"))
        .await;
    let (_, address) = database.url.rsplit_once('@').unwrap();
    let url = |password: &str| format!("postgres://{role}:{password}@{address}");
    let file = folder.file("url");
    fs::write(&file, url("old")).unwrap();
    let config = config::Database {
        url: url("old"),
        url_file: Some(file.clone()),
        max_connections: 1,
        timeout: Some(Duration::from_secs(10)),
        ..config::Database::default()
    };
    let postgres = Postgres::new(&config.url, &config, Role::Api).unwrap();
    postgres.now().await.unwrap();
    database
        .execute(&format!("ALTER ROLE {role} PASSWORD 'new'"))
        .await;
    postgres.now().await.unwrap();
    let cut =
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
    database.execute(&cut).await;
    eventually("a rejected password", async || {
        let error = postgres.now().await.err()?;
        (error.sqlstate() == Some("28P01")).then_some(())
    })
    .await;
    fs::write(&file, url("new")).unwrap();
    eventually("a connection with the new password", async || {
        postgres.now().await.ok().map(drop)
    })
    .await;
    drop(postgres);
    database.execute(&cut).await;
    database.execute(&format!("DROP ROLE {role}")).await;
}
