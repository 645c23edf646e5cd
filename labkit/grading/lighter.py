"""Makes `import nbformat` 1.4 s faster, wherever labkit.grading is imported first; pytest loads this too.

nbformat's validator, jsonschema, imports rfc3987_syntax where that is installed, which builds a grammar for
internationalized addresses. A notebook's schema has no such address; without the module jsonschema does without.
"""

import sys

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
