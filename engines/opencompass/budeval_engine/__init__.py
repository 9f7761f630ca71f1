"""The entry point of budeval's OpenCompass image: one run of one data set, inside a Kubernetes Job.

The container starts `supervisor` (`python -m budeval_engine`), which reads the mounted configuration, asks the endpoint
once whether it will answer at all, runs `evaluation` as a child process, and turns what the child leaves behind into
`result.json`, a termination message and an exit code. The child is OpenCompass with a model of ours (`endpoint_model`)
that keeps every answer in a journal, so that a second attempt asks only what is missing.
"""

__version__ = "0.1.0"
