"""What exceptions say: groups with their parts, and Ray's own in words that help."""

from planner.messages import CANCELLED, MOST_PARTS, Said, late_start_text, message_text


def test_a_message_is_its_lines() -> None:
    """Without blanks around them; one that says nothing is told as such."""
    said = Said(kind="ValueError", module="builtins", text="  one\n\n   two ")
    assert message_text(said) == "one\ntwo"
    assert message_text(Said(kind="ValueError", text=" \n")) == "(no message)"


def test_a_group_is_told_with_its_parts() -> None:
    """To any depth, each in one line of its own, and not too many."""
    inner = Said(kind="ExceptionGroup", text="inner", parts=(Said(kind="KeyError", text="'k'"),))
    many = tuple(Said(kind="OSError", text=str(number)) for number in range(MOST_PARTS))
    long = Said(kind="ValueError", text="a\n b" + "c" * 400)
    told = message_text(Said(kind="ExceptionGroup", text="outer", parts=(long, inner, *many)))
    lines = told.splitlines()
    assert lines[0] == "outer"
    assert lines[1] == f"1. ValueError: a b{'c' * 297}... (103 more characters)"
    assert lines[2:5] == ["2. ExceptionGroup: inner", "2.1. KeyError: 'k'", "3. OSError: 0"]
    assert lines[-1] == "and 2 more"
    assert len(lines) == 1 + MOST_PARTS + 1 + 1


def test_rays_errors_are_told_by_what_matters() -> None:
    """Of a death the cause; of a cancelled call what it may have been."""
    text = "The actor died.\nactor_id: 7\nWorker exit detail: x"
    assert message_text(Said(kind="A", module="ray.exceptions", text=text)) == (
        "The actor died. Worker exit detail: x"
    )
    assert message_text(Said(kind="A", module="mine", text="it died\nat 7")) == "it died\nat 7"
    cancelled = "Task: TaskID(00) was cancelled. "
    said = Said(kind="TaskCancelledError", module="ray.exceptions", text=cancelled)
    assert message_text(said) == CANCELLED
    assert "KeyboardInterrupt" in CANCELLED


def test_a_late_start_names_what_would_help() -> None:
    """Who is late, and the argument that gives more time."""
    assert late_start_text([2, 3]) == (
        "start_timeout is over: give a longer one if ranks 2-3 only needed more time; else see in "
        "the log of that process, on its node, what it waits for"
    )
