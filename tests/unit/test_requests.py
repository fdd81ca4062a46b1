"""Requests as values: two encodings of one question are one, every default is filled in, every refusal named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import errors as table
from service.bodies import nest
from service.lines import read_lines, result_lines
from service.requests import VideoRequest, parse
from service.resolving import resolve
from service.views import progress, video
from workers.contracts import errors
from workers.contracts.batch import LineError, Outcome
from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.job import MAX_SEED, Job, JobSpec, JobStatus, Priority, Stage

QUICK = settings(max_examples=40, deadline=None)
ENTRY = CatalogueEntry(
    name="demo",
    hash="0" * 64,
    classes=("sky", "lava"),
    samplers=("euler", "heun"),
    grid=4,
    coarse_size=16,
    refined_size=32,
    max_frames=64,
    max_steps=100,
    max_guidance_scale=8.0,
    default_num_frames=16,
    default_fps=8,
    default_sampler="euler",
    default_steps=4,
    default_refine_steps=2,
    default_guidance_scale=1.5,
    seen_at=1.0,
)
UNCONDITIONAL = ENTRY.evolve(name="plain", classes=())
CATALOGUE = {entry.name: entry for entry in (ENTRY, UNCONDITIONAL.evolve(is_default=False))}

good_fields = st.fixed_dictionaries(
    {"prompt": st.sampled_from(ENTRY.classes)},
    optional={
        "model": st.just("demo"),
        "num_frames": st.integers(1, 64),
        "fps": st.integers(1, 120),
        "seed": st.integers(0, MAX_SEED),
        "num_inference_steps": st.integers(1, 100),
        "sampler": st.sampled_from(ENTRY.samplers),
        "guidance_scale": st.floats(1, 8),
        "priority": st.sampled_from([priority.value for priority in Priority]),
        "deadline_seconds": st.floats(1, 600),
        "stages": st.sampled_from([stage.value for stage in Stage]),
        "metadata": st.dictionaries(
            st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text("abc", min_size=1), max_size=4
        ),
    },
)


def spec(**fields: Any) -> JobSpec:
    return resolve(parse({"prompt": "sky"} | fields), catalogue=CATALOGUE).spec


def as_form(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as a form sends them: strings, nested by brackets."""
    pairs: list[tuple[str, Any]] = []
    for name, value in fields.items():
        inner = value.items() if isinstance(value, dict) else ()
        pairs += [(f"{name}[{key}]", text) for key, text in inner] if isinstance(value, dict) else [(name, str(value))]
    return nest(pairs)


class TestParse:
    @QUICK
    @given(good_fields)
    def test_a_form_asks_what_json_asks(self, fields: dict[str, Any]) -> None:
        by_json, by_form = parse(fields), parse(as_form(fields))
        assert by_form.model_dump(exclude={"metadata"}) == by_json.model_dump(exclude={"metadata"})
        assert (by_form.metadata or {}) == (by_json.metadata or {})

    @QUICK
    @given(good_fields.filter(lambda fields: fields.get("metadata") != {}))
    def test_its_digest_is_the_same_too(self, fields: dict[str, Any]) -> None:
        assert parse(as_form(fields)).digest == parse(dict(reversed(fields.items()))).digest

    @QUICK
    @given(good_fields, good_fields)
    def test_what_differs_has_another_digest(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        first, second = parse(one), parse(other)
        assert (first.digest == second.digest) == (
            first == second and first.model_fields_set == second.model_fields_set
        )

    def test_nested_forms(self) -> None:
        assert nest([("a[b]", "1"), ("a[c]", "2"), ("d", "")]) == {"a": {"b": "1", "c": "2"}}
        assert nest([("metadata", '{"a": "b"}')]) == {"metadata": {"a": "b"}}
        for twice in ([("a", "1"), ("a", "2")], [("a", "1"), ("a[b]", "2")]):
            with pytest.raises(errors.InvalidRequest, match="more than once"):
                nest(twice)

    def test_every_fault_is_told_at_once(self) -> None:
        with pytest.raises(errors.InvalidRequest) as refused:
            parse({"num_frames": 0, "fps": "x", "colour": 1})
        assert refused.value.param == "num_frames"
        for words in ("num_frames must be at least 1", "fps must be a whole number", "Unknown field 'colour'"):
            assert words in refused.value.message

    def test_what_asks_for_nothing_new_is_fine(self) -> None:
        parse({"mode": "sound", "cache": False, "spacing": None, "webhook_url": None, "output": {"format": "mp4"}})


class TestResolve:
    @QUICK
    @given(good_fields)
    def test_what_was_asked_is_in_the_spec_and_the_rest_is_the_bundles(self, fields: dict[str, Any]) -> None:
        got = resolve(parse(fields), catalogue=CATALOGUE).spec.model_dump(mode="json")
        defaults = {
            "model": "demo",
            "num_frames": 16,
            "fps": 8,
            "num_inference_steps": 4,
            "sampler": "euler",
            "guidance_scale": 1.5,
            "priority": "normal",
            "deadline_seconds": None,
            "stages": "refined",
            "metadata": {},
        }
        asked = {name: value for name, value in fields.items() if name != "prompt"}
        assert {name: got[name] for name in defaults | asked} == defaults | asked
        assert got["class_label"] == fields["prompt"]

    def test_a_seed_is_drawn_where_none_is_given(self) -> None:
        seeds = {spec().seed for _ in range(8)}
        assert len(seeds) == 8
        assert all(0 <= seed <= MAX_SEED for seed in seeds)
        assert spec(seed=0).seed == 0

    @pytest.mark.parametrize(("seconds", "fps", "frames"), [("4", 8, 32), (0.5, 10, 5), ("1.26", 8, 10), (8, 8, 64)])
    def test_seconds_are_frames(self, seconds: object, fps: int, frames: int) -> None:
        assert spec(seconds=seconds, fps=fps).num_frames == frames
        assert spec(seconds=seconds, fps=fps, num_frames=frames).num_frames == frames

    @pytest.mark.parametrize("seconds", [0.01, "8.1", 1e300])
    def test_too_short_and_too_long_name_the_limit(self, seconds: object) -> None:
        with pytest.raises(errors.InvalidRequest, match="at most 8 seconds") as refused:
            spec(seconds=seconds)
        assert refused.value.param == "seconds"

    def test_the_size_is_that_of_the_last_stage(self) -> None:
        assert spec(size="32x32").size == "32x32"
        assert spec(size="16x16", stages="coarse").size == "16x16"
        with pytest.raises(errors.InvalidRequest, match="size must be 16x16"):
            spec(size="32x32", stages="coarse")

    def test_a_bundle_without_classes_ignores_the_prompt_and_says_so(self) -> None:
        resolved = resolve(parse({"model": "plain", "prompt": "anything"}), catalogue=CATALOGUE)
        assert resolved.spec.class_label is None
        assert resolved.warnings == ("prompt was ignored: model 'plain' has no classes.",)
        assert not resolve(parse({"model": "plain"}), catalogue=CATALOGUE).warnings

    def test_the_label_may_come_under_either_name(self) -> None:
        label = resolve(parse({"class_label": "lava"}), catalogue=CATALOGUE).spec.class_label
        assert label == "lava"
        with pytest.raises(errors.InvalidRequest, match="differ"):
            spec(class_label="lava")

    def test_the_user_is_kept_in_the_metadata(self) -> None:
        assert spec(user="u", metadata={"a": "b"}).metadata == {"user": "u", "a": "b"}

    def test_without_any_model_nothing_can_be_asked(self) -> None:
        with pytest.raises(errors.Unavailable):
            resolve(parse({"prompt": "sky"}), catalogue={})


class TestLines:
    def line(self, custom_id: str, **body: Any) -> str:
        request = {"custom_id": custom_id, "method": "POST", "url": "/v1/videos", "body": {"prompt": "sky"} | body}
        return json.dumps(request)

    def test_lines_keep_their_numbers_over_blank_ones(self) -> None:
        lines = read_lines(f"\n{self.line('a')}\r\n\n{self.line('b')}\n".encode("utf-8-sig"), catalogue=CATALOGUE)
        assert [(line.number, line.custom_id) for line in lines] == [(2, "a"), (4, "b")]
        assert all(line.request and line.request.priority is Priority.LOW for line in lines)

    @pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe", b"x\n" * 10_001])
    def test_a_file_that_is_none_is_refused_as_a_whole(self, content: bytes) -> None:
        with pytest.raises(errors.InvalidRequest):
            read_lines(content, catalogue=CATALOGUE)

    def test_results_go_to_one_file_and_errors_to_the_other_in_order(self) -> None:
        fault = LineError(line=2, code="x", message="y")
        outcomes = {
            1: Outcome(custom_id="a", body={"id": 1}),
            2: Outcome(custom_id="b", error=fault),
            3: Outcome(custom_id="c", body={"id": 3}),
        }
        good, bad = ([json.loads(entry) for entry in part.splitlines()] for part in result_lines("batch_1", outcomes))
        assert [(entry["custom_id"], entry["response"]["body"], entry["error"]) for entry in good] == [
            ("a", {"id": 1}, None),
            ("c", {"id": 3}, None),
        ]
        assert [(entry["custom_id"], entry["response"], entry["error"]["code"]) for entry in bad] == [("b", None, "x")]


class TestViews:
    def job(self, **changes: Any) -> Job:
        return Job(id="video_1", spec=spec(num_frames=10), created_at=100.0).evolve(**changes)

    @QUICK
    @given(st.integers(0, 10), st.integers(0, 10), st.sampled_from(JobStatus))
    def test_progress_is_100_once_completed_and_never_before(
        self, coarse: int, refined: int, status: JobStatus
    ) -> None:
        told = progress(self.job(status=status, coarse_done=coarse, refined_done=refined))
        assert 0 <= told <= 100
        assert (told == 100) == (status is JobStatus.COMPLETED)

    def test_progress_counts_the_stages_that_were_asked(self) -> None:
        half = {"coarse_done": 5, "status": JobStatus.IN_PROGRESS}
        assert progress(self.job(**half)) == 25
        assert progress(self.job(**half).evolve(spec=spec(num_frames=10, stages="coarse"))) == 50

    def test_the_time_left_follows_the_pace_so_far(self) -> None:
        running = self.job(status=JobStatus.IN_PROGRESS, started_at=100.0, coarse_done=5)
        assert video(running, now=110.0)["eta_seconds"] == 30.0
        assert video(self.job(), now=110.0)["eta_seconds"] is None

    def test_a_job_is_json(self) -> None:
        assert json.loads(json.dumps(video(self.job(), now=110.0)))["id"] == "video_1"


def all_errors(kind: type[errors.GriditError] = errors.GriditError) -> list[type[errors.GriditError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in all_errors(child))]


class TestErrorTable:
    @pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
    def test_every_error_has_a_status_that_says_the_same_as_it_does(self, kind: type[errors.GriditError]) -> None:
        status = table.status_of(kind)
        assert 400 <= status < 600
        assert (status in (429, 503)) <= kind.retryable

    def test_the_nearest_ancestor_decides(self) -> None:
        assert table.status_of(errors.NotReady) == 409
        assert table.status_of(errors.Unsupported) == 422
        assert table.status_of(errors.NumericalError) == 500

    @pytest.mark.parametrize(("asked", "sent"), [(None, "5"), (0, "1"), (7, "7"), (100_000, "120")])
    def test_a_retry_is_asked_for_within_two_minutes(self, asked: int | None, sent: str) -> None:
        scope = {"type": "http", "path": "/"}
        answer = table.problem(errors.QueueFull("full", retry_after=asked), scope=scope)
        assert answer.headers["retry-after"] == sent


def test_every_field_of_a_request_is_described_or_speaks_for_itself() -> None:
    plain = {"sampler", "fps", "guidance_scale", "priority", "metadata", "output", "mode"}
    described = {
        name for name, field in VideoRequest.model_json_schema()["properties"].items() if "description" in field
    }
    assert set(VideoRequest.model_fields) - described <= plain
