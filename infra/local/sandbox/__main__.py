"""``python -m infra.local.sandbox --port P [--seed N]``: the sandbox alone, until it is interrupted."""

import argparse
import sys
from contextlib import suppress
from itertools import groupby

from infra.local.sandbox.server import RATE_LIMIT_EVERY, SandboxServer


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: any free port")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same usage")
    parser.add_argument(
        "--rate-limit-every", type=int, default=RATE_LIMIT_EVERY, metavar="N", help="429 to every Nth request; 0: never"
    )
    args = parser.parse_args()
    with SandboxServer(args.seed, port=args.port, rate_limit_every=args.rate_limit_every) as sandbox:
        for key, url in sandbox.urls.items():
            sys.stderr.write(f"PIPELINE_OPS_PROVIDER_URL_{key.upper()}={url}\n")
        for secret, keys in groupby(sandbox.secrets, key=sandbox.secrets.__getitem__):
            sys.stderr.write(f"The credential of {', '.join(keys)} is {secret}\n")
        sys.stderr.write("Ctrl-C stops it.\n")
        sys.stderr.flush()
        with suppress(KeyboardInterrupt):
            sandbox.wait()


if __name__ == "__main__":
    main()
