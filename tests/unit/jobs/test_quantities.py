from decimal import Decimal

import pytest

from budeval.evals.models import AskedResources
from budeval.jobs.quantities import parse_quantity, with_asked


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"), ("0.5", "0.5"), ("500m", "0.5"), ("250u", "0.00025"), ("1k", "1000"), ("2M", "2000000"),
        ("1Ki", "1024"), ("4Gi", "4294967296"), ("1e3", "1000"), ("1E3", "1000"), ("1e-3", "0.001"), ("1E", "1e18"),
        ("1Ei", "1152921504606846976"), ("1.", "1"),
    ],
)  # fmt: skip
def test_a_quantity_is_the_number_that_kubernetes_reads(text, value):
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "0m", "-1", "+1", "1 Gi", "1gi", "1KI", "Gi", "NaN", "inf", "1e", "1e999", "1" * 40, "1\n", "٣",
     "{{ 1 }}", "$(id)", "0x1", "1,5", "1.2.3", "1mm"],
)  # fmt: skip
def test_what_is_no_quantity_above_zero_is_refused(text):
    with pytest.raises(ValueError, match="must be"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("present", "asked", "expected"),
    [
        ({}, {}, {"requests": {}, "limits": {}}),
        (
            {"requests": {"memory": "512Mi"}, "limits": {"memory": "2Gi"}},
            {"limits": {"memory": "4Gi"}},
            {"requests": {"memory": "512Mi"}, "limits": {"memory": "4Gi"}},
        ),
        (
            {"requests": {"memory": "512Mi"}, "limits": {"memory": "2Gi"}},
            {"limits": {"memory": "128Mi"}},
            {"requests": {"memory": "128Mi"}, "limits": {"memory": "128Mi"}},
        ),
        (
            {"requests": {"cpu": "250m"}, "limits": {"cpu": 1}},
            {"requests": {"cpu": "2"}},
            {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}},
        ),
    ],
)
def test_what_is_asked_for_wins_and_no_request_is_above_its_limit(present, asked, expected):
    assert with_asked(present, AskedResources.model_validate(asked)) == expected
