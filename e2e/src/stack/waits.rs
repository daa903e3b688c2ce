//! Waits for a state of a private system.

use super::running::Stack;
use crate::{http::Http, ledger::Ledger, postgres::COUNT_ORDERS, redis::entries, wait::until};

/// Results of a worker's comparison that are faults.
const DIFFERENCES: [&str; 6] = [
    "stale",
    "ahead",
    "different",
    "orphaned",
    "foreign",
    "incomplete",
];

impl Stack {
    /// Returns the number of records that the group has finished, and the number of all records.
    #[track_caller]
    pub fn progress(&self) -> (i64, i64) {
        self.broker()
            .progress(&self.addresses.group_id, &self.addresses.topic)
    }

    /// Waits until the group has finished every record and no update is missing in Redis.
    #[track_caller]
    pub fn settle(&self) {
        let (group, topic) = (&self.addresses.group_id, &self.addresses.topic);
        let mut progress = self.broker().group_progress(group, topic);
        until("all records finished", || match progress.read() {
            (finished, all) if finished == all => Ok(()),
            (finished, all) => Err(format!("{finished} of {all} records finished")),
        });
        let database = self.database();
        until("no repair mark", || match database.repair_marks() {
            0 => Ok(()),
            marks => Err(format!("{marks} marks")),
        });
    }

    /// Asserts that no running worker has found a difference between Postgres and Redis, and that
    /// `worker verify` finds none between them and the topic.
    #[track_caller]
    pub fn assert_no_difference(&self) {
        for worker in &self.workers {
            for result in DIFFERENCES {
                let label = format!("result=\"{result}\"");
                let found = worker.admin.metric("consistency_checks_total", &label);
                assert_eq!(found, 0, "{result}: {}", worker.process.log());
            }
        }
        self.command("worker", &["verify", "--topic"]).succeeded();
    }

    /// Waits until Postgres holds this many orders.
    #[track_caller]
    pub fn await_orders(&self, count: usize) {
        let mut database = self.database().session();
        until(&format!("{count} orders in Postgres"), || {
            let found = database.number(COUNT_ORDERS) as usize;
            if found >= count {
                Ok(())
            } else {
                Err(format!("{found} orders"))
            }
        });
    }

    /// Waits until every replica answers every order in its newest version, and 410 for an erased
    /// order.
    #[track_caller]
    pub fn await_answers(&self, ledger: &Ledger) {
        let http = Http::new();
        for (api, (uid, state)) in self
            .apis
            .iter()
            .flat_map(|api| ledger.orders().into_iter().map(move |order| (api, order)))
        {
            let url = format!("{}/order/{uid}", api.url());
            until("the newest version of every order", || {
                let answer = http.get(&url);
                match (&state.json, answer.status) {
                    (Some(json), 200) if answer.body == *json => Ok(()),
                    (None, 410) => Ok(()),
                    (_, status) => Err(format!("{url}: {status}: {}", answer.text())),
                }
            });
        }
    }

    /// Waits until Redis holds the newest version of every order, or no entry.
    #[track_caller]
    pub fn await_redis(&self, ledger: &Ledger) {
        let orders = ledger.orders();
        until("Redis entries in the versions of Postgres", || {
            let found = entries(&self.addresses.redis_url).map_err(|error| error.to_string())?;
            let other = found.into_iter().find(|(uid, entry)| {
                entry.version() != orders.get(uid).map(|state| state.version.to_string())
            });
            other.map_or(Ok(()), |(uid, entry)| {
                Err(format!("{uid} in version {:?}", entry.version()))
            })
        });
    }

    /// Waits until every replica answers `GET /order/{uid}` with that status.
    #[track_caller]
    pub fn await_status(&self, uid: &str, status: u16) {
        for api in &self.apis {
            until(
                &format!("status {status} of order {uid} at {}", api.url()),
                || match api.order(uid) {
                    answer if answer.status == status => Ok(()),
                    answer => Err(format!("{}: {}", answer.status, answer.text())),
                },
            );
        }
    }
}
