"""Everything that talks: receive, complete, report, deliver, command line (DESIGN section 3)."""

__version__ = "0.1.0"
