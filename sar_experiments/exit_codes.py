"""Exit codes of the contract."""

DONE, FAILED, USER_MISTAKE, INTERRUPTED = 0, 1, 2, 130
