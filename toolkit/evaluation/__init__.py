"""Tables, intervals, pictures and predictions of a trained model.

Evaluation and training never import each other: what both must agree on (loss, metrics, how to read an output) is
asked of `toolkit.tasks`, and training hands its curves over as a file, `metrics.jsonl`. So a run can be evaluated
where it was not trained, and a change to a picture can never change a training. From the rooms below, evaluation
takes `tasks`, `data.spec`, `runs.files` and `runs.metrics`; model, batches, labels and names come in as plain values.
"""
