//! `worker migrate`: applies or reverts migrations.

use clap::Args;
use shared::{
    config,
    runtime::{command, output},
    storage::schema::{self, Migrated, Revert},
};

/// Whether to revert migrations.
#[derive(Args, Debug)]
pub struct Migrate {
    /// Revert the newest N migrations instead.
    ///
    /// Stop every worker first. While a table is missing, api replicas are not ready and return
    /// only cached orders.
    #[arg(long, value_name = "N", value_parser = command::number::<usize>)]
    down: Option<usize>,
    /// Allow --down to drop every order.
    #[arg(long, requires = "down")]
    yes_drop_orders: bool,
}

/// Runs `worker migrate`.
///
/// # Errors
/// When a variable is invalid, Postgres does not answer, a migration fails, or a revert is
/// rejected.
pub async fn run(migrate: &Migrate) -> anyhow::Result<()> {
    let database: config::Database = config::load("DATABASE_")?;
    let Migrated { from, to } = match migrate.down {
        None => schema::migrate(&database.url).await?,
        Some(steps) => {
            let drop_orders = migrate.yes_drop_orders;
            schema::migrate_down(&database.url, steps, drop_orders, announce).await?
        }
    };
    output::line(match from == to {
        true => format!("schema version {to}: nothing to do"),
        false => format!("schema version {from} -> {to}"),
    })
}

/// Prints what a revert is about to do.
fn announce(revert: &Revert) {
    let drops = match revert.drops_orders {
        true => "; this drops every order",
        false => "",
    };
    let (reverted, applied) = (revert.migrations.len(), revert.applied);
    output::note(format!(
        "reverting {reverted} of {applied} migrations{drops}"
    ));
    for (version, description) in &revert.migrations {
        output::note(format!("  {version} {description}"));
    }
}
