"""What of this folder is collected.

Triton decides when a kernel is defined whether it will be interpreted, so interpreted tests need a
process of their own: `TRITON_INTERPRET=1 pytest -k triton tests/kernels`. `test_interpreter.py`
starts it.
"""

import os

if os.environ.get("TRITON_INTERPRET") == "1":
    collect_ignore = ["test_ahead_of_time.py", "test_interpreter.py"]
else:
    collect_ignore = ["test_triton.py"]
