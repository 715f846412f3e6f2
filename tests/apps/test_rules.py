import pytest

from openlepton.apps.rules import read_rules
from openlepton.errors import RulesInvalid

FILE = """
[[zone]]
name = "yard"
points = [[0.1, 0.5], [0.9, 0.5], [0.9, 1.0]]

[[line]]
name = "gate"
points = [[0.5, 0.9], [0.5, 0.4]]

[ground]
points = [[0.2, 0.9], [0.8, 0.9], [0.6, 0.5], [0.4, 0.5]]
metres = [[0, 0], [6, 0], [6, 20], [0, 20]]

[[rule]]
kind = "intrusion"
zone = "yard"

[[rule]]
kind = "wrong-way"
line = "gate"
forbidden = "out"
classes = ["car"]

[[rule]]
kind = "running"
name = "fast"
min_kmh = 12

[[rule]]
kind = "abnormal"
model = "normal.json"

[[webhook]]
url = "https://example.org/hook?a=b"
token_env = "HOOK_TOKEN"

[privacy]
blur = "heads"

[clips]
before_s = 2
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_a_file_of_rules_is_read_with_its_defaults(path):
    rules = read_rules(path)
    assert [(rule.name, rule.kind, rule.after_s) for rule in rules.rule] == [
        ("intrusion", "intrusion", 0.5), ("wrong-way", "wrong-way", 0), ("fast", "running", 0.5), ("abnormal", "abnormal", 0.5),
    ]  # fmt: skip
    assert rules.rule[0].classes == ("person",)
    assert str(rules.webhook[0].url) == "https://example.org/hook?a=b"
    assert (rules.privacy.blur, rules.clips.before_s, rules.clips.after_s) == ("heads", 2, 5)


def test_a_model_is_found_beside_the_file_that_names_it(path):
    assert read_rules(path).rule[3].model == path.parent / "normal.json"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('zone = "yard"', 'zone = "yrd"', "rule 'intrusion' names the zone 'yrd', which is not drawn"),
        ('line = "gate"', 'line = "yard"', "rule 'wrong-way' names the line 'yard', which is not drawn"),
        (
            'kind = "intrusion"',
            'kind = "intrusoin"',
            "rule 1: Input tag 'intrusoin' found using 'kind' does not match any",
        ),
        ('kind = "intrusion"\nzone = "yard"', 'kind = "intrusion"', "rule 1, intrusion, zone: Field required"),
        ('zone = "yard"', 'zone = "yard"\nafter = 3', "rule 1, intrusion, after: Extra inputs are not permitted"),
        ('name = "fast"', 'name = "intrusion"', "rule: 2 rules are called 'intrusion'; give each a name of its own"),
        ('"out"', '"sideways"', "rule 2, wrong-way, forbidden: Input should be 'in' or 'out'"),
        ('["car"]', "[]", "rule 2, wrong-way, classes: Tuple should have at least 1 item"),
        ("https://example.org", "ftp://example.org", "webhook 1, url: URL scheme should be 'http' or 'https'"),
        ("https://example.org", "https://me:pw@example.org", "webhook 1, url: no user or password in a URL"),
        ("https://example.org", "file:///etc/passwd#", "webhook 1, url: URL scheme should be 'http' or 'https'"),
        ('"HOOK_TOKEN"', '"secret token"', "webhook 1, token_env: String should match pattern"),
        ('"heads"', '"faces"', "privacy, blur: Input should be 'none', 'persons' or 'heads'"),
        ("before_s = 2", "before_s = 2000", "clips, before_s: Input should be less than or equal to 30"),
        ("min_kmh = 12", "min_kmh = -1", "rule 3, running, min_kmh: Input should be greater than 0"),
    ],
)
def test_a_fault_is_told_in_one_line_with_its_place(path, before, after, message):
    path.write_text(FILE.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(RulesInvalid) as caught:
        read_rules(path)
    assert str(caught.value).startswith(f"{path}: {message}"), caught.value
    assert "\n" not in str(caught.value)


def test_a_speed_in_kilometres_an_hour_needs_a_ground(path):
    text = FILE[: FILE.index("[ground]")] + FILE[FILE.index("[[rule]]") :]
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RulesInvalid, match="rule 'fast' has min_kmh, which takes a \\[ground\\]"):
        read_rules(path)


def test_a_file_without_rules_is_an_error(path):
    path.write_text('[[zone]]\nname = "a"\npoints = [[0, 0], [1, 0], [1, 1]]\n', encoding="utf-8")
    with pytest.raises(RulesInvalid, match="rule: Field required"):
        read_rules(path)
