from __future__ import annotations

from deployments.chunks.prompts import NO_WORD, word_ids


def test_a_prompt_has_the_same_numbers_in_every_process() -> None:
    # CRC-32 of "123456789" is 0xCBF43926 = 3421780262 (its check value); 3421780262 mod 999 = 467. Python's own hash of
    # a text differs from process to process.
    assert word_ids("123456789", 2, 1000).tolist() == [468, NO_WORD]


def test_case_and_spaces_do_not_matter_and_punctuation_is_a_word() -> None:
    assert word_ids("  Reach the RED\nobject", 8, 1000).tolist() == word_ids("reach the red object", 8, 1000).tolist()
    assert word_ids("go!", 4, 1000)[1] != NO_WORD


def test_a_long_prompt_is_cut_and_an_empty_one_has_no_words() -> None:
    assert word_ids("a b c d", 2, 1000).tolist() == word_ids("a b", 2, 1000).tolist()
    assert word_ids("", 3, 1000).tolist() == [NO_WORD] * 3


def test_every_number_lies_in_the_table_and_none_is_that_of_no_word() -> None:
    ids = word_ids(" ".join(map(str, range(500))), 500, 7)
    assert ids.min() >= 1
    assert ids.max() <= 6
