"""A small, honest AI hub: personas, a memory store, a vector index, plugins, user tasks, behind HTTP.

Its memories are the docstrings of the packages installed beside it, tens of thousands of real texts, embedded by
feature hashing (`embedding.py` says what that is and is not). It runs as version 1, with five known inefficiencies,
or as version 2, without them; `flags.py` names each. Everything it does is real work: nothing sleeps.

    cd examples
    hubscope run --service reference-hub -- python -m reference_hub --version-preset 1
"""
