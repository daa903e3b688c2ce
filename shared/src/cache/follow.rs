//! Follows `REDIS_URL_FILE` and the certificate files: new connections use their present content.

use std::sync::{Arc, Weak};

use tokio::{runtime::Handle, task::spawn_blocking, time::sleep};

use super::{Inner, access::Access};
use crate::replaced::{self, Files};

/// Follows the files in the background until the cache is dropped. Does nothing if there are no
/// files.
pub(super) fn start(cache: &Arc<Inner>, access: Access) {
    let files = Files::new(access.files());
    if files.is_empty() {
        return;
    }
    // Without a runtime nothing connects either.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(follow(Arc::downgrade(cache), access, files));
    }
}

async fn follow(cache: Weak<Inner>, access: Access, mut files: Files) {
    // Whether the content was replaced and is not in use yet.
    let mut pending = false;
    let mut reported = false;
    loop {
        sleep(replaced::INTERVAL).await;
        let Some(cache) = cache.upgrade() else {
            return;
        };
        let access = access.clone();
        let look = spawn_blocking(move || {
            let changed = files.changed();
            let clients = (pending || changed).then(|| access.clients());
            (files, changed, clients)
        });
        // Only the end of the runtime cancels the call.
        let Ok((same, changed, clients)) = look.await else {
            return;
        };
        files = same;
        reported &= !changed;
        let Some(clients) = clients else {
            continue;
        };
        let replaced = match clients {
            Ok(clients) => cache
                .connections
                .replace(clients)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        pending = replaced.is_err();
        match replaced {
            Ok(()) => tracing::info!("files of Redis replaced; new connections use them"),
            Err(error) if !reported => {
                reported = true;
                tracing::warn!(
                    error,
                    "replaced files of Redis do not work yet; keeping the open connections"
                );
            }
            Err(_) => {}
        }
    }
}
