"""Closed schemas of the fields that the manifests use of other projects' resources: an unknown field is an error.

The CRDs themselves are not here; a field that one of these projects renames is found on a cluster only.
"""

from typing import Any

_LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
_SELECTOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["matchLabels"],
    "properties": {"matchLabels": _LABELS},
}
_DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}


def _closed(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def _resource(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    name = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}
    return _closed(
        {
            "apiVersion": {"const": version},
            "kind": {"const": kind},
            "metadata": _closed({"name": name, "namespace": name, "labels": _LABELS}),
            "spec": spec,
        }
    )


_PARAMETERS = {
    "type": "array",
    "items": _closed({"name": {"type": "string"}, "value": {"type": "string"}}, "value"),
}
_STEP = _closed(
    {
        "name": {"type": "string"},
        "template": {"type": "string"},
        "arguments": _closed({"parameters": _PARAMETERS}),
    }
)
_COUNT = {"type": "string", "pattern": r"^\d+$"}
_WORKLOAD_TRIGGER = _closed(
    {
        "type": {"const": "kubernetes-workload"},
        "metadata": _closed({"podSelector": {"type": "string"}, "value": _COUNT}),
    }
)
_PROMETHEUS_TRIGGER = _closed(
    {
        "type": {"const": "prometheus"},
        "metadata": _closed(
            {
                "serverAddress": {"type": "string", "pattern": "^http://"},
                "query": {"type": "string"},
                "threshold": _COUNT,
            }
        ),
    }
)
_RAY_GROUP = {
    "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
    "template": _closed(
        {
            "metadata": _closed({"labels": _LABELS, "annotations": _LABELS}),
            "spec": {"type": "object"},  # the pod's: checked where it is lifted
        }
    ),
}
_AT_LEAST_ONE = {"type": "integer", "minimum": 1}
SCHEMAS: dict[tuple[str, str], dict[str, Any]] = {
    ("monitoring.coreos.com/v1", "PodMonitor"): _resource(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        _closed(
            {
                "selector": _SELECTOR,
                "podTargetLabels": {"type": "array", "items": {"type": "string"}},
                "podMetricsEndpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": _closed(
                        {
                            "port": {"type": "string"},
                            "path": {"type": "string"},
                            "interval": _DURATION,
                            "scrapeTimeout": _DURATION,
                        }
                    ),
                },
            }
        ),
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _resource(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        _closed(
            {
                "groups": {
                    "type": "array",
                    "minItems": 1,
                    "items": _closed(
                        {
                            "name": {"type": "string"},
                            "rules": {
                                "type": "array",
                                "items": _closed(
                                    {
                                        "alert": {"type": "string", "pattern": "^Qaeval[A-Z]"},
                                        "expr": {"type": "string"},
                                        "for": _DURATION,
                                        "labels": _closed({"severity": {"enum": ["warning", "critical"]}}),
                                        "annotations": _closed(
                                            {"summary": {"type": "string"}, "description": {"type": "string"}}
                                        ),
                                    }
                                ),
                            },
                        }
                    ),
                }
            }
        ),
    ),
    ("keda.sh/v1alpha1", "ScaledObject"): _resource(
        "keda.sh/v1alpha1",
        "ScaledObject",
        _closed(
            {
                "scaleTargetRef": _closed({"name": {"type": "string"}}),
                "minReplicaCount": {"const": 0},
                "maxReplicaCount": {"type": "integer", "minimum": 1},
                "pollingInterval": {"type": "integer", "minimum": 1},
                "cooldownPeriod": {"type": "integer", "minimum": 1},
                "triggers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"oneOf": [_WORKLOAD_TRIGGER, _PROMETHEUS_TRIGGER]},
                },
            }
        ),
    ),
    ("argoproj.io/v1alpha1", "WorkflowTemplate"): _resource(
        "argoproj.io/v1alpha1",
        "WorkflowTemplate",
        _closed(
            {
                "entrypoint": {"type": "string"},
                "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
                "ttlStrategy": _closed({"secondsAfterCompletion": {"type": "integer", "minimum": 1}}),
                "serviceAccountName": {"type": "string"},
                "automountServiceAccountToken": {"type": "boolean"},
                "podMetadata": _closed({"labels": _LABELS}),
                "securityContext": {"type": "object"},  # the pod's: checked where it is lifted
                "podSpecPatch": {"type": "string"},
                "templates": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "oneOf": [
                            _closed(
                                {
                                    "name": {"type": "string"},
                                    "steps": {"type": "array", "items": {"type": "array", "items": _STEP}},
                                }
                            ),
                            _closed(
                                {
                                    "name": {"type": "string"},
                                    "inputs": _closed({"parameters": _PARAMETERS}),
                                    "resource": _closed(
                                        {
                                            "action": {"const": "patch"},
                                            "mergeStrategy": {"const": "merge"},
                                            "successCondition": {"type": "string"},
                                            "failureCondition": {"type": "string"},
                                            "manifest": {"type": "string"},
                                        },
                                        "successCondition",
                                        "failureCondition",
                                    ),
                                }
                            ),
                        ]
                    },
                },
            }
        ),
    ),
    ("ray.io/v1", "RayJob"): _resource(
        "ray.io/v1",
        "RayJob",
        _closed(
            {
                "entrypoint": {"type": "string"},
                "submissionMode": {"const": "HTTPMode"},
                "backoffLimit": {"type": "integer", "minimum": 0},
                "activeDeadlineSeconds": _AT_LEAST_ONE,
                "shutdownAfterJobFinishes": {"const": True},
                "ttlSecondsAfterFinished": _AT_LEAST_ONE,
                "rayClusterSpec": _closed(
                    {
                        "rayVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
                        "enableInTreeAutoscaling": {"type": "boolean"},
                        "headGroupSpec": _closed(_RAY_GROUP),
                        "workerGroupSpecs": {
                            "type": "array",
                            "minItems": 1,
                            "items": _closed(
                                {
                                    "groupName": {"type": "string"},
                                    "replicas": _AT_LEAST_ONE,
                                    "minReplicas": _AT_LEAST_ONE,
                                    "maxReplicas": _AT_LEAST_ONE,
                                    **_RAY_GROUP,
                                }
                            ),
                        },
                    }
                ),
            }
        ),
    ),
}
