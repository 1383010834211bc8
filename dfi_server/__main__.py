"""`python -m dfi_server` is `dfi`."""

import sys

from dfi_server.commands.cli import main

sys.exit(main())
