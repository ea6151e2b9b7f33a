from services.trainer.runs import best


def test_what_is_told_is_of_the_weights_that_were_kept() -> None:
    history = [{"eval_valid_x": 0.5, "step": 0}, {"loss": 1.0}, {"eval_valid_x": 0.7}, {"eval_valid_x": 0.6}]
    assert best(history, "valid_x") == {"valid_x": 0.7, "base_valid_x": 0.5}


def test_a_base_that_training_made_worse_is_not_told_as_kept() -> None:
    history = [{"eval_valid_x": 0.5}, {"eval_valid_x": 0.3, "eval_runtime": 1.0}, {"eval_valid_x": 0.4}]
    assert best(history, "valid_x") == {"valid_x": 0.4, "base_valid_x": 0.5}
