"""What queues do with messages that fail or find no room, as aio-pika sees it."""
import asyncio
from collections import Counter

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aiormq.exceptions import DeliveryError

from talk import NAME, URL, count, expect, ok, run


def message(body, **kw):
    return Message(body, delivery_mode=DeliveryMode.PERSISTENT, **kw)


async def taken(queue, **kw):
    """The next message of `queue`, waited for."""
    async with asyncio.timeout(20):
        while (m := await queue.get(fail=False, **kw)) is None:
            await asyncio.sleep(0.005)
        return m


async def dead_letters():
    async with await aio_pika.connect(URL) as conn:
        ch = await conn.channel()
        letters = await ch.declare_exchange(NAME + ".letters", ExchangeType.DIRECT, durable=True)
        dead = await ch.declare_queue(NAME + ".dead", durable=True)
        await dead.bind(letters, "failed")
        work = await ch.declare_queue(NAME + ".work", durable=True, arguments={
            "x-dead-letter-exchange": letters.name, "x-dead-letter-routing-key": "failed"})

        await ch.default_exchange.publish(message(b"rejected"), work.name)
        await (await taken(work)).reject(requeue=False)
        m = await taken(dead, no_ack=True)
        expect((m.body, m.exchange, m.routing_key), (b"rejected", letters.name, "failed"), "dead letter")
        [death] = m.headers["x-death"]
        expect((death["queue"], death["reason"], death["exchange"], death["routing-keys"], death["count"]),
               (work.name, "rejected", "", [work.name], 1), "x-death")

        loop = asyncio.get_running_loop()
        begun = loop.time()
        await ch.default_exchange.publish(message(b"expired", expiration=0.3), work.name)
        m = await taken(dead, no_ack=True)
        if loop.time() - begun < 0.3:
            raise AssertionError("it expired before its time")
        [death] = m.headers["x-death"]
        expect((m.body, m.expiration, death["reason"], death["original-expiration"]), (b"expired", None, "expired", "300"),
               "dead letter")

        for queue in work, dead:
            await queue.delete()
        await letters.delete()
    ok("dead letters")


async def delivery_limit():
    async with await aio_pika.connect(URL) as conn:
        ch = await conn.channel()
        await ch.set_qos(prefetch_count=1)
        dead = await ch.declare_queue(NAME + ".failed", durable=True)
        work = await ch.declare_queue(NAME + ".limited", durable=True, arguments={
            "x-queue-type": "quorum", "x-delivery-limit": 3,
            "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name})
        await ch.default_exchange.publish(message(b"bad"), work.name)
        await ch.default_exchange.publish(message(b"good"), work.name)
        seen = {b"bad": [], b"good": []}
        done = asyncio.Event()

        async def handle(m):
            seen[m.body].append(m.headers.get("x-delivery-count"))
            try:
                async with m.process(requeue=True):  # requeued when the block is left by an exception
                    if m.body == b"bad":
                        raise ValueError("on purpose")
            except ValueError:
                return
            done.set()

        tag = await work.consume(handle)
        m = await taken(dead, no_ack=True)
        await done.wait()
        await work.cancel(tag)
        expect(seen, {b"bad": [None, 1, 2, 3], b"good": [None]}, "x-delivery-count")
        expect((m.body, m.headers["x-death"][0]["reason"]), (b"bad", "delivery_limit"), "dead letter")
        for queue in work, dead:
            await queue.delete(if_unused=False, if_empty=False)  # RabbitMQ's quorum queues know no conditions
    ok("delivery limit")


async def priorities():
    async with await aio_pika.connect(URL) as conn:
        ch = await conn.channel()
        queue = await ch.declare_queue(NAME + ".priorities", durable=True, arguments={"x-max-priority": 5})
        for n in range(60):
            await ch.default_exchange.publish(message(b"%d" % n, priority=n % 6), queue.name)
        got = []
        async with queue.iterator() as messages:
            async for m in messages:
                got.append((m.priority, int(m.body)))
                await m.ack()
                if len(got) == 60:
                    break
        expect(got, sorted(((n % 6, n) for n in range(60)), key=lambda m: (-m[0], m[1])), "order")
        await queue.delete()
    ok("priorities")


async def single_active_consumer():
    """The active consumer's connection ends, the next in line goes on."""
    async with await aio_pika.connect(URL) as conn:
        ch = await conn.channel()
        queue = await ch.declare_queue(NAME + ".single", durable=True, arguments={"x-single-active-consumer": True})
        consumers = []
        for _ in range(2):
            each = await aio_pika.connect(URL)
            channel = await each.channel()
            await channel.set_qos(prefetch_count=10)
            got = asyncio.Queue()
            await (await channel.get_queue(queue.name)).consume(got.put)
            consumers.append((each, got))
        for n in range(30):
            await ch.default_exchange.publish(message(b"%d" % n), queue.name)
        (first, of_first), (second, of_second) = consumers
        for n in range(10):
            m = await of_first.get()
            expect(m.body, b"%d" % n, "message of the first")
            if n < 4:
                await m.ack()
        for _ in range(4):
            await of_first.get()
        expect(of_second.qsize(), 0, "messages of the second")
        await first.close()
        for n in range(4, 30):
            m = await of_second.get()
            expect((m.body, m.redelivered), (b"%d" % n, n < 14), "message of the second, and whether the first had it")
            await m.ack()
        await second.close()
        await queue.delete()
    ok("single active consumer")


async def refused():
    async with await aio_pika.connect(URL) as conn:
        ch = await conn.channel(publisher_confirms=True)
        queue = await ch.declare_queue(NAME + ".full", durable=True, arguments={
            "x-max-length": 10, "x-overflow": "reject-publish"})
        answers = await asyncio.gather(
            *(ch.default_exchange.publish(message(b"%d" % n), queue.name) for n in range(15)), return_exceptions=True)
        expect([isinstance(a, DeliveryError) for a in answers], [False] * 10 + [True] * 5, "nacks")
        expect(await count(conn, queue.name), 10, "messages")
        await queue.purge()
        await ch.default_exchange.publish(message(b"there is room again"), queue.name)
        await queue.delete(if_unused=False, if_empty=False)
    ok("refused publishings")


async def consistent_hash():
    async with await aio_pika.connect(URL) as conn:
        ch = await conn.channel()
        # by a header instead of the routing key
        exchange = await ch.declare_exchange(
            NAME + ".hash", ExchangeType.X_CONSISTENT_HASH, durable=True, arguments={"hash-header": "customer"})
        queues = [await ch.declare_queue(f"{NAME}.share{n}", durable=True) for n in range(4)]
        for queue in queues:
            await queue.bind(exchange, "10")
        total = 1000
        await asyncio.gather(
            *(exchange.publish(message(b"", headers={"customer": f"customer-{n % (total // 2)}"}), "") for n in range(total)))
        homes = Counter()
        for queue in queues:
            customers = Counter()
            while (m := await queue.get(fail=False, no_ack=True)) is not None:
                customers[m.headers["customer"]] += 1
            expect(set(customers.values()), {2}, "how often each customer is in its queue")
            homes.update(customers.keys())
            if not 60 < len(customers) < 200:
                raise AssertionError(f"{len(customers)} of 500 customers are in one of four queues")
        expect((len(homes), set(homes.values())), (total // 2, {1}), "customers, and in how many queues each is")
        for queue in queues:
            await queue.delete()
        await exchange.delete()
    ok("consistent hash")


run(dead_letters, delivery_limit, priorities, single_active_consumer, refused, consistent_hash)
