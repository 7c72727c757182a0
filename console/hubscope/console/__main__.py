"""`python -m hubscope.console`: the command line without relying on a script on PATH."""

from hubscope.console.main import main

if __name__ == "__main__":
    main(prog_name="hubscope")
