"""What is asked for again is rendered once, within a bound."""

from __future__ import annotations

from training.rendering.ids_cache import IdsCache, Key


def key(content: str) -> Key:
    return (("user", content, ()),)


def test_what_is_asked_for_again_is_rendered_once() -> None:
    rendered: list[Key] = []
    cache = IdsCache(lambda k: (rendered.append(k), (1, 2))[1], max_bytes=1000)
    assert cache(key("a")) == cache(key("a")) == (1, 2)
    assert rendered == [key("a")]


def test_the_least_recently_used_results_go_when_the_bytes_are_over() -> None:
    rendered: list[Key] = []
    # each result: 10 ids of 8 bytes, "user" and one letter: 85 bytes; two fit
    cache = IdsCache(lambda k: (rendered.append(k), (0,) * 10)[1], max_bytes=200)
    for content in ("a", "b", "a", "c", "a", "b"):
        cache(key(content))
    assert rendered == [key("a"), key("b"), key("c"), key("b")]
    assert cache.bytes == 170


def test_a_result_that_is_too_large_is_given_and_not_kept() -> None:
    cache = IdsCache(lambda k: (0,) * 100, max_bytes=200)
    assert len(cache(key("long"))) == 100
    assert cache.bytes == 0
