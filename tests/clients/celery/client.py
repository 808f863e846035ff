"""Celery as it comes: two workers (rpc:// results; file:// results for the chord), a producer that uses them,
and a look at what is left behind. `client.py` starts the workers and `client.py drive` (rpc) and
`client.py chord` (file) as processes of their own."""
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

LIMIT = 100
HERE = os.path.dirname(os.path.abspath(__file__))
step = "start"


def ok(name):
    global step
    print("ok", name, flush=True)
    step = "after " + name


def expect(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r:.500}, wanted {wanted!r:.500}")


def until(call, what, seconds=30):
    """The first true answer of `call`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = call()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


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

def die_with_parent():
    """Run in the new process: whoever kills this program gets rid of the workers too."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def connect():
    import kombu

    connection = kombu.Connection(os.environ["AMQP_URL"], connect_timeout=10)
    connection.ensure_connection(max_retries=1, timeout=10)
    return connection


class Run:
    def __init__(self):
        self.name = "clients.celery." + uuid.uuid4().hex
        self.processes = []
        self.rpc_queues = []

    def env(self, kind, scratch):
        backend = "rpc://" if kind == "rpc" else "file://" + scratch
        return dict(
            os.environ, CLIENT_QUEUE=f"{self.name}.{kind}", CLIENT_BACKEND=backend,
            CLIENT_NODE=f"{self.name}.{kind}@localhost", PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1",
        )

    def worker(self, kind, scratch):
        env = self.env(kind, scratch)
        log = open(os.path.join(scratch, kind + ".log"), "w")
        p = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "app", "worker", "-l", "info", "-c", "2", "-n", env["CLIENT_NODE"]],
            cwd=HERE, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=die_with_parent)
        p.log = log.name
        self.processes.append(p)
        return p

    def driver(self, kind, scratch):
        p = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "drive" if kind == "rpc" else "chord"],
            cwd=HERE, env=self.env(kind, scratch), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=die_with_parent)
        self.processes.append(p)
        for line in p.stdout:
            if line.startswith("rpc-queue "):
                self.rpc_queues.append(line.split()[1])
            else:
                print(line, end="", flush=True)
        if p.wait() != 0:
            raise AssertionError(f"the producer with {kind} results failed")

    def logged(self, worker, text):
        if worker.poll() is not None:
            raise AssertionError(f"the worker ended with {worker.returncode}")
        with open(worker.log) as f:
            return text in f.read()

    def main(self, scratch):
        connect().release()  # a worker would try for ever
        rpc, file = self.worker("rpc", scratch), self.worker("file", scratch)
        for w in rpc, file:
            until(lambda: self.logged(w, " ready."), "worker ready", 60)
        ok("two workers ready")  # with mingle and gossip

        self.driver("rpc", scratch)
        self.driver("file", scratch)

        rpc.send_signal(signal.SIGTERM)
        # by remote control; nobody answers that, so the exit code says nothing
        subprocess.run(
            [sys.executable, "-m", "celery", "-A", "app", "control", "-d", f"{self.name}.file@localhost", "shutdown"],
            cwd=HERE, env=self.env("file", scratch), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT, timeout=30)
        for w in rpc, file:
            expect(w.wait(timeout=30), 0, "the worker's exit code")
        for w in rpc, file:
            with open(w.log) as f:
                for line in f:
                    if "CRITICAL" in line or "consumer: Cannot connect" in line:
                        raise AssertionError(line)
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

    def show_logs(self):
        for p in self.processes:
            if hasattr(p, "log"):
                with open(p.log, errors="replace") as f:
                    print(f"--- {os.path.basename(p.log)}, its end\n{f.read()[-3000:]}", flush=True)

    def end(self):
        for p in self.processes:
            try:
                os.killpg(p.pid, signal.SIGKILL)  # the process group that we made
            except ProcessLookupError:
                pass
            p.wait()


def main():
    with tempfile.TemporaryDirectory(prefix="garenne-celery-") as scratch:
        run = Run()

        def too_late():
            print(f"FAILED {step}: not done within {LIMIT} s", flush=True)
            run.show_logs()
            run.end()
            os._exit(1)

        timer = threading.Timer(LIMIT, too_late)
        timer.daemon = True
        timer.start()
        try:
            run.main(scratch)
            run.delete()
        except BaseException as e:
            print(f"FAILED {step}: {type(e).__name__}: {e}", flush=True)
            run.show_logs()
            run.end()
            try:
                run.delete()
            except Exception as e:
                print(f"(not cleaned up: {e})", flush=True)
            return 1
        timer.cancel()
    return 0


if __name__ == "__main__":
    part = sys.argv[1] if len(sys.argv) > 1 else None
    if part is None:
        sys.exit(main())
    try:
        {"drive": drive, "chord": drive_chord}[part]()
    except BaseException as e:
        print(f"FAILED {step}: {type(e).__name__}: {e}", flush=True)
        sys.exit(1)
