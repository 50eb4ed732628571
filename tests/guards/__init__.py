"""Guards of the program and the tests that hold them: `python -m tests.guards` takes each out and runs its tests."""
