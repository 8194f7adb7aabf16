import pytest

from hf_elhsr._checks import whole_number


@pytest.mark.parametrize(("value", "at_least"), [(1, 1), (7, 1), (0, 0), (-3, None), (2, 2)])
def test_whole_numbers_pass_as_they_are(value, at_least):
    assert whole_number("seed", value, at_least) == value


@pytest.mark.parametrize("value", [True, False, 2.0, "2", None, 1])
def test_the_error_names_argument_value_and_bound(value):
    with pytest.raises(ValueError, match=rf"^prompts={value!r}: expected a whole number of at least 2\.$"):
        whole_number("prompts", value, at_least=2)


@pytest.mark.parametrize("value", [True, 0.5])
def test_without_a_bound_the_type_counts(value):
    with pytest.raises(ValueError, match=rf"^seed={value!r}: expected a whole number\.$"):
        whole_number("seed", value, at_least=None)
