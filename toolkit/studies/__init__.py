"""Many runs: each in a process of its own, by the command line."""

import sys

# `-P`: the console command does not look for modules in the current folder either.
COMMAND = (sys.executable, "-P", "-c", "from toolkit.cli import main; main()")
