"""Uses the generated Python client against a running api. `scripts/clients-test` runs it."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx
from httpx_sse import EventSource
from order_client import Client
from order_client.api.orders import batch_get_orders, export_orders, get_order, list_orders
from order_client.models import BatchGetRequest, Order, OrderBatch, OrderList, Problem, ProblemCode

# Longer than any request of this test takes on a busy machine.
TIMEOUT = httpx.Timeout(30)

expected = json.load(open(os.environ["ORDERS_FILE"], encoding="utf-8"))
steady = [Order.from_dict(order) for order in expected["steady"]]
client = Client(base_url=os.environ["API_URL"], timeout=TIMEOUT, raise_on_unexpected_status=True)


def check(condition: bool, found: object) -> None:
    """Fails with what was found instead."""
    if not condition:
        sys.exit(f"python: unexpected: {found!r}")


def gets_an_order() -> str:
    order = get_order.sync(steady[0].order_uid, client=client)
    check(order == steady[0] and order.payment.amount > 2**53, order)
    return f"amount {order.payment.amount}, {len(order.items)} items"


def gets_a_typed_error() -> str:
    codes = []
    for uid, status, code in [
        ("unknown", HTTPStatus.NOT_FOUND, ProblemCode.ORDER_NOT_FOUND),
        (expected["erased"], HTTPStatus.GONE, ProblemCode.ORDER_ERASED),
        ("not a uid", HTTPStatus.BAD_REQUEST, ProblemCode.MALFORMED_UID),
    ]:
        answer = get_order.sync_detailed(uid, client=client)
        problem = answer.parsed
        check(answer.status_code == status, answer)
        check(isinstance(problem, Problem) and problem.code == code, problem)
        codes.append(f"{problem.status} {problem.code.value}")
    return ", ".join(codes)


def revalidates_a_copy() -> str:
    uid = steady[1].order_uid
    first = get_order.sync_detailed(uid, client=client)
    again = get_order.sync_detailed(uid, client=client, if_none_match=first.headers["ETag"])
    check(again.status_code == HTTPStatus.NOT_MODIFIED and again.parsed is None, again)
    return f"304 for {first.headers['ETag']}"


def reads_all_pages() -> str:
    uids: list[str] = []
    pages, more = 0, {}
    while True:
        page = list_orders.sync(client=client, customer_id=expected["customer_id"], limit=10, **more)
        check(isinstance(page, OrderList), page)
        uids += [order.order_uid for order in page.orders]
        pages += 1
        if not page.next_cursor:
            break
        more = {"cursor": page.next_cursor}
    wanted = sorted([order.order_uid for order in steady] + [expected["changing"]])
    check(sorted(uids) == wanted, uids)
    return f"{len(uids)} orders in {pages} pages"


def gets_a_batch() -> str:
    wanted = steady[:3]
    uids = [order.order_uid for order in wanted]
    body = BatchGetRequest(order_uids=[*uids, "unknown", expected["erased"], uids[0]])
    batch = batch_get_orders.sync(client=client, body=body)
    check(isinstance(batch, OrderBatch), batch)
    check(batch.orders == wanted, batch.orders)
    check((batch.missing, batch.erased) == (["unknown"], [expected["erased"]]), batch)
    problem = batch_get_orders.sync(client=client, body=BatchGetRequest(order_uids=["a", "b c"]))
    check(isinstance(problem, Problem) and "order_uids[1]" in problem.detail, problem)
    return f"{len(batch.orders)} orders, missing {batch.missing}, 1 erased"


def exports() -> str:
    # The generated function has no streaming, so the export uses its httpx client.
    lines: list[str] = []
    query = {"customer_id": expected["customer_id"]}
    with client.get_httpx_client().stream(
        "GET", "/orders/export", params=query, headers={"Accept": "application/x-ndjson"}
    ) as answer:
        check(answer.status_code == HTTPStatus.OK, answer)
        lines = list(answer.iter_lines())
    orders = {order.order_uid: order for order in map(Order.from_dict, map(json.loads, lines))}
    check(len(orders) == len(steady) + 1, len(orders))
    check(all(orders[order.order_uid] == order for order in steady), orders)
    as_csv = client.with_headers({"Accept": "text/csv"})
    csv = export_orders.sync(client=as_csv, customer_id=expected["customer_id"])
    check(isinstance(csv, str) and len(csv.splitlines()) == len(steady) + 2, csv)
    return f"{len(lines)} documents, {len(csv.splitlines())} lines of CSV"


@contextmanager
def events(path: str) -> Iterator[EventSource]:
    with client.get_httpx_client().stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
        check(answer.status_code == HTTPStatus.OK, answer)
        yield EventSource(answer)


def watches_an_order() -> str:
    versions: list[str] = []
    carriers: list[str] = []
    with events(f"/order/{expected['changing']}/events") as source:
        for event in source.iter_sse():
            if not event.data:
                # The pause before a reconnection.
                continue
            check(event.event == "order", event)
            order = Order.from_dict(json.loads(event.data))
            check(order.order_uid == expected["changing"], order)
            versions.append(event.id)
            carriers.append(order.delivery_service)
            if len(versions) == 3:
                break
    check(versions == sorted(set(versions)), versions)
    return f"{', '.join(carriers)}, versions ascend"


def watches_all_orders() -> str:
    changes = 0
    with events("/orders/events") as source:
        for event in source.iter_sse():
            if event.event == "change" and expected["changing"] in event.data:
                changes += 1
            if changes == 2:
                break
    return f"{changes} changes of one order"


CHECKS: list[Callable[[], str]] = [
    gets_an_order,
    gets_a_typed_error,
    revalidates_a_copy,
    reads_all_pages,
    gets_a_batch,
    exports,
    watches_an_order,
    watches_all_orders,
]

for each in CHECKS:
    print(f"python: {each.__name__}: {each()}", flush=True)
