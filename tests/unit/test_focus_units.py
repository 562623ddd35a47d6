"""Units in the words of FOCUS: those of published bills."""

import pytest

from common.processors.bills.focus_units import focus_unit


@pytest.mark.parametrize(
    ("own", "focus"),
    [
        ("Hrs", "Hours"),  # AWS
        ("GB-Mo", "GB-Months"),
        ("Obj-Month", "Obj-Months"),
        ("API Requests", "API Requests"),
        ("1 Hour", "Hours"),  # Azure
        ("100 Hours", "100 Hours"),
        ("1 GB/Month", "GB/Month"),
        ("1/Day", "Units/Day"),
        ("10K", "10000 Units"),
        ("10K Requests", "10000 Requests"),
        ("1M", "1000000 Units"),
        ("hour", "Hours"),  # Google Cloud
        ("gibibyte month", "GiB-Months"),
        ("byte-seconds", "B-Seconds"),
        ("bytes", "B"),
        ("count", "Count"),
        ("Million Datapoints", "1000000 Datapoints"),  # Oracle
        ("Gigabytes Per Hour", "GB/Hour"),
        ("OCPU Hours", "OCPU-Hours"),
        ("Instance per hour", "Instance/Hour"),
        ("GB Of Data Transferred", "GB Of Data Transferred"),
        ("TB", "TB"),
        ("Tokens", "Tokens"),  # what is FOCUS's already stays
        ("GB-Months", "GB-Months"),
        ("1000 Tokens", "1000 Tokens"),
        ("Requests/3 Months", "Requests/3 Months"),
        ("", "Units"),
    ],
)
def test_a_unit_is_said_in_the_words_of_focus(own: str, focus: str) -> None:
    assert focus_unit(own) == focus
    assert focus_unit(focus) == focus, "it is the same when it is said again"
