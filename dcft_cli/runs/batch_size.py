"""Smaller batches for a run that does not fit into memory (`training.auto_batch_size`)."""

from dcft_cli.runs.plan import TrainingPlan, with_training


def smaller_batches(plan: TrainingPlan) -> TrainingPlan | None:
    """Return a plan with smaller batches, as many more of which make an optimizer step.

    A batch is halved, or, with an odd number of rows, divided by the smallest number that leaves no
    remainder. Steps and their rows stay the same. After training batches of one row, those of
    evaluations are halved.

    Returns:
        None if the recipe does not ask for it, or every batch has one row already.
    """
    training = plan.recipe.training
    if not training.auto_batch_size:
        return None
    if training.batch_size == 1:
        smaller = training.evaluation_batch_size // 2
        return with_training(plan, eval_batch_size=smaller) if smaller else None
    parts = next(n for n in range(2, training.batch_size + 1) if training.batch_size % n == 0)
    eval_batch_size = training.eval_batch_size and max(1, training.eval_batch_size // 2)
    return with_training(
        plan,
        batch_size=training.batch_size // parts,
        gradient_accumulation_steps=training.gradient_accumulation_steps * parts,
        eval_batch_size=eval_batch_size,
    )
