"""Generation and serving of one deployed model: `gristmill generate` and `gristmill serve`.

`generate`, `model`, `decode`, `text` and `fim` need numpy only; `app`, `guard`, `metrics` and the
routes need the extra `[run]` (FastAPI, granian, prometheus-client); only `serve` imports them.
"""
