// Replaces content that has changed: marks the new values, and keeps focus and typed text.

/** Text of each element that has a `data-key`. */
const values = (root) => new Map([...root.querySelectorAll("[data-key]")].map((one) => [one.dataset.key, one.textContent]));

/** Marks the elements of `root` whose value differs from `before`. Returns their number. */
function mark(root, before) {
  const changed = [...root.querySelectorAll("[data-key]")].filter((one) => before.get(one.dataset.key) !== one.textContent);
  changed.forEach((one) => one.classList.add("fresh"));
  return changed.length;
}

/** Replaces `old` by `fresh`. Returns how many values have changed. Elements with the same `data-focus` keep the focus. */
export function replaceMarked(old, fresh) {
  const active = old.contains(document.activeElement) ? document.activeElement : undefined;
  const name = active?.dataset.focus;
  const changed = mark(fresh, values(old));
  old.replaceWith(fresh);
  const next = name && fresh.querySelector(`[data-focus="${name}"]`);
  if (next) {
    next.focus({ preventScroll: true });
    if (active.selectionStart !== undefined && next.setSelectionRange) {
      next.setSelectionRange(active.selectionStart, active.selectionEnd);
    }
  }
  return changed;
}
