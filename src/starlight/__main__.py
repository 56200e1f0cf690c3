"""`python -m starlight`."""

from starlight.cli import main

if __name__ == "__main__":
    main(prog_name="starlight")
