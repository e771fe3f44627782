"""A dramatiq application, as its users write it."""

import os
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

dramatiq.set_broker(RabbitmqBroker(url=os.environ["BROKER"]))


@dramatiq.actor(queue_name=os.environ["QUEUE"], max_retries=0)
def work(seconds):
    with open("taken", "a") as file:
        print(os.getpid(), file=file)
    time.sleep(seconds)
    with open("done", "a") as file:
        print(os.getpid(), file=file)
