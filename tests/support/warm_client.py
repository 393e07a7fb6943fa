"""`python -IS warm_client.py SCRIPT …` runs a script in the server that WARM_PYTHON names.

Signals go on to it, and it ends with this process. What is no script (`python -c …`) is given to a
fresh Python.
"""

import json
import os
import signal
import socket
import sys


def main(argv):
    if not argv or not os.path.isfile(argv[0]):  # noqa: PTH113  pathlib takes as long as the rest
        os.execv(sys.executable, [sys.executable, *argv])
    job = json.dumps([argv, os.getcwd(), dict(os.environ)]).encode()  # noqa: PTH109
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ["WARM_PYTHON"])
        socket.send_fds(server, [len(job).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(job)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda got, _: server.sendall(bytes([got])))
        return int(server.recv(8) or b"1")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
