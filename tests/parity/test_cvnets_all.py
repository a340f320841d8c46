"""The defects of the trainer that this one replaces, each with the test that keeps it away."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
OWN = "parity/test_cvnets_evaluation.py"
LOOP, RESUME = "parity/test_cvnets_loop.py", "parity/test_cvnets_resume.py"

DEFECTS: dict[int, tuple[str, ...]] = {
    # Easy samples
    1: ("engine/loop/test_epoch.py::test_observations_say_what_the_model_thought_of_each_sample",
        "engine/model/test_ema.py::test_the_average_changes_nothing_of_the_training"),
    2: ("data/policies/test_floors.py::test_when_nothing_is_easy_any_more_everything_returns",),
    3: ("data/samples/test_table.py::test_of_a_sample_that_an_epoch_saw_twice_the_first_row_counts",),
    4: ("data/samples/test_table.py::test_the_last_observation_counts_and_unseen_samples_keep_their_scores",),
    # scores are of training itself: no pass of its own, through augmentation or not
    5: ("engine/loop/test_epoch.py::test_observations_say_what_the_model_thought_of_each_sample",
        "data/samples/test_table.py::test_updating_changes_no_earlier_table"),
    6: ("data/policies/test_floors.py::test_a_million_samples_are_planned_in_milliseconds",),
    # one process: what is kept is cut into batches afresh in each epoch, not padded
    7: ("data/loading/test_order.py::test_micro_batches_are_the_order_cut_into_updates",),
    8: ("data/policies/test_floors.py::test_planning_again_from_the_planned_table_gives_the_same_plan",
        "whole/test_pipeline.py::test_a_failure_keeps_what_was_done_and_the_rerun_is_bitwise_the_same"),
    # Gradients and loop
    9: (f"{LOOP}::test_09_the_norm_under_float16_is_that_of_the_gradient_before_and_after_the_clip",
        "engine/loop/test_gradients.py::test_the_norm_of_a_scaled_loss_is_that_of_the_loss"),
    10: (f"{LOOP}::test_10_each_update_has_one_norm_and_one_that_is_not_finite_is_no_zero",),
    11: (f"{LOOP}::test_11_the_tail_is_stepped_and_a_loss_is_a_mean_over_its_update",
         "engine/loop/test_epoch.py::test_accumulated_micro_batches_are_one_large_batch"),
    12: (f"{LOOP}::test_12_neither_count_nor_average_advances_in_a_skipped_update",
         "engine/loop/test_gradients.py::test_a_skipped_update_changes_nothing_and_is_counted"),
    13: (f"{OWN}::test_13_a_limit_of_n_updates_makes_n_of_them_and_keeps_the_epochs_numbers",),
    14: (f"{OWN}::test_14_the_loss_is_measured_whatever_metrics_are_asked_for",),
    15: (f"{LOOP}::test_15_a_nan_and_an_interruption_are_errors_and_no_update_is_waited_for",
         "data/stage_store/test_mid_epoch.py::test_a_signal_is_obeyed_after_a_commit_at_that_very_micro_step"),
    16: ("rules/test_layout.py::test_nothing_sleeps_or_collects_garbage_between_stages",),
    # Checkpoints and resuming
    17: (f"{RESUME}::test_17_an_epoch_goes_on_inside_itself_each_sample_once",
         "data/stage_store/test_mid_epoch.py::test_an_epoch_goes_on_from_its_newest_commit_to_the_same_bytes"),
    18: (f"{RESUME}::test_18_updates_are_numbered_without_a_gap_after_a_resume",),
    19: (f"{OWN}::test_19_the_average_of_the_weights_has_a_best_epoch_of_its_own",),
    20: (f"{RESUME}::test_20_one_commit_for_each_due_update_and_none_before_the_first",),
    21: (f"{RESUME}::test_21_no_checkpoint_is_removed_or_overwritten_before_the_next_one_stands",
         "data/stage_store/test_mid_epoch.py::test_a_damaged_commit_falls_back_to_the_one_before_it",
         "data/store/test_store_contract.py::test_an_object_that_exists_is_never_replaced"),
    22: (f"{OWN}::test_22_a_wrong_path_to_start_from_is_an_error",),
    23: (f"{OWN}::test_23_the_k_best_epochs_are_those_with_the_best_values",),
    24: (f"{OWN}::test_24_weights_to_start_from_are_the_models_and_the_average_begins_with_them",),
    25: (f"{LOOP}::test_25_the_order_goes_by_the_runs_seed_and_leaves_global_generators_alone",),
    # Validation and records
    26: (f"{OWN}::test_26_no_sample_is_validated_twice",),
    27: (f"{LOOP}::test_27_a_small_rate_is_recorded_as_it_is",
         "engine/model/test_parameter_groups.py::test_rates_are_recorded_whole_however_small"),
    28: (f"{OWN}::test_28_samples_are_counted_in_samples",),
    29: (f"{RESUME}::test_29_other_weights_are_measured_as_they_are_and_the_models_own_come_back",),
}  # fmt: skip
"""Number → tests that fail if it comes back."""


@cache
def names_in(file):
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_all_twenty_nine_are_listed():
    assert sorted(DEFECTS) == list(range(1, 30))


@pytest.mark.parametrize("number", DEFECTS)
def test_each_has_a_test_that_is_there(number):
    assert DEFECTS[number]
    for node in DEFECTS[number]:
        file, _, name = node.partition("::")
        assert name in names_in(file), node


def test_a_test_that_bears_a_number_is_listed_under_it():
    for path in (TESTS / "parity").glob("test_cvnets_*.py"):
        for name in names_in(f"parity/{path.name}"):
            if found := re.match(r"test_(\d\d)_", name):
                assert f"parity/{path.name}::{name}" in DEFECTS[int(found[1])], name
