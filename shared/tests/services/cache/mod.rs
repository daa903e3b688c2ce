//! The cache in Redis: entries, announcements, outages, state.

mod announcements;
mod cluster;
mod entries;
mod forgeries;
mod inspect;
mod moves;
mod outages;
mod reads;
mod shapes;
mod state;
mod tls;

use std::time::Instant;

use shared::{
    cache::{Cache, WriteOutcome},
    order::{DocumentVersion, Revision},
};

use super::{order, revision, uid, version};

fn erased(text: &str, offset: i64) -> Revision {
    Revision {
        uid: uid(text),
        version: version(offset),
        document: None,
    }
}

async fn write(cache: &Cache, revision: &Revision) -> WriteOutcome {
    let results = cache
        .write_batch(std::slice::from_ref(revision), Instant::now())
        .await;
    results.into_iter().next().unwrap().unwrap()
}

/// Returns the version of a document that this program writes.
fn document_version(offset: i64) -> DocumentVersion {
    DocumentVersion::current(version(offset))
}
