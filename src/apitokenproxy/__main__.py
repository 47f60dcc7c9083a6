"""`python -m apitokenproxy` is `apitokenproxy`."""

from apitokenproxy.cli import main

if __name__ == "__main__":
    main()
