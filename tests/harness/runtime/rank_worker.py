"""Run the functions that a test sends, so that torch and Megatron-core are imported once per process.

Run as a script with the path of a Unix socket; exits when the test closes the connection.
"""

import os
import sys
import traceback
from multiprocessing.connection import Client

import cloudpickle
import torch


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with Client(sys.argv[1]) as connection:
        while True:
            try:
                function, args = cloudpickle.loads(connection.recv_bytes())
            except EOFError:
                return
            try:
                answer = True, function(*args)
            except Exception:
                answer = False, traceback.format_exc()
            connection.send_bytes(cloudpickle.dumps(answer))


if __name__ == "__main__":  # an engine's workers import this module
    main()
