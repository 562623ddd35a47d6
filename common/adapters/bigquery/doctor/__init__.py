"""``main.py doctor``: tries on a project what the product does there, in a dataset that is removed again.

``probes`` is the list of what is tried, ``bench`` what they work with, ``check`` runs them and reports.
"""

from common.adapters.bigquery.doctor.check import Doctor, Finding

__all__ = ["Doctor", "Finding"]
