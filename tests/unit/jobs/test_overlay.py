import pytest

from budeval.commons.settings import StartRefused
from budeval.jobs.overlay import PodTemplateOverlay


def overlay(tmp_path, text):
    file = tmp_path / "overlay.yaml"
    file.write_text(text)
    return PodTemplateOverlay.from_settings(file)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("", {}),
        ("spec: {hostNetwork: true}", {"hostNetwork": True}),
        ("spec: {nodeSelector: {a: b}}", {"nodeSelector": {"a": "b"}}),
    ],
)
def test_a_pod_template_overlay_is_read_as_yaml(tmp_path, text, spec):
    assert overlay(tmp_path, text) == PodTemplateOverlay.model_validate({"spec": spec})


def test_no_pod_template_overlay_is_an_empty_one():
    assert PodTemplateOverlay.from_settings(None) == PodTemplateOverlay()


BAD = [
    ("- a", "content: Input should be a valid dictionary"),
    ("text", "content: Input should be a valid dictionary"),
    ("!!python/object/apply:os.getpid []", "is not YAML: could not determine a constructor"),
    ("a: b: c", "is not YAML: mapping values are not allowed here"),
    ("spec: {hostPID: true}", "spec.hostPID: Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_pod_template_overlay_that_is_none_ends_the_start(tmp_path, text, words):
    with pytest.raises(StartRefused) as refused:
        overlay(tmp_path, text)
    told = str(refused.value)
    assert told.startswith(f"BUDEVAL_POD_TEMPLATE_OVERLAY: {tmp_path}/overlay.yaml {words}")
    assert "\n" not in told


def test_a_missing_pod_template_overlay_ends_the_start(tmp_path):
    with pytest.raises(StartRefused, match=r"^BUDEVAL_POD_TEMPLATE_OVERLAY: .*/overlay cannot be used: No such file"):
        PodTemplateOverlay.from_settings(tmp_path / "overlay")
