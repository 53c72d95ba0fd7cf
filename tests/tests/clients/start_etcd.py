"""Starts an etcd as test fixtures do: start_etcd.py PROGRAM DATA_DIR CLIENT_PORT PEER_PORT

Asks for its version, waits for the words that it serves, uses it, stops it with SIGTERM, kills it
with SIGKILL, and finds the data each time.
"""

import asyncio
import re
import signal
import subprocess
import sys
import threading

import aetcd

READY = "ready to serve client requests"


def version(program):
    text = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.match(r"etcd Version: (\d+)\.(\d+)\.(\d+)\n", text)
    assert found, text
    return tuple(map(int, found.groups()))


class Etcd:
    """A running etcd."""

    def __init__(self, program, data_dir, client_port, peer_port):
        client = f"http://127.0.0.1:{client_port}"
        peer = f"http://127.0.0.1:{peer_port}"
        command = [
            program,
            "--name=fixture",
            f"--data-dir={data_dir}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=fixture={peer}",
            "--initial-cluster-state=new",
            "--initial-cluster-token=fixture",
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        # A server that never gets ready is ended, so that reading its words ends too.
        patience = threading.Timer(60, self.process.kill)
        patience.start()
        words = []
        for line in self.process.stderr:
            words.append(line)
            if READY in line:
                break
        else:
            raise AssertionError("it is not ready:\n" + "".join(words))
        patience.cancel()
        # Nobody reads on: a server must not stop because its words are not read at once.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def stop(self, number):
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


async def count(port):
    async with aetcd.Client(host="127.0.0.1", port=int(port), timeout=20) as client:
        found = await client.get(b"count")
        number = int(found.value) if found else 0
        await client.put(b"count", b"%d" % (number + 1))
        return number


def main(program, data_dir, client_port, peer_port):
    assert version(program) >= (3, 4, 0)
    for turn, (number, code) in enumerate(
        [(signal.SIGTERM, 0), (signal.SIGKILL, -9), (signal.SIGINT, 0), (signal.SIGTERM, 0)]
    ):
        etcd = Etcd(program, data_dir, client_port, peer_port)
        try:
            assert asyncio.run(count(client_port)) == turn
            ended = etcd.stop(number)
            # etcd itself ends with the signal when it was told to stop.
            assert ended in (code, -number), (number, ended)
        finally:
            etcd.process.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
