"""Rows of the queue's file that another program has written, or that are damaged."""

import json
import sqlite3

import pytest
from inside import inside

from reeltune.jobs import Runner
from reeltune.service.drafts import draft_of_job
from reeltune.service.workspace import Workspace

ODD = [
    {"video_length": "1e999s"}, {"video_length": []}, {"video_length": "a"}, {"video_length": None},
    {"force_fps": "nan"}, {"force_fps": "x"}, {"force_fps": []}, {"resolution": 5}, {"resolution": None},
    {"sample_solver": 7}, {"multi_prompts_gen_type": []}, {"config": {}}, {"guidance_phases": "x"}, {"prompt": 5},
]  # fmt: skip


@pytest.mark.parametrize("settings", ODD, ids=json.dumps)
def test_a_row_with_an_odd_setting_hides_no_other_job(inside, settings):
    inside.queue.add("nano_t2v", {"prompt": "a fox"})
    with sqlite3.connect(inside.root / "reeltune.sqlite") as connection:
        columns = "definition, settings, state, position, created"
        values = ("nano_t2v", json.dumps(settings), "done", 7, 1.0)
        odd = connection.execute(f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?)", values).lastrowid
    connection.close()
    listed = {video["id"]: video["prompt"] for video in inside.ask("GET", "/v1/videos").json()["data"]}
    assert listed["video_1"] == "a fox"
    assert len(listed) == 2
    assert inside.ask("GET", f"/v1/videos/video_{odd}").status_code == 200
    workspace = Workspace(inside.root, Runner(inside.root))
    assert draft_of_job(workspace, workspace.queue.get(odd), edit=False).settings["num_inference_steps"]
