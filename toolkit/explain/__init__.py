"""One config or one run, seen from inside."""
