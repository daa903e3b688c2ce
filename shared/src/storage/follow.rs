//! Follows the files that decide how to connect to Postgres: new connections use their present
//! content, and connections that are open stay.

use std::path::Path;

use sqlx::postgres::PgConnectOptions;
use tokio::{task::JoinHandle, time::sleep};

use super::database_url::Source;
use crate::replaced::{self, Files};

/// The task that follows the files. Dropping this value ends it.
pub(super) struct Following(Option<JoinHandle<()>>);

impl Following {
    /// Calls `apply` with the options of each replaced URL. sqlx itself reads the certificate files
    /// at each connection, so of these only a defect is logged.
    pub(super) fn start(source: Source, apply: impl Fn(PgConnectOptions) + Send + 'static) -> Self {
        let files = watched(&source);
        Self((!files.is_empty()).then(|| tokio::spawn(follow(source, files, apply))))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

fn watched(source: &Source) -> Files {
    let files = source.files();
    Files::new(files.iter().map(|file| -> &Path { file }))
}

async fn follow(
    mut source: Source,
    mut files: Files,
    apply: impl Fn(PgConnectOptions) + Send + 'static,
) {
    loop {
        sleep(replaced::INTERVAL).await;
        // Reading a file blocks.
        let look = tokio::task::spawn_blocking(move || {
            let read = files.changed().then(|| {
                // The new URL may name other files. A change after this line is seen next time.
                let read = source.read_again();
                files = watched(&source);
                read.and_then(|()| source.read_again())
                    .and_then(|()| source.connect_options())
            });
            (source, files, read)
        });
        // Only the end of the runtime cancels the call.
        let Ok((same, seen, read)) = look.await else {
            return;
        };
        (source, files) = (same, seen);
        match read {
            None => {}
            Some(Ok(options)) => {
                tracing::info!("files of Postgres replaced; new connections use them");
                apply(options);
            }
            Some(Err(error)) => tracing::error!(
                %error,
                "replaced files of Postgres cannot be used; keeping the previous settings"
            ),
        }
    }
}
