from tests.synthetic import evaluation
from thinksteer.comparison import Family, Member, differences, summaries
from thinksteer.headlines import headlines


def say(gain: float, n_samples: int = 3, control: bool = True) -> str:
    members = [
        Member("base", "base", evaluation(0, 300, n_samples), 500),
        Member("edit", "edited", evaluation(1, 300, n_samples, gain=gain), 500),
    ]
    if control:
        members.append(Member("random", "control", evaluation(2, 300, n_samples), 500))
    made = Family("gsm8k", tuple(members))
    (text,) = headlines(summaries(made), differences(made))
    return text


def test_a_gain_is_said_with_its_interval_and_its_controls():
    text = say(gain=0.2)
    assert "edit answers more correctly than base" in text and "accuracy rises" in text
    assert "Against the random control: overall +" in text and "(clearly above)" in text


def test_a_loss_is_said_as_plainly():
    text = say(gain=-0.2)
    assert "answers less correctly than base" in text and "accuracy falls" in text and "(clearly below)" in text


def test_no_effect_is_not_dressed_up():
    text = say(gain=0)
    assert "does not clearly differ from base" in text and "accuracy does not clearly change" in text
    assert "not clearly different" in text


def test_one_sample_warns_of_the_step_back_and_missing_controls_are_named():
    text = say(gain=0, n_samples=1, control=False)
    assert "part of this any second draw would show" in text and "accuracy rises" not in text
    assert "No random control was evaluated" in text


def test_other_numbers_of_samples_are_said_and_accuracies_are_of_the_shared_ones():
    base, edited = evaluation(0, 300, 2), evaluation(1, 300, 1, gain=0.2)
    made = Family("gsm8k", (Member("base", "base", base, 500), Member("edit", "edited", edited, 500)))
    text, counts = headlines(summaries(made), differences(made))
    right = [100 * sum(one.correct for one in run if one.sample == 0) / 300 for run in (edited, base)]
    assert f"{right[0]:.1f} % against {right[1]:.1f} %, a change of {right[0] - right[1]:+.1f} points" in text
    assert counts.startswith("gsm8k: not all models have the same responses (base 600, edit 300; 300 in all of them).")


def test_without_an_edit_only_the_accuracy_is_said():
    alone = Family("gsm8k", (Member("base", "base", evaluation(0, 50, 1), 500),))
    (text,) = headlines(summaries(alone), differences(alone))
    assert text.startswith("gsm8k: base answers ") and "Nothing is compared" in text
