// Names of item statuses.

/**
 * Status number to name, such as `[202, "Delivered"]`. Neither the records nor the rules of an order define a name, so
 * the table is empty: add the numbers that the producers of your orders have defined.
 */
export const STATUS_NAMES = new Map([]);

/** "202 Delivered" for a number with a name, else the number. */
export function status(value, names = STATUS_NAMES) {
  const name = names.get(Number(value));
  return name ? `${value} ${name}` : String(value ?? "—");
}
