"""The command line with 0.2 s added to each block; a process of its own for tests of interruption."""

import signal
import time

from wasnow.cli import main
from wasnow.pipeline import worker

predict_block = worker.predict_block


def slow_predict_block(*arguments):
    time.sleep(0.2)
    return predict_block(*arguments)


if __name__ == "__main__":
    # A job that a shell starts in the background ignores Ctrl-C, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    worker.predict_block = slow_predict_block
    main()
