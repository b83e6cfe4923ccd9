"""``python -m vmr``."""

import sys

from vmr.cli import main

if __name__ == "__main__":
    sys.exit(main())
