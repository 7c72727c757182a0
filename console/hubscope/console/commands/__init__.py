"""One file a command; each holds the click object `command`. The tuple of all of them stands in `console.main`."""
