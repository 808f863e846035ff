"""Apps for queues.py and delayed.py: default settings but for what each kind is about."""
import os
import signal
import time

from celery import Celery
from kombu import Exchange, Queue

KINDS = {
    "late": lambda name: {"worker_prefetch_multiplier": 1},
    "priority": lambda name: {"worker_prefetch_multiplier": 1, "task_queue_max_priority": 10},
    "limited": lambda name: {"task_queues": [Queue(name, Exchange(name), name, queue_arguments={
        "x-queue-type": "quorum", "x-delivery-limit": 2,
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name + ".dead"})]},
    "delayed": lambda name: {
        "task_default_queue_type": "quorum", "task_default_exchange_type": "topic",
        "broker_native_delayed_delivery_queue_type": "quorum"},
}


def make(kind, name):
    app = Celery("garenne", broker=os.environ["AMQP_URL"], backend="rpc://")
    app.conf.task_default_queue = name
    app.conf.update(KINDS[kind](name))
    return app


app = make(os.environ.get("CLIENT_KIND", "late"), os.environ.get("CLIENT_QUEUE", "unused"))


def note(*words):
    """A line for the test to read, whatever becomes of this process."""
    with open(os.environ["CLIENT_NOTES"], "a") as notes:
        print(*words, file=notes)


def is_redelivered(task):
    return task.request.delivery_info["redelivered"]


@app.task
def add(x, y):
    return x + y


@app.task
def noted(text):
    note(text)


@app.task
def when():
    return time.time()


@app.task(bind=True, acks_late=True)
def hold(self):
    """Never ends, unless it is there for the second time."""
    note(self.request.hostname)
    while not is_redelivered(self):
        time.sleep(1)
    return self.request.hostname


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def die_once(self):
    if not is_redelivered(self):
        os.kill(os.getpid(), signal.SIGKILL)
    return is_redelivered(self)


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def die(self):
    note("dies", is_redelivered(self))
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, max_retries=2)
def again(self):
    if self.request.retries < 2:
        raise self.retry(countdown=1)
    return self.request.retries


@app.task(bind=True, autoretry_for=(ValueError,), max_retries=2, default_retry_delay=1)
def flaky(self):
    if self.request.retries < 2:
        raise ValueError(f"attempt {self.request.retries}")
    return self.request.retries
