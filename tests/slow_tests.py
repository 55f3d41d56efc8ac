"""The tests that may take more than five seconds on a quiet core, each with its reason.

The end of a run names a test that takes longer and is not listed here. It does not fail, since
another process may have slowed it down.
"""

from typing import Final

LIMIT_SECONDS: Final = 5

REASONS: Final[dict[str, str]] = {
    "tests/benchmarks/test_crash.py::test_a_killed_scan_loses_nothing_and_ends_with_the_same_bytes":
        "starts a process that scans and is killed again and again",
    "tests/benchmarks/test_crash.py::test_two_writers_that_keep_being_killed_lose_nothing":
        "starts two writers and a reader that are killed again and again",
    "tests/benchmarks/test_models.py::test_the_reference_gives_all_attention_to_some_role":
        "its fixture starts a process that loads diffusers and samples every variant",
    "tests/benchmarks/test_relational_heads.py::test_the_results_are_those_of_the_packaged_models":
        "reads the weights of every packaged model",
    "tests/cli/test_commands.py::test_train_resumes_and_publishes":
        "evaluates what it trained, as a user's training does",
    "tests/cli/test_contextual.py::test_a_contextual_model_is_trained_scanned_and_ranked":
        "loads a pretrained text encoder and goes the whole way",
    "tests/cli/test_stopping.py::test_a_scan_that_is_told_to_stop_says_how_to_go_on":
        "starts the command in a process of its own for each signal",
    "tests/cli/test_stopping.py::test_a_second_ctrl_c_ends_it_at_once_and_loses_nothing":
        "starts the command in a process of its own",
    "tests/clustering/test_neighbours.py::test_a_fork_of_a_process_that_used_threads_can_search":
        "imports torch and FAISS in a process of its own",
    "tests/experiments/test_parallel.py::test_ctrl_c_saves_every_experiment_and_the_same_command_goes_on":
        "starts the command and a training, deep two, each in a process",
    "tests/experiments/test_parallel.py::test_in_parallel_comes_out_what_comes_out_one_by_one":
        "starts a training in a process, deep two, and one in its own",
    "tests/guards/test_help_is_light.py::test_help_and_version_answer_without_any_heavy_library":
        "its fixture runs a hundred commands, each in a fork",
    "tests/hostile/test_memory.py::test_no_file_takes_more_memory_than_it_has_bytes":
        "reads thirty files in a process whose memory is bounded",
    "tests/kernels/test_ahead_of_time.py::test_kernels_compile_for_chips_without_spilling_and_use_its_tensor_cores":
        "compiles every kernel for two chips, deep for three",
    "tests/kernels/test_interpreter.py::test_interpreted_kernels_keep_every_law_of_sketch_attention":
        "interprets the kernels, which needs a process of its own",
    "tests/scanning/test_distributed.py::test_a_worker_may_be_killed":
        "starts a Dask cluster of two processes, one of which is killed and replaced",
    "tests/scanning/test_distributed.py::test_processes_end_with_the_bytes_of_one":
        "starts two worker processes",
    "tests/store/test_letting_go.py::test_a_scan_is_the_same_after_any_failing_call":
        "writes a store for every call that can fail",
    "tests/store/test_state_machine.py::test_a_store_is_what_its_model_says":
        "runs several histories of a store of up to 25 steps",
}  # fmt: skip
"""Reason by test: the part of its name before any `[`, with the path of its file."""


def allows(nodeid: str) -> bool:
    """Whether a test may be slow."""
    return nodeid.partition("[")[0] in REASONS
