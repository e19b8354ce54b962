"""``python -m wasnow``."""

from wasnow.cli import main

if __name__ == "__main__":
    main()
