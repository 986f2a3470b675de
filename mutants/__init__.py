"""Do the tests notice it when the code is wrong? Draws single changes to the code and runs the tests that could tell.

`python -m mutants --help`; CONTRIBUTING.md says how it is used. No part of the package, and not run by CI.
"""
