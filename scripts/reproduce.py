"""`toolkit reproduce` for those who work in a checkout, whose documents it writes."""

import sys
from pathlib import Path

from toolkit.cli import main

if __name__ == "__main__":
    main(["reproduce", "--root", str(Path(__file__).resolve().parent.parent), *sys.argv[1:]])
