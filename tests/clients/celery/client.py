"""Celery as it comes: two workers (rpc:// results; file:// results for the chord), a producer that uses them,
and a look at what is left behind. `client.py` starts the workers and `client.py drive` (rpc) and
`client.py chord` (file) as processes of their own."""
import os
import subprocess
import sys
import time

import workers
from workers import HERE, connect, die_with_parent, expect, ok, until

LIMIT = 100


# --- the producer with rpc:// results -----------------------------------------------------------------------------

def drive():
    from celery import chain, group
    from celery.exceptions import TaskRevokedError
    from app import add, app, fail, flaky

    node = os.environ["CLIENT_NODE"]
    print("rpc-queue", app.backend.binding.name, flush=True)

    # More held tasks than the worker's prefetch count (4 * 2): the worker raises its prefetch count for
    # each of them, else the tasks after them would have to wait.
    due = time.monotonic() + 25
    late = [add.apply_async((i, 1), countdown=25) for i in range(40)]
    expect(add.delay(20, 22).get(timeout=30), 42, "result")
    if time.monotonic() > due:
        raise AssertionError("a task waited for tasks that are due later: basic.qos of a running consumer had no effect")
    ok("countdown tasks do not hold up others")

    results = [add.delay(i, i) for i in range(1000)]
    expect([r.get(timeout=60) for r in results], [2 * i for i in range(1000)], "results")
    ok("1000 tasks")

    results = [flaky.delay(i % 3) for i in range(12)]
    expect([r.get(timeout=30) for r in results], [i % 3 for i in range(12)], "retries")
    try:
        fail.delay("on purpose").get(timeout=30)
        raise AssertionError("the failed task's exception is missing")
    except ValueError as e:
        expect(str(e), "on purpose", "exception")
    ok("retries and failures")

    expect(group(add.s(i, 1) for i in range(50))().get(timeout=30), list(range(1, 51)), "group")
    expect(chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=30), 10, "chain")
    ok("group and chain")

    expect(add.apply_async((1, 2), expires=60, priority=5).get(timeout=30), 3, "task with expiration and priority")
    ok("expiration and priority")

    inspect = app.control.inspect(destination=[node], timeout=10, limit=1)
    expect(inspect.ping(), {node: {"ok": "pong"}}, "ping")
    expect([q["name"] for q in inspect.active_queues()[node]], [app.conf.task_default_queue], "queues")
    expect("app.add" in inspect.registered()[node], True, "registered tasks")
    expect(inspect.stats()[node]["total"]["app.add"] >= 1000, True, "statistics")
    app.control.revoke(late[0].id, destination=[node])
    until(lambda: late[0].id in inspect.revoked()[node], "revoke")
    ok("remote control")

    with app.connection() as connection:
        seen = []
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        consumer = receiver.itercapture(limit=None, timeout=None, wakeup=False)
        next(consumer)  # the queue is declared and consumed from
        app.control.enable_events(destination=[node])
        task = add.delay(1, 1)
        wanted = {"task-received", "task-started", "task-succeeded"}
        for _ in consumer:
            if {e["type"] for e in seen if e.get("uuid") == task.id} >= wanted and any(
                    e["type"] == "worker-heartbeat" and e["hostname"] == node for e in seen):
                break
        app.control.disable_events(destination=[node])
        expect(task.get(timeout=30), 2, "result")
    ok("events")

    try:
        late[0].get(timeout=40)
        raise AssertionError("the revoked task ran")
    except TaskRevokedError:
        pass
    expect([r.get(timeout=40) for r in late[1:]], list(range(2, 41)), "countdown results")
    ok("countdown")


# --- the producer with file:// results ----------------------------------------------------------------------------

def drive_chord():
    from celery import chord
    from app import add, total

    expect(chord((add.s(i, i) for i in range(20)), total.s()).apply_async().get(timeout=40), 380, "chord")
    ok("chord")


# --- all of it ----------------------------------------------------------------------------------------------------

class Run(workers.Run):
    def __init__(self, scratch):
        super().__init__(scratch)
        self.rpc_queues = []

    def of(self, kind):
        backend = "rpc://" if kind == "rpc" else "file://" + self.scratch
        return {"CLIENT_QUEUE": f"{self.name}.{kind}", "CLIENT_BACKEND": backend,
                "CLIENT_NODE": f"{self.name}.{kind}@localhost"}

    def driver(self, kind):
        p = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "drive" if kind == "rpc" else "chord"],
            cwd=HERE, env=self.env(self.of(kind)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=die_with_parent)
        self.processes.append(p)
        for line in p.stdout:
            if line.startswith("rpc-queue "):
                self.rpc_queues.append(line.split()[1])
            else:
                print(line, end="", flush=True)
        if p.wait() != 0:
            raise AssertionError(f"the producer with {kind} results failed")

    def main(self):
        rpc, file = (self.worker(kind, "app", self.of(kind), "-c", "2") for kind in ("rpc", "file"))
        self.ready(rpc, file)
        ok("two workers ready")  # with mingle and gossip

        self.driver("rpc")
        self.driver("file")

        # by remote control; nobody answers that, so the exit code says nothing
        subprocess.run(
            [sys.executable, "-m", "celery", "-A", "app", "control", "-d", f"{self.name}.file@localhost", "shutdown"],
            cwd=HERE, env=self.env(self.of("file")), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT, timeout=30)
        self.stop(rpc)
        self.stopped(file)
        ok("workers shut down")

        self.leftovers()

    def leftovers(self):
        from amqp.exceptions import NotFound, ResourceLocked

        with connect() as connection:
            def messages(queue):
                """Messages and consumers of the queue, None if there is no such queue."""
                channel = connection.channel()
                try:
                    q = channel.queue_declare(queue, passive=True)
                    channel.close()
                    return q.message_count, q.consumer_count
                except NotFound:
                    return None
                except ResourceLocked:
                    return "locked"

            for kind in "rpc", "file":
                queue = f"{self.name}.{kind}"
                until(lambda: messages(queue) == (0, 0), f"the queue of {kind} without messages and consumers")
                node = f"{self.name}.{kind}@localhost"
                until(lambda: messages(node + ".celery.pidbox") is None, "no pidbox queue")
            for queue in self.rpc_queues:
                until(lambda: messages(queue) is None, "no queue for results")
            expect(len(self.rpc_queues), 1, "queues for results")
        ok("nothing left behind")

    def delete(self):
        """Deletes the queues and exchanges of this run; Celery's shared exchanges stay."""
        with connect() as connection:
            channel = connection.channel()
            for kind in "rpc", "file":
                channel.queue_delete(f"{self.name}.{kind}")
                channel.exchange_delete(f"{self.name}.{kind}")


if __name__ == "__main__":
    part = sys.argv[1] if len(sys.argv) > 1 else None
    if part is None:
        sys.exit(workers.play(Run, LIMIT))
    try:
        {"drive": drive, "chord": drive_chord}[part]()
    except BaseException as e:
        print(f"FAILED {workers.step}: {type(e).__name__}: {e}", flush=True)
        sys.exit(1)
