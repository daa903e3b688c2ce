// The support page: finds an order, shows it, follows it, lists the newest ones. Each module has one concern; this one
// shows what the address says.

import { adoptQuery, parseAddress } from "./address.js";
import { $, h } from "./dom.js";
import * as list from "./list.js";
import { close, open, result } from "./order.js";
import { recent } from "./recent.js";
import { search } from "./search.js";
import * as session from "./session.js";

function welcome() {
  close();
  recent();
  document.title = "Orders";
  result.body.replaceChildren(h("div", { class: "welcome" }, h("h1", {}, "Find an order"),
    h("p", { class: "muted" }, "Paste an order uid, a track number, a customer id, a phone number or an e-mail address. "
      + "Words around it do no harm.")));
}

/** Shows the page of the address. */
function navigate(first) {
  const { uid, q, filter } = parseAddress(location.hash);
  $("q").value = uid ?? q ?? "";
  if (uid) open(uid);
  else if (q) search(q);
  else welcome();
  // The list keeps its filter while an order is open above it.
  if (filter || first) list.show(filter ?? {}, first);
}

adoptQuery();
addEventListener("hashchange", () => navigate(false));
session.start();
navigate(true);
list.followList();
