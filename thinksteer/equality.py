r"""Exact rules for the equality of two answers: numbers, quantities with units, ratios, numerals, words, brackets.

They take microseconds and come before math-verify (`verifier`), which is left what needs algebra; each rule also says
where math-verify alone is wrong. Nothing of the project is imported here: verifier processes start without torch.
"""

import re
from fractions import Fraction

MAX_CHARS = 2000  # a longer answer is no answer: it is right only as the same string

_SPELLINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<!\\)\\!|\\displaystyle(?![a-zA-Z])|\\(?:left|right)(?![a-zA-Z])", ""),
        (r"\{,\}", ","),
        (r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~|\s+", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\\$", "$"),
        (r"\\%", "%"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])", "°"),
        ("−", "-"),
        ("×", r"\\times "),
        (r"·|(?<!\*)\*(?!\*)", r"\\cdot "),
        (r"\*\*", "^"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"π|(?<![\\a-zA-Z])pi(?![a-zA-Z])", r"\\pi "),
        ("∞", r"\\infty "),
        (r"√\s*\(([^()]*)\)|(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1\2}"),
        (r"√\s*(\d+)", r"\\sqrt{\1}"),
        (r"≤|<=", r"\\le "),
        (r"≥|>=", r"\\ge "),
        (r" {2,}", " "),
    )
]
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|up)?|mbox|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")

_DECIMAL = re.compile(r"[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)(?:\.\d*)?|\.\d+)")
_SCIENTIFIC = re.compile(r"(.+?)(?:[eE]|\s*(?:\\times|\\cdot|x)\s*10\s*\^\s*)(\{[+-]?\d{1,3}\}|[+-]?\d{1,3})")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\overline\s*\{(\d+)\}")
_FRACTION = re.compile(
    r"([+-]?)\s*(\d+(?=\s*\\)|\d+(?= ))?\s*"  # sign, and the whole part of a mixed number
    r"(?:\\frac\s*(\{[^{}]*\}|\d)\s*(\{[^{}]*\}|\d)|([+-]?[\d.,]+)\s*/\s*([+-]?[\d.,]+))"
)
_ASSIGNMENT = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?)?\s*=\s*([^=<>]+)")
_RATIO = re.compile(r"([^:]+?)\s*(?::|\\colon)\s*([^:]+)")
_NUMERAL = re.compile(r"\(?([0-9A-Za-z]+)\)?\s*_\s*\{?\s*(\d+)\s*\}?")
_PROSE = re.compile(r"(?:so |thus |hence )?(?:the )?(?:final |correct )?answer(?: is)?\s*:?\s*", re.IGNORECASE)

_SCALES = {"dozen": 12, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_UNITS = {
    alias: names.split()[0]
    for names in (
        "% percent percentage", "° degree deg", "$ dollar usd", "¢ cent", "€ euro", "£ pound-sterling", "¥ yen",
        "mm millimeter millimetre", "cm centimeter centimetre", "m meter metre", "km kilometer kilometre",
        "in inch inche", "ft foot feet", "yd yard", "mi mile", "mg milligram", "g gram", "kg kilogram", "lb lbs pound",
        "oz ounce", "ml milliliter", "l liter litre", "s sec second", "min minute", "h hr hour", "day", "week", "month",
        "year yr", "mph", "rad radian",
    )
    for alias in names.split()
}  # fmt: skip
_NOT_UNITS = re.compile(r"\b(?:sqrt|sin|cos|tan|cot|sec|csc|log|exp|mod|and|or|theta|alpha|beta|gamma|infinity)\b")
_UNIT_TAIL = re.compile(r"\s*(%|°|[¢€£¥]|(?:\\text\w*|\\mbox|\\mathrm)\s*\{[^{}]*\})(?:\s*\^\s*\{?[23]\}?)?$")
_WORD_TAIL = re.compile(r"(?:(?<=[\d}])|(?<=\s))\s*([A-Za-z]{2,}\.?(?:[ /][A-Za-z]+\.?){0,4})(?:\s*\^\s*\{?[23]\}?)?$")


def decide(prediction: str, reference: str) -> bool | None:
    """What the exact rules say of the answers; None where only algebra can tell."""
    if len(prediction) > MAX_CHARS or len(reference) > MAX_CHARS:
        return bool(prediction.strip()) and prediction.strip() == reference.strip()
    p, r = clean(prediction), clean(reference)
    if not p or not r:
        return False
    if p == r:
        return True
    # x = 5 answers "find x" with 5; where both name their variable, the names count (x = 5 is not y = 5).
    if ("=" in p) != ("=" in r):
        p, r = (m[1].strip() if (m := _ASSIGNMENT.fullmatch(s)) else s for s in (p, r))
    for rule in (_same_quantity, _same_ratio, _same_numeral, _same_words, _same_brackets):
        verdict = rule(p, r)
        if verdict is not None:
            return verdict
    return None


def clean(answer: str) -> str:
    """The answer in one spelling: no layout commands, ASCII signs, no math delimiters or grouping braces around it."""
    for pattern, replacement in _SPELLINGS:
        answer = pattern.sub(replacement, answer)
    answer = answer.strip().rstrip(".,; ")
    answer = _PROSE.sub("", _TEXT.sub(r" \1 ", answer).strip() if _PROSE.search(answer) else answer, count=1).strip()
    for opening, closing in _WRAPPERS:
        inner = answer[len(opening) : -len(closing)]
        if len(inner) > 0 and answer.startswith(opening) and answer.endswith(closing) and opening not in inner:
            answer = inner.strip()
    while answer.startswith("{") and answer.endswith("}") and _closing(answer) == len(answer) - 1:
        answer = answer[1:-1].strip()
    as_text = _TEXT.fullmatch(answer)
    return as_text[1].strip() if as_text and _number(as_text[1]) is not None else answer


def _closing(text: str) -> int:
    """Index of the bracket that closes the one at index 0 (any kind closes any: intervals are half open); -1: none."""
    depth = 0
    for match in re.finditer(r"[\[({]|[\])}]", text):
        depth += 1 if match[0] in "[({" else -1
        if depth == 0:
            return match.start()
    return -1


def _number(text: str) -> Fraction | None:
    """A decimal, fraction, mixed number or number in scientific notation, exactly; None for anything else."""
    text = text.strip()
    if _DECIMAL.fullmatch(text):
        return Fraction(re.sub("[, ]", "", text))
    if match := _REPEATING.fullmatch(text):
        sign, whole, head, period = match.groups()
        ends = int(f"{whole}{head}{period}"), int(f"{whole}{head}" or "0")
        return (-1 if sign == "-" else 1) * Fraction(ends[0] - ends[1], 10 ** len(head) * (10 ** len(period) - 1))
    if match := _FRACTION.fullmatch(text):
        sign, whole, *parts = match.groups()
        values = [_number(part.strip("{}")) for part in parts if part is not None]
        if None in values or values[1] == 0:
            return None
        value = values[0] / values[1]
        if whole is not None and not 0 < value < 1:
            return None  # not a mixed number: 2 \frac{3}{2} could be a product
        return (-1 if sign == "-" else 1) * (value + int(whole or 0))
    if match := _SCIENTIFIC.fullmatch(text):
        value = _number(match[1])
        return None if value is None else value * Fraction(10) ** int(match[2].strip("{}"))
    return None


def _quantity(text: str, any_word: bool) -> tuple[Fraction, str] | None:
    """A number and its unit ("" for none). `any_word`: words that are no known unit count as one ("18 apples")."""
    currency = re.match(r"([+-]?)\s*([$€£¥])\s*", text)
    unit = ""
    if currency:
        text, unit = currency[1] + text[currency.end() :], currency[2]
    if match := _UNIT_TAIL.search(text):
        unit, text = unit or (_TEXT.sub(r"\1", match[1]) or " "), text[: match.start()]
    elif match := _WORD_TAIL.search(text):
        words = match[1].split()
        known = _unit(match[1]) in _UNITS.values() or _unit(words[0]) in _SCALES
        if known or (any_word and len(words[0]) > 2 and not _NOT_UNITS.search(match[1])):
            unit, text = unit or match[1], text[: match.start()]
            unit = match[1] if _unit(words[0]) in _SCALES else unit
    value = _number(text.strip())
    if value is None:
        return None
    first, _, rest = unit.strip().partition(" ")
    if _unit(first) in _SCALES:
        value, unit = value * _SCALES[_unit(first)], rest
    return value, _unit(unit)


def _unit(name: str) -> str:
    name = name.strip(" .").lower()
    return _UNITS.get(name) or _UNITS.get(name.removesuffix("s")) or name.removesuffix("s")


def _same_quantity(p: str, r: str) -> bool | None:
    """Exact: 10001 is not 10000 and 0.333333 is not 1/3, which math-verify's rounding and upstream's rel_tol let pass.

    References of the data sets drop their units ("how many percent": 50), so an answer may name one: 5 cm, $5 and 5%
    answer 5. Two known units must agree. A percentage is also its value: 50% answers 0.5, and 0.5 answers 50%, but a
    bare 5 is a hundred times 5%, which math-verify holds equal.
    """
    prediction, reference = _quantity(p, any_word=True), _quantity(r, any_word=False)
    if prediction is None or reference is None:
        return None
    (value, unit), (wanted, wanted_unit) = prediction, reference
    if unit == wanted_unit:
        return value == wanted
    if "%" in (unit, wanted_unit):
        if unit and wanted_unit:
            return False
        return value == wanted / 100 if wanted_unit else wanted in (value, value / 100)
    known = set(_UNITS.values())
    return value == wanted and not {unit, wanted_unit} <= known


def _same_ratio(p: str, r: str) -> bool | None:
    """3:1 is not 3 (math-verify divides); part by part, as 10:30 may be a time. 3:2 does answer \\frac{3}{2}."""
    ratios = [_RATIO.fullmatch(_TEXT.sub(r"\1", s)) for s in (p, r)]
    if ratios == [None, None] or "\\{" in p + r:  # {x : x > 1} is a set
        return None
    if None not in ratios:
        return all(_part(a) == _part(b) for a, b in zip(*(ratio.groups() for ratio in ratios), strict=True))
    ratio, other = (ratios[0], r) if ratios[0] else (ratios[1], p)
    if not re.search(r"\\frac|/", other):
        return False
    terms, value = [_number(part) for part in ratio.groups()], _number(other)
    return None not in terms and value is not None and terms[0] == value * terms[1]


def _part(text: str) -> Fraction | str:
    number = _number(text)
    return re.sub("[. ]", "", text).casefold() if number is None else number  # 30 p.m. is 30 pm


def _same_numeral(p: str, r: str) -> bool | None:
    """101_2 is not 101_3: math-verify drops the base. One side may leave the base to the question, like a unit."""
    numerals = [_NUMERAL.fullmatch(_TEXT.sub(r"\1", s)) for s in (p, r)]
    if numerals == [None, None] or not all(m is None or m[1][0].isdigit() for m in numerals):
        return None  # x_1 is a variable, not a numeral
    digits = [m[1].upper() if m else s.upper() for m, s in zip(numerals, (p, r), strict=True)]
    bases = {int(m[2]) for m in numerals if m}
    return digits[0] == digits[1] and len(bases) == 1


def _same_words(p: str, r: str) -> bool | None:
    """Evelyn is not Briana, "no" is not "on" (math-verify multiplies letters), E is not e."""
    plain = [" ".join(_TEXT.sub(r" \1 ", s).split()).strip() for s in (p, r)]
    letters = [re.fullmatch(r"\(?([A-Za-z])\)?", s) for s in plain]
    if None not in letters:
        return letters[0][1] == letters[1][1]
    words = [re.fullmatch(r"[A-Za-z]+(?:[ '-][A-Za-z]+)*", s) is not None for s in plain]
    # Bare groups of up to three letters may be variables: ab = ba.
    products = [re.fullmatch(r"[a-zA-Z]{1,3}(?:[ -][a-zA-Z]{1,3})*", s) is not None for s in (p, r)]
    if all(words) and (not all(products) or {"yes", "no"} & {s.casefold() for s in plain}):
        return plain[0].casefold().replace("-", " ") == plain[1].casefold().replace("-", " ")
    return None


def _same_brackets(p: str, r: str) -> bool | None:
    """A set {1, 2} is no pair (1, 2), and neither is the interval [1, 2]: math-verify holds the first two equal."""
    outer = []
    for text in (p, r):
        text = text.replace(r"\{", "{").replace(r"\}", "}")
        enclosed = text[0] in "([{" and _closing(text) == len(text) - 1 and "," in text
        outer.append(text[0] + text[-1] if enclosed else None)
    return False if None not in outer and outer[0] != outer[1] else None
