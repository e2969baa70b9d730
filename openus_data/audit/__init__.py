"""The command `audit`: what is in a corpus, may I use it, is it clean.

    report = audit(AuditRequest(outs=(Path("out"),), html=Path("audit.html")))
    report.exit_code        # 1 with `strict` and a finding over its threshold

`composition` counts, `findings` looks for faults in the rows, `pixels` looks at the pictures again, `flow` says where
items went, `licence` what may be done with them, `compare` what changed since another build; `report` says it to people
and machines, `page` as one HTML file.
"""

from openus_data.audit.request import AuditRequest
from openus_data.audit.run import audit

__all__ = ["AuditRequest", "audit"]
