"""A program that consumes a queue by itself, for the tests: a small AMQP client of the standard library alone.

    consumer.py URL QUEUE [MESSAGES]

The body of a message is the time that it takes, in seconds. Each message's end is a line in the file `done`. TERM ends the program
after its message. With MESSAGES it ends by itself after so many.
"""

import os
import signal
import socket
import struct
import sys
import time
import urllib.parse

URL = urllib.parse.urlsplit(sys.argv[1])
QUEUE = sys.argv[2]
MOST = int(sys.argv[3]) if len(sys.argv) > 3 else None
USER, PASSWORD = (urllib.parse.unquote(part or "guest") for part in (URL.username, URL.password))
VHOST = urllib.parse.unquote(URL.path[1:]) or "/"

told = False


def on_term(*_):
    global told
    told = True


signal.signal(signal.SIGTERM, on_term)


def short(text):
    return bytes([len(text)]) + text.encode()


def long(data):
    return struct.pack(">I", len(data)) + data


connection = socket.create_connection((URL.hostname, URL.port or 5672))
buffer = b""


def frame(kind, channel, payload):
    connection.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")


def method(channel, family, number, arguments=b""):
    frame(1, channel, struct.pack(">HH", family, number) + arguments)


def read(wait=None):
    """The next frame; nothing if none comes in time."""
    global buffer
    while True:
        if len(buffer) >= 7:
            kind, channel, size = struct.unpack(">BHI", buffer[:7])
            if len(buffer) >= size + 8:
                payload, buffer = buffer[7 : 7 + size], buffer[size + 8 :]
                return kind, payload
        connection.settimeout(wait)
        try:
            more = connection.recv(65536)
        except TimeoutError:
            return None
        if not more:
            sys.exit("the broker is gone")
        buffer += more


def expect(family, number):
    while True:
        kind, payload = read()
        if kind == 1:
            found = struct.unpack(">HH", payload[:4])
            if found == (family, number):
                return payload[4:]
            sys.exit(f"not {family}.{number} but {found}: {payload!r}")


connection.sendall(b"AMQP\0\0\x09\x01")
expect(10, 10)
login = long(b"\0" + USER.encode() + b"\0" + PASSWORD.encode())
method(0, 10, 11, long(b"") + short("PLAIN") + login + short("en_US"))
expect(10, 30)
method(0, 10, 31, struct.pack(">HIH", 9, 131072, 0))
method(0, 10, 40, short(VHOST) + b"\0\0")
expect(10, 41)
method(1, 20, 10, b"\0")
expect(20, 11)
method(1, 60, 10, struct.pack(">IHB", 0, 1, 0))
expect(60, 11)
method(1, 60, 20, b"\0\0" + short(QUEUE) + short("") + b"\0" + long(b""))
expect(60, 21)
print("consumes as", os.environ["TIDEGATE_PROCESS"], flush=True)

done = 0
while not told and (MOST is None or done < MOST):
    found = read(0.1)
    if found is None or found[0] != 1:
        continue
    payload = found[1]
    at = 5 + payload[4]
    (tag,) = struct.unpack(">Q", payload[at : at + 8])
    _, head = read()
    (size,) = struct.unpack(">Q", head[4:12])
    body = b""
    while len(body) < size:
        body += read()[1]
    with open("taken", "a") as file:
        print(os.getpid(), file=file)
    until = time.monotonic() + float(body)
    while time.monotonic() < until:
        time.sleep(0.02)
    method(1, 60, 80, struct.pack(">QB", tag, 0))
    with open("done", "a") as file:
        print(os.getpid(), file=file)
    done += 1
