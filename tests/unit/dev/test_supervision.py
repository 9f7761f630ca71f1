"""supervisord's configuration is complete, deterministic and safe to write values into."""

import configparser
import tempfile

import pytest

from dev.errors import StackError
from dev.settings import Settings, load_settings
from dev.supervision import MARKER, Program, Supervisor, render_configuration


def section(settings: Settings, program: Program) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(render_configuration(settings, [program]))
    return parser[f"program:{program.name}"]


def test_a_part_is_restarted_when_it_ends_and_started_only_by_up(settings: Settings) -> None:
    found = section(settings, Program("part", ["/bin/part"]))

    assert (found["autorestart"], found["autostart"]) == ("true", "false")


def test_arguments_keep_their_spaces_and_percent_signs(settings: Settings) -> None:
    found = section(settings, Program("part", ["/bin/part", "two words", "100%"]))

    assert found["command"] == "/bin/part 'two words' 100%%"


def test_every_process_carries_the_marker_of_its_stack(settings: Settings) -> None:
    found = section(settings, Program("part", ["/bin/part"], {"NAME": "a,b%"}))

    assert found["environment"] == f'{MARKER}="{settings.state}",NAME="a,b%%"'


def test_supervisord_starts_in_a_folder_with_an_unusual_name() -> None:
    with tempfile.TemporaryDirectory(prefix="a %d ü ") as folder:
        supervisor = Supervisor(load_settings({"BUDEVAL_STATE_DIR": folder}))
        supervisor.apply([Program("part", ["/bin/sleep", "60"])])
        try:
            assert set(supervisor.states()) == {"part"}
        finally:
            supervisor.shutdown()


@pytest.mark.parametrize("value", ['a"b', "a\nb"])
def test_a_value_that_could_break_out_of_the_file_is_refused(settings: Settings, value: str) -> None:
    with pytest.raises(StackError, match="quote or a line break"):
        render_configuration(settings, [Program("part", ["/bin/part"], {"NAME": value})])


def test_the_same_stack_has_the_same_file(settings: Settings) -> None:
    programs = [Program("one", ["/bin/one"]), Program("two", ["/bin/two"])]

    assert render_configuration(settings, programs) == render_configuration(settings, programs)
