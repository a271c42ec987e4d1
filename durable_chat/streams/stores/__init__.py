"""Where streams are kept: one interface, one order of checks, two ways to hold the bytes."""
