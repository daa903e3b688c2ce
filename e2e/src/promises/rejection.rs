//! A database that rejects orders that pass all our rules.

use shared::order::{Order, Reason};

use crate::{postgres::Database, record::Draft};

/// The amount that the constraint of [`reject`] rejects.
const REJECTED_AMOUNT: i64 = 424_242;

/// Makes the database reject [`rejected`] orders.
pub(super) fn reject(database: &Database) {
    database.execute(&format!(
        "ALTER TABLE payments ADD CONSTRAINT e2e CHECK (amount <> {REJECTED_AMOUNT})"
    ));
}

/// Makes the database reject every order.
pub(super) fn reject_all(database: &Database) {
    database.execute("ALTER TABLE payments ADD CONSTRAINT e2e CHECK (amount < 0) NOT VALID");
}

/// Ends [`reject`] or [`reject_all`].
pub(super) fn accept(database: &Database) {
    database.execute("ALTER TABLE payments DROP CONSTRAINT e2e");
}

/// Returns the order in a form that the database rejects.
pub(super) fn rejected(mut order: Order) -> (Order, Draft) {
    order.payment.amount = REJECTED_AMOUNT;
    let draft = Draft::order(&order).but_rejected(Reason::RejectedByDatabase);
    (order, draft)
}
