"""Personal data and secrets: planted values are found, look-alikes stay, nothing leaks."""

from __future__ import annotations

import ast
import random
import string
from collections.abc import Callable

import pytest

pytest.importorskip("pydantic")

from hypothesis import given
from hypothesis import strategies as st

from gristmill.data import private, private_rules
from gristmill.data.clean_settings import ALL_RULES, PrivateRule
from gristmill.data.private import find, replace_private, token_for

SEED = 7
Rng = random.Random


def letters(rng: Rng, count: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(rng.choice(alphabet) for _ in range(count))


# ------------------------------------------------------------------------------- canaries


def card(rng: Rng) -> str:
    body = rng.choice(["4", "51", "55", "2221", "6011", "65"])
    body += letters(rng, 15 - len(body), string.digits)
    digit = next(d for d in string.digits if private_rules.luhn(body + d))
    number = body + digit
    sep = rng.choice(["", " ", "-"])
    return sep.join(number[i : i + 4] for i in range(0, 16, 4))


def iban(rng: Rng) -> str:
    country, length = rng.choice(sorted(private_rules.IBAN_LENGTHS.items()))
    body = letters(rng, length - 4, string.digits)
    digits = next(
        f"{n:02}" for n in range(2, 99) if private_rules.iban_checks(f"{country}{n:02}{body}")
    )
    value = f"{country}{digits}{body}"
    if rng.random() < 0.5:
        return " ".join(value[i : i + 4] for i in range(0, length, 4))
    return value


def address(rng: Rng) -> str:
    if rng.random() < 0.5:
        return (
            f"{rng.choice([81, 91, 134, 185, 212])}.{rng.randint(1, 254)}.77.{rng.randint(1, 254)}"
        )
    return "2a01:4f8:" + ":".join(f"{rng.randint(1, 0xFFFF):x}" for _ in range(6))


def phone(rng: Rng) -> str:
    def d(count: int) -> str:
        return letters(rng, count, "23456789")

    shapes = [f"+49 {d(3)} {d(4)} {d(3)}", f"+1-{d(3)}-{d(3)}-{d(4)}", f"({d(3)}) {d(3)}-{d(4)}"]
    return rng.choice(
        [*shapes, f"+44{d(10)}", f"{d(3)}-{d(3)}-{d(4)}", f"+33.{d(2)}.{d(3)}.{d(3)}"]
    )


def email(rng: Rng) -> str:
    name = letters(rng, rng.randint(2, 9), string.ascii_lowercase)
    other = letters(rng, 5, string.ascii_lowercase)
    domain = rng.choice(["gmail.com", "mail.uni-bonn.de", "firm.co.uk", "x.io", "q9.museum"])
    return rng.choice(
        [f"{name}@{domain}", f"{name}.{other}@{domain}", f"{name}+{other}_1@{domain}"]
    )


def key(rng: Rng) -> str:
    upper = string.ascii_uppercase + string.digits
    return rng.choice(
        [
            "AKIA" + letters(rng, 16, upper),
            "ghp_" + letters(rng, 36),
            "glpat-" + letters(rng, 20),
            "xoxb-" + letters(rng, 12, string.digits) + "-" + letters(rng, 24),
            "sk_live_" + letters(rng, 24),
            "AIza" + letters(rng, 35),
            "hf_" + letters(rng, 34),
            "npm_" + letters(rng, 36),
            f"eyJ{letters(rng, 20)}.eyJ{letters(rng, 40)}.{letters(rng, 43)}",
        ]
    )


def private_key(rng: Rng) -> str:
    kind = rng.choice(["RSA ", "EC ", "OPENSSH ", ""])
    body = "\n".join(letters(rng, 64) for _ in range(rng.randint(2, 12)))
    tail = letters(rng, rng.randint(2, 60)) + "=="
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n{tail}\n-----END {kind}PRIVATE KEY-----"


def password(rng: Rng) -> str:
    return "Z9" + letters(rng, rng.randint(4, 20))


MAKERS: dict[PrivateRule, Callable[[Rng], str]] = {
    "private_key": private_key,
    "key": key,
    "url_password": password,
    "email": email,
    "iban": iban,
    "card": card,
    "phone": phone,
    "ip": address,
}
FRAMES = [
    "# reach me: {}\n",
    "x = '{}'\n",
    "see {}, please\n",
    "<{}>\n",
    '"""\n{}\n"""\n',
    "[{}]\n",
]


def frame(rule: PrivateRule, value: str, rng: Rng) -> str:
    text = f"postgres://admin:{value}@db.intern/x" if rule == "url_password" else value
    return rng.choice(FRAMES).format(text)


def test_a_thousand_canaries_of_eight_kinds() -> None:
    """Bars: at least 99 % found, under the right rule, and no trace of a found one left."""
    rng = Rng(11)
    missed = []
    for number in range(1000):
        rule = ALL_RULES[number % 8]
        value = MAKERS[rule](rng)
        text = frame(rule, value, rng)
        new, replaced = replace_private(text, "a.txt", ALL_RULES, SEED)
        if [r.rule for r in replaced] != [rule] or value in new:
            missed.append((rule, text))
    assert len(missed) <= 10, missed


HARMLESS = [
    "version 1.2.3.4 and 10.0.0.1, 127.0.0.1, 192.168.1.1, 0.0.0.0, 255.255.255.255",
    "doc ranges 192.0.2.1 198.51.100.7 2001:db8::1 fe80::1 ::1, time 12:30:45, a[1:2:3], 1::2",
    "oid 1.3.6.1.5.5.7.3.1 and MAC 00:1a:2b:3c:4d:5e",
    "@decorator\ndef f(a, b): return a@b, a @ b.T",
    "user@example.com, noreply@github.com, git@github.com:a/b.git, icon@2x.png, x@localhost",
    "sha 4242424242424241 or 4111111111111112, id 1234567890123456, ts 1700000000000",
    "pi 3.141592653589793 2.718281828459045 4111111111111111.5",
    "+1 +22 x = a +1234 and 2024-01-02, 555-0199, +1 555-0123, 123-456-7890",
    "password = 'hunter2', secret: 'changeme-changeme', token = 'aaaaaaaaaaaaaaaaaaaaaaaa'",
    "api_key = os.environ['API_KEY_OF_SERVICE'], password = 'correct horse battery staple'",
    "http://user:password@host/, https://{user}:{pw}@host, ftp://a:%s@host, http://host:80/a@b",
    "DE00 0000 0000 0000 0000 00, GB82 WEST 1234 5698 7654 33, XX12 3456 7890 1234",
    "-----BEGIN PRIVATE KEY----- and what follows in prose",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----",
    "ghp_short AKIAshort sk-learn hf_hub eyJhbGciOi npm_config_registry",
    "d41d8cd98f00b204e9800998ecf8427e e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_look_alikes_stay(text: str) -> None:
    assert replace_private(text, "a.txt", ALL_RULES, SEED) == (text, [])


def test_random_numbers_and_words_are_rarely_flagged() -> None:
    """Bar: at most 1 % of 3,000 random numbers, hashes and names."""
    rng = Rng(3)
    makers: list[Callable[[], str]] = [
        lambda: str(rng.getrandbits(64)),
        lambda: letters(rng, 16, string.digits),
        lambda: f"{rng.random():.15f}",
        lambda: letters(rng, 40, "0123456789abcdef"),
        lambda: ".".join(str(rng.randint(0, 30)) for _ in range(4)),
        lambda: f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:{rng.randint(0, 59):02}",
        lambda: f"{rng.randint(1990, 2030)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
        lambda: f"{letters(rng, 5, string.ascii_lowercase)}@{letters(rng, 4)}",
        lambda: letters(rng, 24, string.ascii_uppercase + string.digits),
    ]
    texts = [f"v = {rng.choice(makers)()}\n" for _ in range(3000)]
    flagged = [text for text in texts if find(text, ALL_RULES)]
    assert len(flagged) <= 30, flagged


def test_the_audit_places_the_token_and_never_holds_the_value() -> None:
    rng = Rng(2)
    values = [(rule, MAKERS[rule](rng)) for rule in ALL_RULES for _ in range(5)]
    text = "".join(frame(rule, value, rng) for rule, value in values)
    new, replaced = replace_private(text, "a.txt", ALL_RULES, SEED)
    assert len(replaced) == len(values)
    for one in replaced:
        assert new[one.start : one.start + len(one.token)] == one.token
    shown = repr(replaced)
    for _, value in values:
        assert value not in new
        assert value not in shown
    assert sum(r.length for r in replaced) - sum(len(r.token) for r in replaced) == (
        len(text) - len(new)
    )


def test_the_same_value_has_the_same_token_in_any_order() -> None:
    rng = Rng(4)
    texts = [frame("email", email(rng), rng) for _ in range(30)]
    alone = [replace_private(text, "a.txt", ALL_RULES, SEED)[0] for text in texts]
    together = replace_private("".join(reversed(texts)), "a.txt", ALL_RULES, SEED)[0]
    assert together == "".join(reversed(alone))
    assert token_for("email", "a@b.org", 1) != token_for("email", "a@b.org", 2)
    assert token_for("email", "a@b.org", 1) == token_for("email", "a@b.org", 1)


def test_code_stays_code() -> None:
    """In Python, what is no string and no comment is left alone, and the result still parses."""
    source = (
        "import numpy\n"
        "n = 4539578763621486\n"
        "y = w.a@b.com\n"
        "m = self.x@self.weight, 'card 4539578763621486'  # bob@uni.de\n"
        'h = f"""é {n} amy@uni.de\n"""\n'
    )
    new, replaced = replace_private(source, "a.py", ALL_RULES, SEED)
    ast.parse(new)
    assert [r.rule for r in replaced] == ["card", "email", "email"]
    assert "n = 4539578763621486\n" in new
    assert "self.x@self.weight" in new
    assert "w.a@b.com" in new
    assert "@uni.de" not in new
    for one in replaced:
        assert new[one.start : one.start + len(one.token)] == one.token
    other, found = replace_private(source, "a.txt", ALL_RULES, SEED)
    assert len(found) == 6
    assert "b.com" not in other


@pytest.mark.parametrize("join", ["\n       ", " +\n       ", " \\\n  ", " + \\\n  "])
def test_a_key_over_several_strings_is_found_and_stays_masked_beside_code(join: str) -> None:
    """`a@b.tv` is code that looks like an address: replacing it breaks the file, the key not."""
    lines = private_key(Rng(3)).split("\n")
    quoted = join.join(f'"{line}\\n"' for line in lines)
    source = f"y = a@b.tv\nKEY = ({quoted})  # of amy@uni.de\n"
    new, replaced = replace_private(source, "a.py", ALL_RULES, SEED)
    ast.parse(new)
    assert [r.rule for r in replaced] == ["private_key", "email"]
    assert "y = a@b.tv\n" in new
    assert not any(line in new for line in lines)


def test_a_key_of_pluses_is_read_in_linear_time() -> None:
    """The plus of base64 and the plus between strings must not be two ways to read one text."""
    text = "-----BEGIN PRIVATE KEY-----" + "+" * 20_000 + '" + "' * 20_000 + "!"
    assert len(find(text, ["private_key"])) == 1


def test_masked_text_has_nothing_left_to_mask() -> None:
    rng = Rng(8)
    text = "".join(frame(rule, MAKERS[rule](rng), rng) for rule in ALL_RULES * 20)
    once = replace_private(text, "a.txt", ALL_RULES, SEED)[0]
    assert replace_private(once, "a.txt", ALL_RULES, SEED) == (once, [])


def test_only_the_given_rules() -> None:
    text = "a@uni.de 4539 5787 6362 1486"
    assert replace_private(text, "a.txt", ["card"], SEED)[0].startswith("a@uni.de <CARD:")


def test_the_first_rule_wins_where_two_claim_the_same() -> None:
    text = "ftp://bob:Z9x81Kq@firm.de"
    first = replace_private(text, "a.txt", ["url_password", "email"], SEED)[0]
    assert first.startswith("ftp://bob:<PASSWORD:")
    assert first.endswith("@firm.de")


@given(st.text(max_size=80), st.sampled_from(["a.py", "a.txt"]))
def test_any_text(text: str, path: str) -> None:
    new, replaced = replace_private(text, path, ALL_RULES, SEED)
    assert bool(replaced) == (new != text)


@given(st.text("0123456789-+ ().:@abAB/=\n", max_size=200))
def test_texts_made_of_what_rules_look_for(text: str) -> None:
    new, replaced = replace_private(text, "a.txt", ALL_RULES, SEED)
    for one in replaced:
        assert new[one.start : one.start + len(one.token)] == one.token


@pytest.mark.parametrize(("digits", "good"), [("79927398713", True), ("79927398710", False)])
def test_luhn(digits: str, good: bool) -> None:
    assert private_rules.luhn(digits) == good


@pytest.mark.parametrize(
    ("account", "good"),
    [("GB82WEST12345698765432", True), ("GB82WEST12345698765431", False), ("ÄB", False)],
)
def test_iban(account: str, good: bool) -> None:
    assert private_rules.iban_checks(account) == good


def test_every_rule_has_a_finder_and_a_label() -> None:
    assert set(private_rules.FINDERS) == set(ALL_RULES)
    assert len({finder.label for finder in private_rules.FINDERS.values()}) == len(ALL_RULES)
    assert set(private.AUDIT_SCHEMA) == {
        "id", "source", "path", "rule", "start", "length", "token",
    }  # fmt: skip
