"""One page about runs: a file without any network request that shows what was compressed, how far, and at what cost.

Facts come from the folders of the runs and from `gossamer.explain`; here they are arranged and drawn.
"""

from gossamer.report.write import Given, write_report

__all__ = ["Given", "write_report"]
