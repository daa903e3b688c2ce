//! A database that refuses what passes all our own rules.

use shared::order::{Order, Reason};

use crate::{postgres::Database, record::Draft};

/// The amount that [`refuse`] makes the database refuse.
const REFUSED_AMOUNT: i64 = 424_242;

/// From now on the database refuses [`refused`] orders.
pub(super) fn refuse(database: &Database) {
    database.execute(&format!(
        "ALTER TABLE payments ADD CONSTRAINT e2e CHECK (amount <> {REFUSED_AMOUNT})"
    ));
}

/// From now on the database refuses every order.
pub(super) fn refuse_all(database: &Database) {
    database.execute("ALTER TABLE payments ADD CONSTRAINT e2e CHECK (amount < 0) NOT VALID");
}

/// Ends either.
pub(super) fn accept(database: &Database) {
    database.execute("ALTER TABLE payments DROP CONSTRAINT e2e");
}

/// The order in the form that the database refuses.
pub(super) fn refused(mut order: Order) -> (Order, Draft) {
    order.payment.amount = REFUSED_AMOUNT;
    let draft = Draft::order(&order).but_refused(Reason::RejectedByDatabase);
    (order, draft)
}
