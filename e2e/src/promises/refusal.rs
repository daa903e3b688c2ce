//! A database that rejects orders that pass all our rules.

use shared::order::{Order, Reason};

use crate::{postgres::Database, record::Draft};

/// The amount that the constraint of [`refuse`] rejects.
const REFUSED_AMOUNT: i64 = 424_242;

/// Makes the database reject [`refused`] orders.
pub(super) fn refuse(database: &Database) {
    database.execute(&format!(
        "ALTER TABLE payments ADD CONSTRAINT e2e CHECK (amount <> {REFUSED_AMOUNT})"
    ));
}

/// Makes the database reject every order.
pub(super) fn refuse_all(database: &Database) {
    database.execute("ALTER TABLE payments ADD CONSTRAINT e2e CHECK (amount < 0) NOT VALID");
}

/// Ends [`refuse`] or [`refuse_all`].
pub(super) fn accept(database: &Database) {
    database.execute("ALTER TABLE payments DROP CONSTRAINT e2e");
}

/// Returns the order in a form that the database rejects.
pub(super) fn refused(mut order: Order) -> (Order, Draft) {
    order.payment.amount = REFUSED_AMOUNT;
    let draft = Draft::order(&order).but_refused(Reason::RejectedByDatabase);
    (order, draft)
}
