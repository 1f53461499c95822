"""Who goes first: priorities, fair shares, age; and who gives way when blocks or rows run out."""

from __future__ import annotations

from ift_serve.engine.protocol.generate import GenerateRequest
from tests.support.engine_driver import Driver, generate, make_core, solo
from tests.support.paged_oracle import PagedOracle


def prompt(seed: int, length: int = 7) -> list[int]:
    return [(seed * 31 + k * k * 7) % 90 + 1 for k in range(length)]


def end_order(driver: Driver) -> list[str]:
    order: list[str] = []
    while driver.core.has_work():
        driver.step()
        order += [name for name, answer in driver.answers.items() if answer.finished and name not in order]
    return order


def one_by_one() -> Driver:
    """One row: requests end in the order of their admission."""
    return Driver(make_core(PagedOracle(64), max_sequences=1))


def test_age_decides_between_equals() -> None:
    driver = one_by_one()
    driver.add(*[generate(f"r{i}", prompt(i)) for i in range(4)])
    assert end_order(driver) == ["r0", "r1", "r2", "r3"]


def test_priority_goes_before_age() -> None:
    driver = one_by_one()
    driver.add(*[generate(f"r{i}", prompt(i), priority=i % 2) for i in range(4)])
    assert end_order(driver) == ["r1", "r3", "r0", "r2"]


def test_a_client_with_few_requests_does_not_wait_for_one_with_many() -> None:
    driver = one_by_one()
    driver.add(*[generate(f"many{i}", prompt(i), client="many") for i in range(6)])
    for _ in range(10):
        driver.step()
    driver.add(generate("few0", prompt(20), client="few"), generate("few1", prompt(21), client="few"))
    order = end_order(driver)
    assert order.index("few0") <= 2
    assert order.index("few1") < order.index("many4")


def test_shares_are_of_tokens_not_of_requests() -> None:
    driver = one_by_one()
    for i in range(4):
        driver.add(generate(f"long{i}", prompt(i), client="long", max_new_tokens=60))
        driver.add(generate(f"short{i}", prompt(i + 9), client="short", max_new_tokens=6))
    order = end_order(driver)
    assert order.index("short3") < order.index("long1") + 1


def test_pausing_earns_no_credit() -> None:
    driver = one_by_one()
    driver.add(generate("idle", prompt(0), client="idle", max_new_tokens=2))
    driver.run()
    driver.add(*[generate(f"busy{i}", prompt(i), client="busy", max_new_tokens=40) for i in range(1, 4)])
    while not driver.answers["busy1"].finished:
        driver.step()
    driver.add(*[generate(f"idle{i}", prompt(i + 9), client="idle", max_new_tokens=40) for i in range(6)])
    order = end_order(driver)
    assert order.index("busy3") < order.index("idle4"), "the one who came back took it all"


def test_a_long_prompt_is_not_passed_over_for_short_ones() -> None:
    driver = Driver(make_core(PagedOracle(24), max_sequences=8, max_batch_tokens=32))
    driver.add(*[generate(f"short{i}", prompt(i), max_new_tokens=12) for i in range(4)])
    driver.step()
    driver.add(generate("long", prompt(50, 80), max_new_tokens=4))
    for i in range(30):
        driver.add(generate(f"later{i}", prompt(60 + i), max_new_tokens=12))
        driver.step()
    assert driver.answers["long"].finished
    driver.run()


def test_a_more_urgent_request_takes_the_row_of_the_newest_less_urgent_one() -> None:
    driver = Driver(make_core(PagedOracle(64), max_sequences=2))
    requests = [generate(f"low{i}", prompt(i), max_new_tokens=12) for i in range(2)]
    driver.add(*requests)
    driver.step()
    driver.step()
    driver.add(generate("high", prompt(9), priority=1, max_new_tokens=4))
    order = end_order(driver)
    assert order == ["high", "low0", "low1"]
    assert driver.answers["low1"].usage.preemptions == 1  # type: ignore[union-attr]
    assert driver.answers["low0"].usage.preemptions == 0  # type: ignore[union-attr]
    assert all(driver.answers[r.request_id].tokens == solo(r).tokens for r in requests)


def test_equal_priority_preempts_nobody_to_start() -> None:
    driver = Driver(make_core(PagedOracle(64), max_sequences=1))
    driver.add(generate("a", prompt(1)), generate("b", prompt(2)))
    driver.run()
    assert driver.core.stats().preemptions == 0


def run_out_of_blocks(*requests: GenerateRequest) -> Driver:
    driver = Driver(make_core(PagedOracle(10), max_sequences=8))
    driver.add(*requests)
    driver.run()
    for request in requests:
        assert driver.answers[request.request_id].tokens == solo(request).tokens
    return driver


def test_when_blocks_run_out_the_newest_gives_way_and_keeps_what_it_generated() -> None:
    driver = run_out_of_blocks(*[generate(f"r{i}", prompt(i), max_new_tokens=20) for i in range(3)])
    preemptions = [answer.usage.preemptions for answer in driver.answers.values()]  # type: ignore[union-attr]
    assert preemptions[0] == 0
    assert preemptions[2] > 0


def test_when_blocks_run_out_the_least_urgent_gives_way() -> None:
    first = generate("first", prompt(1), max_new_tokens=20, priority=0)
    second = generate("second", prompt(2), max_new_tokens=20, priority=1)
    driver = run_out_of_blocks(first, second)
    assert driver.answers["second"].usage.preemptions == 0  # type: ignore[union-attr]
    assert driver.answers["first"].usage.preemptions > 0  # type: ignore[union-attr]


def test_candidates_that_do_not_fit_together_take_turns() -> None:
    run_out_of_blocks(generate("a", prompt(1), max_new_tokens=30, candidates=4, temperature=1.0))
