"""Celery where tasks fail, wait and overtake each other: acks_late and a killed worker, reject_on_worker_lost,
a quorum queue that has had enough of a task, priorities, ETAs, retries. Results by rpc://."""
import datetime
import os
import sys
import time

import workers
from workers import connect, expect, ok, until

LIMIT = 60
LATE_MAX = 20  # s; a machine may have other things to do


class Run(workers.Run):
    def __init__(self, scratch):
        super().__init__(scratch)
        from failing import make

        self.apps = {kind: make(kind, f"{self.name}.{kind}") for kind in ("late", "priority", "limited")}

    def notes(self, name):
        path = os.path.join(self.scratch, name + ".notes")
        if not os.path.exists(path):
            return []
        with open(path) as f:
            return f.read().splitlines()

    def start(self, kind, name):
        env = {"CLIENT_KIND": kind, "CLIENT_QUEUE": f"{self.name}.{kind}",
               "CLIENT_NOTES": os.path.join(self.scratch, kind + ".notes")}
        return self.worker(name, "failing", env, "-c", "1")

    def send(self, kind, task, *args, **options):
        return self.apps[kind].send_task("failing." + task, args, **options)

    def main(self):
        given = [(n * 7) % 11 for n in range(44)]
        backlog = [self.send("priority", "noted", str(n), priority=p) for n, p in enumerate(given)]
        # who would have a dead letter
        with connect() as connection:
            connection.channel().queue_declare(f"{self.name}.limited.dead", durable=True, auto_delete=False)

        late = {f"{self.name}.{name}@localhost": self.start("late", name) for name in ("one", "two")}
        limited, priority = self.start("limited", "limited"), self.start("priority", "priority")
        self.ready(*late.values(), limited, priority)
        ok("workers ready")

        self.in_order(backlog, given)
        ok("priorities")

        dies = self.send("limited", "die")
        waits = self.waiting()
        survivor = self.killed_worker(late)
        ok("acks_late: a task of a killed worker goes to another one")

        expect(self.send("late", "die_once").get(timeout=20), True, "redelivered")
        ok("reject_on_worker_lost")

        self.had_enough(dies)
        ok("delivery limit of a quorum queue")

        for result, due in waits:
            ran = result.get(timeout=20)
            if not due <= ran < due + LATE_MAX:
                raise AssertionError(f"it ran {ran - due:.3f} s after its time")
        ok("countdown and eta")

        expect([self.retried[task].get(timeout=20) for task in ("again", "flaky")], [2, 2], "retries")
        ok("retry and autoretry_for")

        self.stop(survivor, limited, priority)
        ok("workers shut down")

    def in_order(self, backlog, given):
        for result in backlog:
            result.get(timeout=30)
        wanted = sorted(range(len(given)), key=lambda n: -given[n])  # in order within a priority
        expect([int(n) for n in self.notes("priority")], wanted, "order")

    def waiting(self):
        """Tasks for later, and others that are tried again, each with when it is due."""
        self.retried = {task: self.send("limited", task) for task in ("again", "flaky")}
        waits = []
        for _ in range(10):
            sent = time.time()
            waits.append((self.send("limited", "when", countdown=3), sent + 3))
        eta = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=2.5)
        waits.append((self.send("limited", "when", eta=eta), eta.timestamp()))
        return waits

    def killed_worker(self, late):
        """Kills the worker that has the task; the other one's process is what comes back."""
        held = self.send("late", "hold")
        [first] = until(lambda: self.notes("late"), "the task runs")
        self.kill(late.pop(first))
        [(second, survivor)] = late.items()
        expect(held.get(timeout=20), second, "who has the task now")
        expect(self.notes("late"), [first, second], "who had the task")
        return survivor

    def had_enough(self, dies):
        dead = f"{self.name}.limited.dead"
        with connect() as connection:
            channel = connection.channel()
            message = until(lambda: channel.basic_get(dead, no_ack=True), "dead letter")
            headers = message.headers
            expect((headers["id"], headers["task"]), (dies.id, "failing.die"), "dead letter")
            [death] = headers["x-death"]
            expect((death["reason"], death["queue"]), ("delivery_limit", f"{self.name}.limited"), "x-death")
        expect(self.notes("limited"), ["dies False", "dies True", "dies True"], "attempts")
        expect(self.send("limited", "add", 20, 22).get(timeout=20), 42, "the worker goes on")

    def delete(self):
        """Deletes the queues and exchanges of this run; Celery's shared exchanges stay."""
        with connect() as connection:
            channel = connection.channel()
            for kind in self.apps:
                channel.queue_delete(f"{self.name}.{kind}")
                channel.exchange_delete(f"{self.name}.{kind}")
            channel.queue_delete(f"{self.name}.limited.dead")


if __name__ == "__main__":
    sys.exit(workers.play(Run, LIMIT))
