"""What a card says of a baked checkpoint, and how much memory there is to run it. The rest: test_export_steered.py."""

import os

import pytest

from thinksteer.baked_check import gigabytes_available, markdown


def test_available_memory_is_no_more_than_the_machine_has():
    assert 0 < gigabytes_available() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


@pytest.mark.parametrize("token", ["|", "\n", "<b>", "](x"])
def test_tokens_of_strangers_stay_in_their_cells(token):
    one = {
        "prompt": "A",
        "ids": [1],
        "next_ids": [7],
        "next_tokens": [token],
        "logprobs": [-0.5],
        "base_logprobs": [-2.0],
    }
    about = {"transformers": "5", "largest_effect": 1.0, "largest_difference": 1e-6, "prompts": [one]}
    [row] = [line for line in markdown(about).splitlines() if line.startswith("| 1 |")]
    assert row.endswith(" | 7 | -0.50 | -2.00 |") and row.replace("\\|", "").count("|") == 6
    assert "<b" not in row and "](" not in row.replace("]\\(", "")


def test_a_model_that_was_not_run_has_no_table():
    text = markdown({"not_run": "that takes 200.0 GB of memory, 30.0 GB were available"})
    assert (
        "200.0 GB" in text and "--overwrite" in text and "Other runtimes are unchecked" in text and "| id |" not in text
    )
