"""What `--workers` asks for: devices, names, what each process sees, and errors for what makes no sense."""

import pytest

from reeltune.errors import DeviceMissing, WorkersError
from reeltune.jobs.devices import one_worker, parse_workers
from reeltune.jobs.local import local_workers
from reeltune.jobs.worker import limit_threads
from reeltune.machine import Gpu, Machine

GB = 2**30
CARDS = (Gpu("A", 24 * GB, 8.9), Gpu("B", 80 * GB, 9.0))
PLAIN = Machine(64 * GB, 60 * GB)
TWO = Machine(64 * GB, 60 * GB, gpus=CARDS)
APPLE = Machine(64 * GB, 60 * GB, apple=True)
AMD = Machine(64 * GB, 60 * GB, unlisted=True)


def parse(text, machine=TWO, environment=None, **options):
    return parse_workers(text, machine, environment or {}, cores=8, **options)


def test_without_the_option_there_is_one_worker_on_the_device_of_the_preferences():
    worker = one_worker(TWO, "cuda:1")
    assert (worker.name, worker.device, worker.memory_bytes) == ("local-1", "cuda:1", 80 * GB)
    assert (worker.option, worker.threads, dict(worker.environment)) == ("", 0, {})  # the process sees everything


def test_auto_is_one_worker_for_each_card():
    first, second = parse(" AUTO ")
    assert (first.name, first.device, first.option, first.memory_bytes) == ("cuda-0", "cuda:0", "cuda", 24 * GB)
    assert (second.name, second.device, second.option, second.memory_bytes) == ("cuda-1", "cuda:1", "cuda", 80 * GB)
    assert second.environment == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert first.threads == 4


@pytest.mark.parametrize("machine", [PLAIN, APPLE, AMD])
def test_auto_without_nvidia_cards_is_one_worker_as_without_the_option(machine):
    assert parse("auto", machine) == (one_worker(machine),)


def test_a_number_takes_the_first_cards_or_so_many_cpu_workers():
    assert [worker.device for worker in parse("1")] == ["cuda:0"]
    assert parse("1")[0].threads == 0
    workers = parse("3", PLAIN)
    assert [(worker.name, worker.device, worker.threads) for worker in workers] == [
        ("cpu-1", "cpu", 2),
        ("cpu-2", "cpu", 2),
        ("cpu-3", "cpu", 2),
    ]
    assert all(worker.environment == {"CUDA_VISIBLE_DEVICES": ""} for worker in workers)
    assert [worker.device for worker in parse("1", APPLE)] == ["mps"]


def test_more_workers_than_cores_have_one_thread_each():
    assert {worker.threads for worker in parse("64", PLAIN)} == {1}


def test_a_list_names_devices():
    assert [worker.name for worker in parse("cuda:1, cpu,CPU")] == ["cuda-1", "cpu-1", "cpu-2"]
    assert [worker.device for worker in parse("cuda", AMD)] == ["cuda:0"]
    assert parse("cuda", AMD)[0].memory_bytes is None


def test_cards_are_counted_among_those_that_are_visible():
    visible = {"CUDA_VISIBLE_DEVICES": "2,5"}
    assert [worker.environment["CUDA_VISIBLE_DEVICES"] for worker in parse("auto", environment=visible)] == ["2", "5"]
    assert parse("cuda:1", environment=visible)[0].environment["CUDA_VISIBLE_DEVICES"] == "5"
    named = {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    first, second = parse("2", environment=named)
    assert (first.environment, second.environment) == (
        {"CUDA_VISIBLE_DEVICES": "GPU-b"},
        {"CUDA_VISIBLE_DEVICES": "GPU-a"},
    )
    assert first.memory_bytes is None  # which card it is isn't known
    with pytest.raises(DeviceMissing, match="makes 2 of the cards visible"):
        parse("cuda:2", environment=named)


@pytest.mark.parametrize(
    ("text", "machine", "error", "words"),
    [
        ("3", TWO, DeviceMissing, "3 workers need 3 cards, and this machine has 2 NVIDIA cards"),
        ("2", Machine(1, 1, gpus=CARDS[:1]), DeviceMissing, "has one NVIDIA card"),
        ("2", APPLE, DeviceMissing, "has one"),
        ("2", AMD, WorkersError, "can't be counted"),
        ("0", PLAIN, WorkersError, "0 workers"),
        ("-1", PLAIN, WorkersError, "-1 workers"),
        ("1000000", PLAIN, WorkersError, "1000000 workers"),
        ("9" * 5000, PLAIN, WorkersError, "Invalid workers '999"),
        ("", TWO, WorkersError, "Invalid workers ''"),
        ("auto,cpu", TWO, WorkersError, "Invalid workers 'auto,cpu'"),
        ("cuda:x", TWO, WorkersError, "Invalid workers"),
        ("gpu", TWO, WorkersError, "Invalid workers 'gpu'"),
        ("cuda:0,cuda:0", TWO, WorkersError, "named 2 times"),
        ("cuda,cuda:0", TWO, WorkersError, "named 2 times"),
        ("mps,mps", APPLE, WorkersError, "named 2 times"),
        ("cuda:2", TWO, DeviceMissing, "cuda:1 .B."),
        ("cuda:0", PLAIN, DeviceMissing, "no NVIDIA GPU"),
        ("mps", TWO, DeviceMissing, "no Apple GPU"),
        (",".join(["cpu"] * 65), PLAIN, WorkersError, "65 workers"),
    ],
)
def test_nonsense_is_refused_with_a_next_step(text, machine, error, words):
    with pytest.raises(error, match=words) as caught:
        parse(text, machine)
    assert caught.value.hint


def test_workers_of_this_machine_get_their_device_and_threads(root, monkeypatch):
    monkeypatch.setattr("reeltune.jobs.local.probe", lambda: TWO)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (only,) = local_workers(root)
    assert (only.name, only.place.device, "--device" in only._command) == ("local-1", "cuda", False)
    _, second = local_workers(root, "2", save_quantized=True)
    assert second._command[second._command.index("--device") + 1] == "cuda"
    assert "--threads" in second._command
    assert "--save-quantized" in second._command
    assert second._environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert second.place.memory_bytes == 80 * GB


def test_threads_are_limited_and_a_smaller_limit_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "many")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "8")
    limit_threads(4)
    import os

    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    assert [os.environ[name] for name in names] == ["1", "4", "4"]
