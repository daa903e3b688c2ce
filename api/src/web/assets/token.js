// The API key of this tab. Session storage ends with the tab, and other tabs do not see it.

const NAME = "token";

export const token = () => sessionStorage.getItem(NAME);

export function setToken(value) {
  if (value) sessionStorage.setItem(NAME, value);
  else sessionStorage.removeItem(NAME);
}

/** The header that `value` needs; empty without a key. */
export const authorization = (value = token()) => (value ? { Authorization: `Bearer ${value}` } : {});
