"""Frames of the scripted expert of a robot's task."""

from configs.bc import BCConfig
from training.export.robots import expert_episodes


def test_the_expert_of_a_robots_task_is_played_to_the_end_of_each_episode() -> None:
    config = BCConfig.parse({"demonstrations": {"episodes": 3, "noise": 0.0}, "table": {"side": 16}})
    shown = list(expert_episodes(config))
    assert all(episode.frames[-1].done and episode.frames[-1].success for episode in shown)
    assert all(not frame.done for episode in shown for frame in episode.frames[:-1])
    assert len({frame.state.tobytes() for episode in shown for frame in episode.frames}) > 10, "nothing moved"
    again = list(expert_episodes(config))
    assert [frame.action.tolist() for frame in again[2].frames] == [frame.action.tolist() for frame in shown[2].frames]


def test_disturbances_are_executed_and_the_experts_wish_is_recorded() -> None:
    def frames(noise: float) -> int:
        config = BCConfig.parse({"demonstrations": {"episodes": 3, "noise": noise}, "table": {"side": 16}})
        episodes = list(expert_episodes(config))
        assert all(abs(value) <= 1.0 for episode in episodes for frame in episode.frames for value in frame.action)
        return sum(len(episode.frames) for episode in episodes)

    assert frames(0.4) > frames(0.0), "nothing disturbed the way to the goal"
