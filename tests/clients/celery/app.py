"""The Celery app of the test: default settings but for the queue's name and the result backend."""
import os

from celery import Celery

app = Celery("garenne", broker=os.environ["AMQP_URL"], backend=os.environ["CLIENT_BACKEND"])
app.conf.task_default_queue = os.environ["CLIENT_QUEUE"]  # runs may go in parallel


class Flaky(Exception):
    pass


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, autoretry_for=(Flaky,), retry_kwargs={"max_retries": 3, "countdown": 1})
def flaky(self, failures):
    if self.request.retries < failures:
        raise Flaky(f"attempt {self.request.retries}")
    return self.request.retries


@app.task
def fail(text):
    raise ValueError(text)
