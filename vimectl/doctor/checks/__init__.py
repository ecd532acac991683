"""Compare a machine with what the job needs. A check touches nothing: every fact comes from ``Facts``.

To add a check: write a reader in ``facts`` if the fact is new, and a function here that is declared with
``@CHECKS.add(id)`` and has the rule as its docstring. Then add its id to ``ids.txt`` and a machine that fails
it to the gallery, both in tests/unit/vimectl/doctor.
"""
