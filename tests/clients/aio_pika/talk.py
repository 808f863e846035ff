"""What the conversations in aio-pika share: steps, what is wanted, and the end in time."""
import asyncio
import os
import sys
import uuid

LIMIT = 60
URL = os.environ["AMQP_URL"]
NAME = "clients.aio_pika." + uuid.uuid4().hex
step = "start"


def ok(name):
    global step
    print("ok", name, flush=True)
    step = "after " + name


def expect(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.500}, wanted {wanted!r:.500}")


async def count(conn, queue):
    async with conn.channel() as ch:
        return (await ch.declare_queue(queue, passive=True)).declaration_result.message_count


def run(*conversations):
    """Has the conversations one after the other; the program's exit code says how they went."""
    async def all_of_them():
        for conversation in conversations:
            await conversation()

    try:
        asyncio.run(asyncio.wait_for(all_of_them(), LIMIT))
    except BaseException as e:
        print(f"FAILED {step}: {type(e).__name__}: {e}", flush=True)
        sys.exit(1)
