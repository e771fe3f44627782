"""A Celery application on a quorum queue, as its users write it."""

import os
import time

from celery import Celery
from kombu import Queue

QUEUE = os.environ["QUEUE"]

app = Celery("celery_app", broker=os.environ["BROKER"])
app.conf.update(
    task_default_queue=QUEUE,
    task_queues=[Queue(QUEUE, queue_arguments={"x-queue-type": "quorum"})],
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task
def work(seconds):
    with open("taken", "a") as file:
        print(os.getpid(), file=file)
    time.sleep(seconds)
    with open("done", "a") as file:
        print(os.getpid(), file=file)
