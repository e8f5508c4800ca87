"""`python -m gateway.integrations.child SECONDS`: exports one run, which it reads as an `ExportOrder` from its input.

The exit code is 0, or 1 with the error on the output, or that of the alarm which ends it.
"""

from __future__ import annotations

import signal
import sys

from gateway.integrations.sink import opened
from policies.contract.metrics_export import ExportOrder
from policies.errors import TunegateError


def main() -> int:
    signal.alarm(int(sys.argv[1]))  # also where whoever started it is gone
    order = ExportOrder.model_validate_json(sys.stdin.buffer.read())
    try:
        for destination in order.destinations:
            with opened(order.sink, order.run, destination) as write:
                write(order.run)
    except TunegateError as error:
        print(error.message)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
