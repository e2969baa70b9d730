"""The command `evaluate`: score weights on a labelled dataset, with error bars by subject.

    request = EvaluateRequest(protocol="knn", weights="run", data=Path("out"), dataset="busi", out=Path("scores"))
    report = evaluate(request)

`task` says what is predicted from which images, `frozen` holds the probes on frozen features, `finetune` and `segment`
train, `metrics` scores, `contamination` asks whether the weights have seen the test images, `run` joins them.
"""

from openus_model.evaluate.run import EvaluateRequest, evaluate, rehearse

__all__ = ["EvaluateRequest", "evaluate", "rehearse"]
