"""Frames of the scripted expert of a robot's task."""

from configs.bc import ReachTable
from training.export.robots import expert_episodes


def test_the_expert_of_a_robots_task_is_played_to_the_end_of_each_episode() -> None:
    shown = list(expert_episodes(ReachTable(side=16), 3))
    assert all(episode.frames[-1].done and episode.frames[-1].success for episode in shown)
    assert all(not frame.done for episode in shown for frame in episode.frames[:-1])
    assert len({frame.state.tobytes() for episode in shown for frame in episode.frames}) > 10, "nothing moved"
    again = list(expert_episodes(ReachTable(side=16), 3))
    assert [frame.action.tolist() for frame in again[2].frames] == [frame.action.tolist() for frame in shown[2].frames]
