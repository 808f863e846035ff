"""Celery's native delayed delivery: quorum queues, and 28 of them in which tasks wait, a second in the first and twice
as long in each that follows. No worker holds a task that is not due."""
import datetime
import os
import re
import sys
import time

import workers
from workers import connect, expect, ok

LIMIT = 60
SECONDS = [1, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8] * 3
LATE_MAX = 20  # s; most are there within milliseconds, but a machine may have other things to do


class Run(workers.Run):
    def __init__(self, scratch):
        super().__init__(scratch)
        from failing import make

        self.queue = f"{self.name}.delayed"
        self.app = make("delayed", self.queue)

    def send(self, task, *args, **options):
        return self.app.send_task("failing." + task, args, **options)

    def main(self):
        env = {"CLIENT_KIND": "delayed", "CLIENT_QUEUE": self.queue, "CLIENT_NOTES": os.devnull}
        worker = self.worker("delayed", "failing", env, "-c", "2")
        self.ready(worker)
        with connect() as connection:
            for level in range(28):
                connection.channel().queue_declare(f"celery_delayed_{level}", passive=True)
        ok("worker ready, with its queues for delays")

        expect(self.send("add", 20, 22).get(timeout=20), 42, "a task without a delay")
        waits = []
        for seconds in SECONDS:
            due = time.time() + seconds
            waits.append((self.send("when", countdown=seconds), due))
        retried = [self.send("again"), self.send("flaky")]
        expect(self.waiting(2) > 0, True, "tasks of more than four seconds in their first queue")
        expect(self.send("add", 1, 1).get(timeout=20), 2, "another task, meanwhile")
        scheduled = self.app.control.inspect(timeout=10, limit=1).scheduled()
        expect([task for tasks in scheduled.values() for task in tasks], [], "tasks that the worker holds")
        ok("the broker holds what is not due")

        for result, due in waits:
            ran = result.get(timeout=30)
            if not due <= ran < due + LATE_MAX:
                raise AssertionError(f"a task ran {ran - due:.3f} s after its time")
        expect([result.get(timeout=20) for result in retried], [2, 2], "retries")
        came = self.arrivals(worker)
        late = sorted(came[result.id] - due for result, due in waits)
        if late[0] < -0.002:  # the log has milliseconds
            raise AssertionError(f"a task came to the worker {-late[0]:.3f} s before its time")
        print(f"tasks came {late[0] * 1000:.0f} to {late[-1] * 1000:.0f} ms after their time, "
              f"half of them within {late[len(late) // 2] * 1000:.0f} ms")
        ok(f"{len(waits)} tasks on time")

        self.stop(worker)
        ok("worker shut down")

    def waiting(self, level):
        with connect() as connection:
            return connection.channel().queue_declare(f"celery_delayed_{level}", passive=True).message_count

    def arrivals(self, worker):
        """When the worker received each task first, by its log."""
        came = {}
        for day, id in re.findall(r"^\[([-0-9 :,]+): .*\] Task \S+\[(\S+)\] received", self.log(worker), re.MULTILINE):
            came.setdefault(id, datetime.datetime.strptime(day, "%Y-%m-%d %H:%M:%S,%f").timestamp())
        return came

    def delete(self):
        """Deletes the queue and the exchange of this run; Celery's shared ones stay."""
        with connect() as connection:
            channel = connection.channel()
            channel.queue_delete(self.queue)
            channel.exchange_delete(self.queue)


if __name__ == "__main__":
    sys.exit(workers.play(Run, LIMIT))
