"""``python -m ingest`` is the ``ingest`` command."""

import sys

from ingest.cli import main

if __name__ == "__main__":
    sys.exit(main())
