"""Found first on PYTHONPATH in a process that `hubscope run` started: sets measuring up, then steps aside.

Any other sitecustomize of the environment is run afterwards, as if this one were not there.
"""

import importlib.machinery
import importlib.util
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [_p for _p in sys.path if os.path.abspath(_p or ".") != _here]
try:
    from hubscope.instrumentation import auto as _auto
except ImportError as _error:
    print(
        f"hubscope: {sys.executable} cannot import hubscope ({_error}), so this program runs unmeasured\n"
        f"  {sys.executable} -m pip install hubscope",
        file=sys.stderr,
    )
    _said = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(_p for _p in _said if os.path.abspath(_p or ".") != _here)
else:
    _auto.start()

_other = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
if _other is not None and _other.loader is not None:
    _module = importlib.util.module_from_spec(_other)
    sys.modules["sitecustomize"] = _module
    _other.loader.exec_module(_module)
