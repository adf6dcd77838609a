"""The doctor's checks, one file per kind of question.

Each check reads the log once and answers with findings.
"""
