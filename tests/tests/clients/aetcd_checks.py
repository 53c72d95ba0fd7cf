"""Checks of aetcd against a running cluster: aetcd_checks.py CHECK PORT[,PORT...]

Each check is written as a user of aetcd writes code, and asserts what etcd promises.
"""

import asyncio
import io
import sys

import aetcd


async def keys(clients):
    client = clients[0]
    assert await client.get(b"none") is None
    await client.put(b"k", b"1")
    previous = await client.put(b"k", b"2", prev_kv=True)
    assert previous.prev_kv.value == b"1", previous
    found = await client.get(b"k")
    assert (found.value, found.version, found.mod_revision) == (b"2", 2, 3), found
    for name in (b"p/b", b"p/a", b"p/c"):
        await client.put(name, name)
    found = await client.get_prefix(b"p/", sort_order="descend", sort_target="key")
    assert [kv.key for kv in found] == [b"p/c", b"p/b", b"p/a"]
    found = await client.get_range(b"p/a", b"p/c")
    assert sorted(kv.key for kv in found) == [b"p/a", b"p/b"]
    assert len(list(await client.get_all())) == 4
    assert await client.delete(b"none") is None
    deleted = await client.delete(b"k", prev_kv=True)
    assert deleted.prev_kv.value == b"2", deleted
    await client.delete_prefix(b"p/")
    assert list(await client.get_all()) == []
    # A megabyte, as a value and back.
    await client.put(b"large", b"x" * 1_000_000)
    assert len((await client.get(b"large")).value) == 1_000_000


async def transactions(clients):
    client = clients[0]
    on = client.transactions
    await client.put(b"k", b"old")
    succeeded, responses = await client.transaction(
        compare=[on.value(b"k") == b"old", on.version(b"k") == 1, on.create(b"none") == 0],
        success=[on.put(b"k", b"new"), on.get(b"k"), on.delete(b"other")],
        failure=[on.put(b"k", b"wrong")],
    )
    assert succeeded and responses[1][0][0] == b"new", responses
    succeeded, responses = await client.transaction(
        compare=[on.mod(b"k") > 100], success=[on.put(b"k", b"wrong")], failure=[on.get(b"k")]
    )
    assert not succeeded and responses[0][0][0] == b"new", responses
    assert await client.replace(b"k", b"new", b"newer")
    assert not await client.replace(b"k", b"new", b"newest")
    # Of many who compare and swap at once, each round has one winner.
    winners = await asyncio.gather(
        *(client.replace(b"k", b"newer", b"%d" % number) for number in range(20))
    )
    assert sum(winners) == 1, winners


async def watches(clients):
    first, second = clients[0], clients[1]
    await first.put(b"w/0", b"past")
    watch = await first.watch_prefix(b"w/", start_revision=2, prev_kv=True)
    seen = []

    async def follow(watch, until):
        async for event in watch:
            seen.append((event.kind, event.kv.key, event.kv.value, event.kv.mod_revision))
            if event.kv.value == until:
                break

    for number in range(5):
        await second.put(b"w/%d" % number, b"now %d" % number)
    await asyncio.wait_for(follow(watch, b"now 4"), 20)
    await watch.cancel()
    # Nobody watches; then another member is asked for what follows the last event.
    await second.delete(b"w/1")
    await second.put(b"w/1", b"unseen so far")
    watch = await second.watch_prefix(b"w/", start_revision=seen[-1][3] + 1)
    await second.put(b"w/end", b"end")
    await asyncio.wait_for(follow(watch, b"end"), 20)
    await watch.cancel()
    revisions = [event[3] for event in seen]
    assert revisions == list(range(2, 11)), seen
    assert seen[6][0] == aetcd.EventKind.DELETE, seen

    deletes = await first.watch(b"w/1", kind=aetcd.EventKind.DELETE)
    await second.put(b"w/1", b"filtered")
    await second.delete(b"w/1")

    async def one(watch):
        async for event in watch:
            return event

    event = await asyncio.wait_for(one(deletes), 20)
    assert event.kind == aetcd.EventKind.DELETE, event
    await deletes.cancel()


async def leases(clients):
    granter, renewer = clients[0], clients[1]
    lease = await granter.lease(2)
    await granter.put(b"leased", b"v", lease=lease)
    for _ in range(8):
        renewed = await renewer.refresh_lease(lease.id)
        assert renewed.TTL == 2, renewed
        await asyncio.sleep(0.5)
    assert (await granter.get(b"leased")).lease == lease.id
    info = await renewer.get_lease_info(lease.id)
    assert (info.grantedTTL, list(info.keys)) == (2, [b"leased"]), info
    await asyncio.wait_for(renewer.watch_once(b"leased", timeout=20), 25)
    assert await granter.get(b"leased") is None
    lease = await granter.lease(60, lease_id=4711)
    assert lease.id == 4711
    await granter.put(b"leased", b"v", lease=lease)
    await lease.revoke()
    assert await renewer.get(b"leased") is None


async def locks(clients):
    inside, most, turns = 0, 0, 0

    async def worker(client):
        nonlocal inside, most, turns
        for _ in range(3):
            async with client.lock(b"mutex", ttl=30):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.02)
                inside -= 1
                turns += 1

    await asyncio.wait_for(asyncio.gather(*(worker(client) for client in clients)), 60)
    assert (most, turns) == (1, 3 * len(clients)), (most, turns)


async def maintenance(clients):
    client = clients[0]
    for number in range(10):
        await client.put(b"k", b"%d" % number)
    status = await client.status()
    assert status.version.startswith("3."), status.version
    assert status.leader.name == "m0", status.leader
    members = [member async for member in client.members()]
    assert [member.name for member in members] == ["m0"]
    await client.compact(5, physical=True)
    await client.defragment()
    assert await client.hash() != 0
    assert [alarm async for alarm in client.list_alarms()] == []
    saved = io.BytesIO()
    await client.snapshot(saved)
    assert len(saved.getvalue()) > 0
    try:
        await client.put(b"", b"v")
    except aetcd.ClientError:
        pass
    else:
        raise AssertionError("an empty key was accepted")


async def main(check, ports):
    clients = [aetcd.Client(host="127.0.0.1", port=int(port), timeout=20) for port in ports]
    try:
        await check(clients)
    finally:
        for client in clients:
            await client.close()


if __name__ == "__main__":
    CHECKS = (keys, transactions, watches, leases, locks, maintenance)
    chosen = {check.__name__: check for check in CHECKS}[sys.argv[1]]
    asyncio.run(main(chosen, sys.argv[2].split(",")))
