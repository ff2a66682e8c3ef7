"""Forms that contradict themselves."""

import pytest
from inside import inside, refusal_of

URLENCODED = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("field", ["seed", "settings[seed]", "settings[seed][]x"])
def test_a_field_that_is_sent_twice_is_refused(inside, field):
    error = refusal_of(inside.ask("POST", "/v1/videos", f"prompt=x&{field}=1&{field}=2".encode(), URLENCODED))
    assert error["code"] == "invalid_form"
    assert error["message"] == f"{field} was sent twice."


def test_a_list_is_sent_item_by_item(inside):
    body = b"prompt=x&model=nano_t2v&activated_loras[]=gone_1&activated_loras[]=gone_2"
    assert "gone_1" in refusal_of(inside.ask("POST", "/v1/videos", body, URLENCODED))["message"]
