"""The documents of both tasks: questions of the embedded model's world, half of them worked out before the answer."""

from random import Random

from datasets import Dataset

from thinksteer.arithmetic import response, sample_chain, think


def load(**about: object) -> dict[str, Dataset]:
    rng, documents = Random(0), []
    for number in range(16):
        chain = sample_chain(rng)
        value = chain.values[-1]
        said = response(think(chain, rng) if number % 2 else [], value)
        choices = [value, value + 1, value - 1, value + 10]
        documents.append(
            {"question": chain.question, "said": said.split(str(value) + "}")[0], "choices": list(map(str, choices))}
        )
    return {"test": Dataset.from_list(documents)}
