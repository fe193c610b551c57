"""What the table in ``docs/metrics.md`` says of each metric beside what the code says itself."""

from __future__ import annotations

from typing import NamedTuple


class Note(NamedTuple):
    """``worry``: what would make somebody who looks at it worry."""

    unit: str
    worry: str


LABELS = {
    "route": "pattern of the address, such as `/predict`; `other` for addresses that there are not",
    "status": "HTTP status; 499 where the client had gone",
    "code": "of [problems.md](problems.md)",
    "stage": "decode, preprocess, encode, read, render",
    "result": "hit, miss; of spans: exported, failed, dropped",
    "model": "`name/version`; of what is compared with a shadow, of the model that answered",
    "shadow": "`name/version` of the shadow model",
    "outcome": "`scored`; `refused` by its own quality gate, say; `passed_over` because there was "
    "no time to spare; `failed`",
    "positive": "`both`, `neither`, `only_model` that answered, `only_shadow`: each at its own "
    "operating point of the same name",
    "reason": "`bundle`: a file is missing or not the one that was sealed, or it does not fit this "
    "service; `graph`: it cannot answer; `device`: not on the one of the others; `other`",
    "unit": "`image`: a breast of which there is one image; `breast`: several images of one exam; "
    "`series`: several exams",
    "vendor": "who made the machine, of a closed list; `other` is not in it, `unknown` not said, "
    "`several` where the images of a breast differ. Never text of a file",
    "bucket": "tenth of the validation scores, 1 the lowest; its edges come from the bundle",
    "name": "of the model",
    "version": "of the model; of `mammoseq_start_time_seconds` of the service",
    "sha256": "of the bundle's manifest",
    "provider": "of ONNX Runtime, in real use",
}

NOTES = {
    "mammoseq_requests_total": Note(
        "requests",
        "5xx of `/predict`, `/predict/series` and `/v2/.../infer`: more than one in 200 breaks the "
        "goal.",
    ),
    "mammoseq_problems_total": Note(
        "requests",
        "`internal_error` at all; `overloaded` for minutes: more replicas; any other in more than "
        "a fifth of requests: a sender has changed.",
    ),
    "mammoseq_ignored_files_total": Note(
        "files", "A rise without more studies: mammograms are sent in a form that is left out."
    ),
    "mammoseq_request_duration_seconds": Note(
        "seconds",
        "More than 5 % of `/predict` above 2.5 s. It begins with the header of the request: the "
        "upload is in it, so slow clients show here and in no stage.",
    ),
    "mammoseq_stage_duration_seconds": Note(
        "seconds of a worker, an image or a breast",
        "`encode` doubled: another device or a busy neighbour; `decode`: larger or other files. Of "
        "what is refused, the stages before that count.",
    ),
    "mammoseq_batch_size_images": Note(
        "images", "On a GPU always 1 under load: nothing is gained there. On a CPU 1 is right."
    ),
    "mammoseq_series_length_exams": Note(
        "exams", "Always 1 where priors are sent: they are not found, or not of one patient."
    ),
    "mammoseq_queue_duration_seconds": Note(
        "seconds, a piece of work", "95 % above 1 s: too few workers. Beyond 2 s it is refused."
    ),
    "mammoseq_in_flight_requests": Note(
        "requests, all processes", "Near `MAMMOSEQ_MAX_REQUESTS`; or above 0 with no traffic."
    ),
    "mammoseq_waiting_images": Note("images, all processes", "As above, for long series."),
    "mammoseq_expected_wait_seconds": Note(
        "seconds, of the process where it is longest",
        "Near `MAMMOSEQ_MAX_QUEUE_SECONDS`: the next are refused. It is of the latest request, and "
        "stays until the next.",
    ),
    "mammoseq_remembered_images_total": Note(
        "images", "Never a hit where studies come with their priors again and again."
    ),
    "mammoseq_remembered_bytes": Note(
        "bytes, all processes", "Always at `MAMMOSEQ_REMEMBERED_BYTES` and few hits: too little."
    ),
    "mammoseq_calibrated_probability_ratio": Note(
        "probability, 0 to 1", "See the next: this one is of everything together, in twentieths."
    ),
    "mammoseq_scores_total": Note(
        "breasts",
        "Its distribution moves away from that of validation, or of the week before "
        "([observability.md](observability.md#score-drift)).",
    ),
    "mammoseq_reference_scores_ratio": Note(
        "share of scores, 0 to 1", "Absent: the bundle has no figures, and nothing is compared."
    ),
    "mammoseq_spans_total": Note(
        "spans",
        "`failed` or `dropped` at all: the collector is away, or too slow. No request waits for "
        "it, but traces have holes.",
    ),
    "mammoseq_model_info": Note(
        "1 or 0",
        "Two versions for longer than a rollout that are not meant; `CPUExecutionProvider` beside "
        "a GPU.",
    ),
    "mammoseq_models_refused_total": Note(
        "versions, each process", "At all: somebody has put a bad version into the store."
    ),
    "mammoseq_refused_models": Note(
        "versions", "Above 0: the service is not on the version that it should be on."
    ),
    "mammoseq_shadow_studies_total": Note(
        "requests", "`failed` at all; `passed_over` by far the most: it sees quiet hours only."
    ),
    "mammoseq_shadow_breasts_total": Note(
        "breasts", "`only_shadow` and `only_model` together: so many calls would change."
    ),
    "mammoseq_shadow_difference_ratio": Note(
        "difference of probability, 0 to 1", "Large where the calls agree, too: calibrate first."
    ),
    "mammoseq_visible_gpus": Note("GPUs", "0 on a GPU node; above 0 with the CPU in use."),
    "mammoseq_audit_failures_total": Note(
        "records", "At all: the disk of the audit log is full or gone, and requests are refused."
    ),
    "mammoseq_failed_devices": Note("processes", "Above 0 for longer than a restart takes."),
    "mammoseq_start_time_seconds": Note(
        "seconds since 1970", "It changes without a rollout: out of memory, or a failed device."
    ),
}
